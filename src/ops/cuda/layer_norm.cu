// Layer norm over the last dimension with one scale and shift for each group of rows.
#include "common.cuh"

// One warp a row. X: input, P: scale and shift, Y: output.
template <int V, class X, class P, class Y>
__device__ void forward(const X *x, const P *scale, const P *shift, Y *y, int rows, int width, int group_rows, float eps) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += (int64_t)row * width, y += (int64_t)row * width;
  int64_t group = (int64_t)(row / group_rows) * width;
  float2 moments = row_moments<V>(x, width, eps);
  float v[V], s[V], b[V];
  for (int i = lane * V; i < width; i += 32 * V) {
    load<V>(x + i, v);
    load<V>(scale + group + i, s);
    load<V>(shift + group + i, b);
    for (int j = 0; j < V; j++) v[j] = (v[j] - moments.x) * moments.y * s[j] + b[j];
    store<V>(y + i, v);
  }
}

// Two layer norms of one input, as a layer with parallel branches has them; scales and shifts (width).
template <int V, class T>
__device__ void pair(const T *x, const T *scale1, const T *shift1, const T *scale2, const T *shift2, T *y1, T *y2, int rows, int width,
                     float eps) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += (int64_t)row * width, y1 += (int64_t)row * width, y2 += (int64_t)row * width;
  float2 moments = row_moments<V>(x, width, eps);
  float v[V], w[V], s[V], b[V];
  for (int i = lane * V; i < width; i += 32 * V) {
    load<V>(x + i, v);
    load<V>(scale1 + i, s);
    load<V>(shift1 + i, b);
    for (int j = 0; j < V; j++) v[j] = (v[j] - moments.x) * moments.y, w[j] = v[j] * s[j] + b[j];
    store<V>(y1 + i, w);
    load<V>(scale2 + i, s);
    load<V>(shift2 + i, b);
    for (int j = 0; j < V; j++) w[j] = v[j] * s[j] + b[j];
    store<V>(y2 + i, w);
  }
}

// From the slopes g₁ and g₂ of such a pair's results to dx, on top of `base`, what x receives beside them. The rows' mean and
// 1/deviation are left in `moments` where that is given.
template <int V, class T>
__device__ void pair_backward(const T *x, const T *scale1, const T *scale2, const T *g1, const T *g2, const T *base, T *dx,
                              float2 *moments, int rows, int width, float eps) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  int64_t at = (int64_t)row * width;
  x += at, g1 += at, g2 += at, base += at, dx += at;
  float mean = row_mean<V>(x, width), square = 0, slope = 0, turn = 0, v[V], a[V], b[V], s[V], r[V];
  for (int i = lane * V; i < width; i += 32 * V) {
    load<V>(x + i, v);
    load<V>(g1 + i, a);
    load<V>(g2 + i, b);
    load<V>(scale1 + i, s);
    load<V>(scale2 + i, r);
    for (int j = 0; j < V; j++) {
      float c = v[j] - mean, g = a[j] * s[j] + b[j] * r[j];
      square += c * c, slope += g, turn += g * c;
    }
  }
  float rstd = rsqrtf(warp_sum(square) / width + eps);
  if (moments && lane == 0) moments[row] = make_float2(mean, rstd);
  slope = warp_sum(slope) / width, turn = warp_sum(turn) * rstd / width;
  for (int i = lane * V; i < width; i += 32 * V) {
    load<V>(x + i, v);
    load<V>(g1 + i, a);
    load<V>(g2 + i, b);
    load<V>(scale1 + i, s);
    load<V>(scale2 + i, r);
    for (int j = 0; j < V; j++) a[j] = a[j] * s[j] + b[j] * r[j];
    load<V>(base + i, b);
    for (int j = 0; j < V; j++) v[j] = b[j] + rstd * (a[j] - slope - (v[j] - mean) * rstd * turn);
    store<V>(dx + i, v);
  }
}

// The slopes of the pair's scales and shifts: sums over a chunk of rows of g₁·x̂, g₁, g₂·x̂ and g₂, partial (chunks, 4, width).
template <int V, class T>
__device__ void pair_sums(const T *x, const T *g1, const T *g2, const float2 *moments, float *partial, int width, int group_rows,
                          int chunk_rows, int chunks) {
  CHUNK(V)
  float sums[4][V] = {}, v[V], a[V], b[V];
  if (column < width)
    for (int64_t row = first + threadIdx.y; row < last; row += 8) {
      int64_t at = row * width + column;
      float2 m = moments[row];
      load<V>(x + at, v);
      load<V>(g1 + at, a);
      load<V>(g2 + at, b);
      for (int j = 0; j < V; j++) {
        float hat = (v[j] - m.x) * m.y;
        sums[0][j] += a[j] * hat, sums[1][j] += a[j], sums[2][j] += b[j] * hat, sums[3][j] += b[j];
      }
    }
  chunk_sums<V, 4>(sums, partial, column, width);
}

// Per row: mean, 1/deviation, mean of g·s and of g·s·x̂. stats (rows, 4).
template <int V, class X, class P, class Y>
__device__ void statistics(const X *x, const P *scale, const Y *grad, float4 *stats, int rows, int width, int group_rows,
                           float eps) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += (int64_t)row * width, grad += (int64_t)row * width, scale += (int64_t)(row / group_rows) * width;
  float mean = row_mean<V>(x, width), square = 0, slope = 0, turn = 0, v[V], g[V], s[V];
  for (int i = lane * V; i < width; i += 32 * V) {
    load<V>(x + i, v);
    load<V>(grad + i, g);
    load<V>(scale + i, s);
    for (int j = 0; j < V; j++) {
      float c = v[j] - mean;
      square += c * c, slope += g[j] * s[j], turn += g[j] * s[j] * c;
    }
  }
  float rstd = rsqrtf(warp_sum(square) / width + eps);
  slope = warp_sum(slope), turn = warp_sum(turn);
  if (lane == 0) stats[row] = make_float4(mean, rstd, slope / width, turn * rstd / width);
}

// dx, and sums over a chunk of rows of g·x̂ and g: partial (groups·chunks, 2, width).
template <int V, class X, class P, class Y>
__device__ void backward(const X *x, const P *scale, const Y *grad, const float4 *stats, X *dx, float *partial, int width,
                         int group_rows, int chunk_rows, int chunks) {
  CHUNK(V)
  float s[V], sums[2][V] = {}, v[V], g[V];
  if (column < width) {
    load<V>(scale + (int64_t)group * width + column, s);
    for (int64_t row = first + threadIdx.y; row < last; row += 8) {
      int64_t at = row * width + column;
      float4 st = stats[row];
      load<V>(x + at, v);
      load<V>(grad + at, g);
      for (int j = 0; j < V; j++) {
        float hat = (v[j] - st.x) * st.y;
        v[j] = st.y * (g[j] * s[j] - st.z - hat * st.w);
        sums[0][j] += g[j] * hat, sums[1][j] += g[j];
      }
      store<V>(dx + at, v);
    }
  }
  chunk_sums<V, 2>(sums, partial, column, width);
}

#define KERNELS(name, V, X, P, Y)                                                                                      \
  ENTRY layer_norm_##name(const X *x, const P *scale, const P *shift, Y *y, int rows, int width, int group_rows,       \
                          float eps) {                                                                                 \
    forward<V>(x, scale, shift, y, rows, width, group_rows, eps);                                                      \
  }                                                                                                                    \
  ENTRY layer_norm_statistics_##name(const X *x, const P *scale, const Y *grad, float4 *stats, int rows, int width,    \
                                     int group_rows, float eps) {                                                      \
    statistics<V>(x, scale, grad, stats, rows, width, group_rows, eps);                                                \
  }                                                                                                                    \
  ENTRY layer_norm_backward_##name(const X *x, const P *scale, const Y *grad, const float4 *stats, X *dx,              \
                                   float *partial, int width, int group_rows, int chunk_rows, int chunks) {            \
    backward<V>(x, scale, grad, stats, dx, partial, width, group_rows, chunk_rows, chunks);                            \
  }

KERNELS(f32_v1, 1, float, float, float)
KERNELS(f32_v4, 4, float, float, float)
KERNELS(bf16_v1, 1, bf16, bf16, bf16)
KERNELS(bf16_v4, 4, bf16, bf16, bf16)
KERNELS(mixed_v1, 1, float, float, bf16)
KERNELS(mixed_v4, 4, float, float, bf16)

#define PAIR(name, V, T)                                                                                               \
  ENTRY layer_norm_pair_##name(const T *x, const T *scale1, const T *shift1, const T *scale2, const T *shift2, T *y1,  \
                               T *y2, int rows, int width, float eps) {                                                \
    pair<V>(x, scale1, shift1, scale2, shift2, y1, y2, rows, width, eps);                                              \
  }                                                                                                                    \
  ENTRY layer_norm_pair_backward_##name(const T *x, const T *scale1, const T *scale2, const T *g1, const T *g2,        \
                                        const T *base, T *dx, float2 *moments, int rows, int width, float eps) {       \
    pair_backward<V>(x, scale1, scale2, g1, g2, base, dx, moments, rows, width, eps);                                  \
  }                                                                                                                    \
  ENTRY layer_norm_pair_sums_##name(const T *x, const T *g1, const T *g2, const float2 *moments, float *partial,       \
                                    int width, int group_rows, int chunk_rows, int chunks) {                           \
    pair_sums<V>(x, g1, g2, moments, partial, width, group_rows, chunk_rows, chunks);                                  \
  }

PAIR(f32_v1, 1, float)
PAIR(f32_v4, 4, float)
PAIR(bf16_v1, 1, bf16)
PAIR(bf16_v8, 8, bf16)
