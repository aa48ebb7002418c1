// The parts of a time-conditioned layer that are not matrix products or attention, forward and backward.
//
// The stream x is f32 and what is multiplied T. modulation (groups, 6, width) holds scale₁, shift₁, scale₂, shift₂ of the
// two norms and the gates α₁, α₂ for each group of rows.
#include "common.cuh"

// Two modulated layer norms of one row each warp: y₁ and y₂.
template <int V, class T>
__device__ void norms(const float *x, const float *modulation, T *y1, T *y2, int rows, int width, int group_rows, float eps) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += (int64_t)row * width, y1 += (int64_t)row * width, y2 += (int64_t)row * width;
  modulation += (int64_t)(row / group_rows) * 6 * width;
  float2 moments = row_moments<V>(x, width, eps);
  float v[V], w[V], s[V], b[V];
  for (int i = lane * V; i < width; i += 32 * V) {
    load<V>(x + i, v);
    load<V>(modulation + i, s);
    load<V>(modulation + width + i, b);
    for (int j = 0; j < V; j++) v[j] = (v[j] - moments.x) * moments.y, w[j] = v[j] * s[j] + b[j];
    store<V>(y1 + i, w);
    load<V>(modulation + 2 * width + i, s);
    load<V>(modulation + 3 * width + i, b);
    for (int j = 0; j < V; j++) w[j] = v[j] * s[j] + b[j];
    store<V>(y2 + i, w);
  }
}

// dx where it is wanted, on top of `base` and `more` where they are given, and the sums of g₁·x̂, g₁, g₂·x̂, g₂: partial
// (groups·chunks, 4, width). A block has whole rows, V columns a thread. It takes one at a time: several blocks on a multiprocessor
// cover its latency better than several rows in fewer blocks.
template <int V, class T>
__device__ void norms_backward(const float *x, const float *modulation, const T *g1, const T *g2, const float *base, const float *more,
                               float *dx, float *partial, int width, int group_rows, int chunk_rows, int chunks, float eps) {
  int column = threadIdx.x * V, group = blockIdx.y / chunks;
  int64_t first = (int64_t)group * group_rows + blockIdx.y % chunks * chunk_rows;
  int64_t last = min(first + chunk_rows, (int64_t)(group + 1) * group_rows);
  bool inside = column < width;
  float sums[4][V] = {}, s[V] = {}, r[V] = {};
  if (inside) {
    load<V>(modulation + (int64_t)group * 6 * width + column, s);
    load<V>(modulation + ((int64_t)group * 6 + 2) * width + column, r);
  }
  for (int64_t row = first; row < last; row++) {
    int64_t at = row * width + column;
    float v[V] = {}, a[V] = {}, b[V] = {}, d[V] = {}, m[V] = {}, mean[1] = {}, moments[3] = {};
    if (inside) load<V>(x + at, v), load<V>(g1 + at, a), load<V>(g2 + at, b);
    // Read now, though they are added last, so that nobody waits for them.
    if (inside && dx && base) load<V>(base + at, d);
    if (inside && dx && more) load<V>(more + at, m);
#pragma unroll
    for (int j = 0; j < V; j++) mean[0] += v[j];
    block_sums(mean);
#pragma unroll
    for (int j = 0; j < V; j++) {
      v[j] = inside ? v[j] - mean[0] / width : 0.f;
      float g = a[j] * s[j] + b[j] * r[j];
      moments[0] += v[j] * v[j], moments[1] += g, moments[2] += g * v[j];
    }
    block_sums(moments);
    float rstd = rsqrtf(moments[0] / width + eps), slope = moments[1] / width, turn = moments[2] * rstd / width;
#pragma unroll
    for (int j = 0; j < V; j++) {
      float hat = v[j] * rstd;
      sums[0][j] += a[j] * hat, sums[1][j] += a[j], sums[2][j] += b[j] * hat, sums[3][j] += b[j];
      d[j] += m[j] + rstd * (a[j] * s[j] + b[j] * r[j] - slope - hat * turn);
    }
    if (inside && dx) store<V>(dx + at, d);
  }
  if (inside)
#pragma unroll
    for (int p = 0; p < 4; p++) store<V>(partial + ((int64_t)blockIdx.y * 4 + p) * width + column, sums[p]);
}

// modulation from the projection (groups, 6, width) of γ₁, β₁, γ₂, β₂, α₁, α₂ and the norms' weights w and biases b:
// w₁(1+γ₁), b₁(1+γ₁) + β₁, the same of the second, and the gates times `factor` and each group's length, where there is one.
ENTRY field_modulation(const float *projection, const float *w1, const float *b1, const float *w2, const float *b2,
                       const float *length, float factor, float *modulation, int width) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= width) return;
  projection += (int64_t)blockIdx.y * 6 * width + i, modulation += (int64_t)blockIdx.y * 6 * width + i;
  float gain1 = 1.f + projection[0], gain2 = 1.f + projection[2 * width];
  if (length) factor *= length[blockIdx.y];
  modulation[0] = w1[i] * gain1, modulation[width] = b1[i] * gain1 + projection[width];
  modulation[2 * width] = w2[i] * gain2, modulation[3 * width] = b2[i] * gain2 + projection[3 * width];
  modulation[4 * width] = factor * projection[4 * width], modulation[5 * width] = factor * projection[5 * width];
}

// From the slopes of the modulation to those of the projection, of the weights and of the biases; the last two join what is there
// already where `add` says so. Block (32, 8).
ENTRY field_modulation_backward(const float *projection, const float *w1, const float *b1, const float *w2, const float *b2,
                                const float *length, float factor, const float *slopes, float *d_projection, float *d_w1, float *d_b1,
                                float *d_w2, float *d_b2, int width, int groups, int add) {
  int i = blockIdx.x * 32 + threadIdx.x;
  float sums[4] = {};
  if (i < width)
    for (int g = threadIdx.y; g < groups; g += 8) {
      int64_t at = (int64_t)g * 6 * width + i;
      const float *p = projection + at, *s = slopes + at;
      float *d = d_projection + at, scale = length ? factor * length[g] : factor;
      d[0] = s[0] * w1[i] + s[width] * b1[i], d[width] = s[width];
      d[2 * width] = s[2 * width] * w2[i] + s[3 * width] * b2[i], d[3 * width] = s[3 * width];
      d[4 * width] = scale * s[4 * width], d[5 * width] = scale * s[5 * width];
      float gain1 = 1.f + p[0], gain2 = 1.f + p[2 * width];
      sums[0] += s[0] * gain1, sums[1] += s[width] * gain1, sums[2] += s[2 * width] * gain2, sums[3] += s[3 * width] * gain2;
    }
  __shared__ float shared[4][8][32];
  for (int j = 0; j < 4; j++) shared[j][threadIdx.y][threadIdx.x] = sums[j];
  __syncthreads();
  if (threadIdx.y >= 4 || i >= width) return;
  float sum = 0;
  for (int j = 0; j < 8; j++) sum += shared[threadIdx.y][j][threadIdx.x];
  float *to = threadIdx.y == 0 ? d_w1 : threadIdx.y == 1 ? d_b1 : threadIdx.y == 2 ? d_w2 : d_b2;
  to[i] = add ? to[i] + sum : sum;
}

// u = α₁⊙a + α₂⊙m, on top of `base` where there is one.
template <int V, class T>
__device__ void gates(const T *a, const T *m, const float *modulation, const float *base, float *u, int64_t n, int width,
                      int group_rows) {
  int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
  if (i >= n) return;
  const float *gate = modulation + (i / width / group_rows * 6 + 4) * width + i % width;
  float v[V], w[V], first[V], second[V];
  load<V>(a + i, v);
  load<V>(m + i, w);
  load<V>(gate, first);
  load<V>(gate + width, second);
  for (int j = 0; j < V; j++) v[j] = first[j] * v[j] + second[j] * w[j];
  if (base) {
    load<V>(base + i, w);
    for (int j = 0; j < V; j++) v[j] += w[j];
  }
  store<V>(u + i, v);
}

// Kernels that go down columns read so many of their rows before they work on any: what is read at a time must cover a card's latency.
constexpr int AHEAD = 2;

// da, dm, and the sums of g·a, g·m, da, dm: partial (groups·chunks, 4, width).
template <int V, class T>
__device__ void gates_backward(const T *a, const T *m, const float *modulation, const float *grad, T *da, T *dm, float *partial,
                               int width, int group_rows, int chunk_rows, int chunks) {
  CHUNK(V)
  float sums[4][V] = {}, s[V], r[V], v[AHEAD][V], w[AHEAD][V], g[AHEAD][V];
  if (column < width) {
    load<V>(modulation + ((int64_t)group * 6 + 4) * width + column, s);
    load<V>(modulation + ((int64_t)group * 6 + 5) * width + column, r);
    for (int64_t row = first + threadIdx.y; row < last; row += 8 * AHEAD) {
#pragma unroll
      for (int k = 0; k < AHEAD; k++) {
        int64_t at = min(row + 8 * k, last - 1) * width + column;
        load<V>(a + at, v[k]), load<V>(m + at, w[k]), load<V>(grad + at, g[k]);
      }
#pragma unroll
      for (int k = 0; k < AHEAD; k++) {
        if (row + 8 * k >= last) break;
        int64_t at = (row + 8 * k) * width + column;
        for (int j = 0; j < V; j++) {
          sums[0][j] += g[k][j] * v[k][j], sums[1][j] += g[k][j] * w[k][j];
          v[k][j] = g[k][j] * s[j], w[k][j] = g[k][j] * r[j];
          sums[2][j] += v[k][j], sums[3][j] += w[k][j];
        }
        store<V>(da + at, v[k]);
        store<V>(dm + at, w[k]);
      }
    }
  }
  chunk_sums<V, 4>(sums, partial, column, width);
}

// y = gelu(u) and du = g·gelu′(u), which may overwrite g, and the sums of du: partial (chunks, width).
template <int V, class T>
__device__ void gelu_backward(const T *u, const T *grad, T *y, T *du, float *partial, int width, int group_rows, int chunk_rows, int chunks) {
  CHUNK(V)
  float sums[1][V] = {}, v[AHEAD][V], g[AHEAD][V];
  if (column < width)
    for (int64_t row = first + threadIdx.y; row < last; row += 8 * AHEAD) {
#pragma unroll
      for (int k = 0; k < AHEAD; k++) {
        int64_t at = min(row + 8 * k, last - 1) * width + column;
        load<V>(u + at, v[k]), load<V>(grad + at, g[k]);
      }
#pragma unroll
      for (int k = 0; k < AHEAD; k++) {
        if (row + 8 * k >= last) break;
        int64_t at = (row + 8 * k) * width + column;
        for (int j = 0; j < V; j++) {
          float bell, share = normal(v[k][j], bell);
          g[k][j] *= share + v[k][j] * 0.3989423f * bell;
          v[k][j] *= share, sums[0][j] += g[k][j];
        }
        store<V>(y + at, v[k]);
        store<V>(du + at, g[k]);
      }
    }
  chunk_sums<V, 1>(sums, partial, column, width);
}

#define KERNELS(name, V, T)                                                                                                          \
  ENTRY field_norms_##name(const float *x, const float *modulation, T *y1, T *y2, int rows, int width, int group_rows, float eps) {  \
    norms<8>(x, modulation, y1, y2, rows, width, group_rows, eps);                                                                   \
  }                                                                                                                                  \
  ENTRY field_gates_##name(const T *a, const T *m, const float *modulation, const float *base, float *u, int64_t n, int width,       \
                           int group_rows) {                                                                                         \
    gates<V>(a, m, modulation, base, u, n, width, group_rows);                                                                       \
  }                                                                                                                                  \
  ENTRY field_gates_backward_##name(const T *a, const T *m, const float *modulation, const float *grad, T *da, T *dm,                \
                                    float *partial, int width, int group_rows, int chunk_rows, int chunks) {                         \
    gates_backward<V>(a, m, modulation, grad, da, dm, partial, width, group_rows, chunk_rows, chunks);                               \
  }                                                                                                                                  \
  ENTRY field_gelu_backward_##name(const T *u, const T *grad, T *y, T *du, float *partial, int width, int group_rows,                \
                                   int chunk_rows, int chunks) {                                                                     \
    gelu_backward<V>(u, grad, y, du, partial, width, group_rows, chunk_rows, chunks);                                                \
  }

KERNELS(f32, 4, float)
KERNELS(bf16, 4, bf16)

#define NORMS_BACKWARD(name, THREADS, BLOCKS, V, T)                                                                                  \
  ENTRY __launch_bounds__(THREADS, BLOCKS)                                                                                           \
      field_norms_backward_##name(const float *x, const float *modulation, const T *g1, const T *g2, const float *base,              \
                                  const float *more, float *dx, float *partial, int width, int group_rows, int chunk_rows,           \
                                  int chunks, float eps) {                                                                           \
    norms_backward<V>(x, modulation, g1, g2, base, more, dx, partial, width, group_rows, chunk_rows, chunks, eps);                   \
  }

// For widths of up to 1024, 2048 and 8192.
NORMS_BACKWARD(f32_w1024, 256, 5, 4, float)
NORMS_BACKWARD(f32_w2048, 512, 2, 4, float)
NORMS_BACKWARD(f32_w8192, 1024, 1, 8, float)
NORMS_BACKWARD(bf16_w1024, 256, 5, 4, bf16)
NORMS_BACKWARD(bf16_w2048, 512, 2, 4, bf16)
NORMS_BACKWARD(bf16_w8192, 1024, 1, 8, bf16)
