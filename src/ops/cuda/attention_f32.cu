// Causal attention in f32, forward and backward, never holding T × T scores.
//
// A block of 256 threads owns 64 rows of one head and streams tiles of 64 rows of the other side through shared memory.
// Thread (y, x) holds rows 4y..4y+3 and columns x, x+16, … of every product. Layouts are those of attention.cu.
#include "common.cuh"

constexpr int TILE = 64, THREADS = 256, WEIGHTS = TILE + 1;
// Rows in shared memory have odd pitch, so that a column meets every bank once.
template <int C> constexpr int PITCH = C + 1;
template <int C> constexpr int SIZE = TILE * PITCH<C>;

#define Y (threadIdx.x / 16 * 4)
#define X (threadIdx.x % 16)

template <int C> __device__ void load_tile(float *tile, const float *from, int valid, int64_t stride, int c) {
  for (int i = threadIdx.x; i < TILE * C; i += THREADS) {
    int row = i / C, channel = i % C;
    tile[row * PITCH<C> + channel] = row < valid && channel < c ? from[row * stride + channel] : 0.f;
  }
}

// d[i][j] = a row · b row.
template <int C> __device__ __forceinline__ void products(float (&d)[4][4], const float *a, const float *b) {
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) d[i][j] = 0;
#pragma unroll 8
  for (int k = 0; k < C; k++) {
    float x[4], y[4];
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = a[(Y + i) * PITCH<C> + k], y[i] = b[(X + 16 * i) * PITCH<C> + k];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) d[i][j] += x[i] * y[j];
  }
}

// d += weights (64 × 64) · b (64 × C).
template <int C> __device__ __forceinline__ void mix(float (&d)[4][C / 16], const float *weights, const float *b) {
#pragma unroll 4
  for (int k = 0; k < TILE; k++) {
    float x[4];
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = weights[(Y + i) * WEIGHTS + k];
#pragma unroll
    for (int j = 0; j < C / 16; j++) {
      float y = b[k * PITCH<C> + X + 16 * j];
#pragma unroll
      for (int i = 0; i < 4; i++) d[i][j] += x[i] * y;
    }
  }
}

template <int C>
__device__ void write_rows(float (&d)[4][C / 16], float *to, int row0, int valid, int64_t stride, int c, const float (&factor)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < C / 16; j++)
      if (row0 + Y + i < valid && X + 16 * j < c) to[(row0 + Y + i) * stride + X + 16 * j] = d[i][j] * factor[i];
}

template <int C> __device__ void forward(const float *qkv, float *out, float *norm, int tokens, int heads, int c, float scale) {
  extern __shared__ float shared[];
  float *q = shared, *k = q + SIZE<C>, *v = k + SIZE<C>, *weights = v + SIZE<C>;
  int head = blockIdx.y % heads, example = blockIdx.y / heads, row0 = (gridDim.x - 1 - blockIdx.x) * TILE, stride = 3 * heads * c;
  const float *from = qkv + (int64_t)example * tokens * stride + head * 3 * c;
  load_tile<C>(q, from + (int64_t)row0 * stride, tokens - row0, stride, c);
  float o[4][C / 16] = {}, most[4], sum[4] = {}, factor[4];
  for (int i = 0; i < 4; i++) most[i] = -1e30f;
  for (int first = 0; first <= row0; first += TILE) {
    __syncthreads();
    load_tile<C>(k, from + c + (int64_t)first * stride, tokens - first, stride, c);
    load_tile<C>(v, from + 2 * c + (int64_t)first * stride, tokens - first, stride, c);
    __syncthreads();
    float s[4][4];
    products<C>(s, q, k);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float top = most[i], total = 0;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        s[i][j] = first + X + 16 * j <= row0 + Y + i ? s[i][j] * scale : -1e30f;
        top = fmaxf(top, s[i][j]);
      }
      for (int offset = 8; offset > 0; offset /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, offset));
      float keep = exp2f(most[i] - top);
      most[i] = top;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float weight = exp2f(s[i][j] - top);
        total += weight;
        weights[(Y + i) * WEIGHTS + X + 16 * j] = weight;
      }
      for (int offset = 8; offset > 0; offset /= 2) total += __shfl_xor_sync(~0u, total, offset);
      sum[i] = sum[i] * keep + total;
#pragma unroll
      for (int j = 0; j < C / 16; j++) o[i][j] *= keep;
    }
    __syncthreads();
    mix<C>(o, weights, v);
  }
  for (int i = 0; i < 4; i++) {
    factor[i] = 1.f / sum[i];
    if (X == 0 && row0 + Y + i < tokens) norm[(int64_t)blockIdx.y * tokens + row0 + Y + i] = most[i] + log2f(sum[i]);
  }
  write_rows<C>(o, out + ((int64_t)example * tokens * heads + head) * c, row0, tokens, (int64_t)heads * c, c, factor);
}

template <int C>
__device__ void backward_keys(const float *qkv, const float *grad, const float *norm, const float *inner, float *d_qkv, int tokens,
                              int heads, int c, float scale, float factor) {
  extern __shared__ float shared[];
  float *k = shared, *v = k + SIZE<C>, *q = v + SIZE<C>, *g = q + SIZE<C>, *weights = g + SIZE<C>, *slopes = weights + TILE * WEIGHTS;
  int head = blockIdx.y % heads, example = blockIdx.y / heads, row0 = blockIdx.x * TILE, stride = 3 * heads * c;
  const float *from = qkv + (int64_t)example * tokens * stride + head * 3 * c;
  const float *grads = grad + ((int64_t)example * tokens * heads + head) * c;
  load_tile<C>(k, from + c + (int64_t)row0 * stride, tokens - row0, stride, c);
  load_tile<C>(v, from + 2 * c + (int64_t)row0 * stride, tokens - row0, stride, c);
  float dk[4][C / 16] = {}, dv[4][C / 16] = {};
  for (int first = row0; first < tokens; first += TILE) {
    __syncthreads();
    load_tile<C>(q, from + (int64_t)first * stride, tokens - first, stride, c);
    load_tile<C>(g, grads + (int64_t)first * heads * c, tokens - first, heads * c, c);
    __syncthreads();
    float p[4][4], s[4][4];
    products<C>(p, k, q);
    products<C>(s, v, g);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int query = first + X + 16 * j;
      int64_t at = (int64_t)blockIdx.y * tokens + min(query, tokens - 1);
      float n = norm[at], mean = inner[at];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float weight = row0 + Y + i <= query && query < tokens ? exp2f(p[i][j] * scale - n) : 0.f;
        weights[(Y + i) * WEIGHTS + X + 16 * j] = weight;
        slopes[(Y + i) * WEIGHTS + X + 16 * j] = weight * (s[i][j] - mean);
      }
    }
    __syncthreads();
    mix<C>(dv, weights, g);
    mix<C>(dk, slopes, q);
  }
  float *to = d_qkv + (int64_t)example * tokens * stride + head * 3 * c;
  write_rows<C>(dk, to + c, row0, tokens, stride, c, {factor, factor, factor, factor});
  write_rows<C>(dv, to + 2 * c, row0, tokens, stride, c, {1.f, 1.f, 1.f, 1.f});
}

template <int C>
__device__ void backward_queries(const float *qkv, const float *grad, const float *norm, const float *inner, float *d_qkv, int tokens,
                                 int heads, int c, float scale, float factor) {
  extern __shared__ float shared[];
  float *q = shared, *g = q + SIZE<C>, *k = g + SIZE<C>, *v = k + SIZE<C>, *slopes = v + SIZE<C>;
  int head = blockIdx.y % heads, example = blockIdx.y / heads, row0 = (gridDim.x - 1 - blockIdx.x) * TILE, stride = 3 * heads * c;
  const float *from = qkv + (int64_t)example * tokens * stride + head * 3 * c;
  load_tile<C>(q, from + (int64_t)row0 * stride, tokens - row0, stride, c);
  load_tile<C>(g, grad + ((int64_t)(example * tokens + row0) * heads + head) * c, tokens - row0, heads * c, c);
  float dq[4][C / 16] = {};
  for (int first = 0; first <= row0; first += TILE) {
    __syncthreads();
    load_tile<C>(k, from + c + (int64_t)first * stride, tokens - first, stride, c);
    load_tile<C>(v, from + 2 * c + (int64_t)first * stride, tokens - first, stride, c);
    __syncthreads();
    float p[4][4], s[4][4];
    products<C>(p, q, k);
    products<C>(s, g, v);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int query = row0 + Y + i;
      int64_t at = (int64_t)blockIdx.y * tokens + min(query, tokens - 1);
      float n = norm[at], mean = inner[at];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float weight = first + X + 16 * j <= query && query < tokens ? exp2f(p[i][j] * scale - n) : 0.f;
        slopes[(Y + i) * WEIGHTS + X + 16 * j] = weight * (s[i][j] - mean);
      }
    }
    __syncthreads();
    mix<C>(dq, slopes, k);
  }
  write_rows<C>(dq, d_qkv + (int64_t)example * tokens * stride + head * 3 * c, row0, tokens, stride, c, {factor, factor, factor, factor});
}

#define HEAD(C)                                                                                                                 \
  ENTRY __launch_bounds__(THREADS) attention_f32_##C(const float *qkv, float *out, float *norm, int tokens, int heads, int c,   \
                                                     float scale, int) {                                                        \
    forward<C>(qkv, out, norm, tokens, heads, c, scale);                                                                        \
  }                                                                                                                             \
  ENTRY __launch_bounds__(THREADS) attention_keys_f32_##C(const float *qkv, const float *grad, const float *norm,               \
                                                          const float *inner, float *d_qkv, int tokens, int heads, int c,       \
                                                          float scale, float factor, int) {                                     \
    backward_keys<C>(qkv, grad, norm, inner, d_qkv, tokens, heads, c, scale, factor);                                           \
  }                                                                                                                             \
  ENTRY __launch_bounds__(THREADS) attention_queries_f32_##C(const float *qkv, const float *grad, const float *norm,            \
                                                             const float *inner, float *d_qkv, int tokens, int heads, int c,    \
                                                             float scale, float factor, int) {                                  \
    backward_queries<C>(qkv, grad, norm, inner, d_qkv, tokens, heads, c, scale, factor);                                        \
  }

HEAD(16)
HEAD(32)
HEAD(64)
HEAD(96)
HEAD(128)
