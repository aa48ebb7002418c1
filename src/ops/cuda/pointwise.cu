// Elementwise kernels: activations, the residual and gated sums, rotary embedding.
#include "activate.cuh"

__device__ __forceinline__ float slope(float x, int kind) {
  float bell, share;
  switch (kind) {
  case GELU: share = normal(x, bell); return share + x * 0.3989423f * bell;
  case GELU_TANH: {
    float t = tanhf(0.7978846f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.f + t) + 0.5f * x * (1.f - t * t) * 0.7978846f * (1.f + 0.134145f * x * x);
  }
  case RELU: return x > 0.f ? 1.f : 0.f;
  default: {
    float s = 1.f / (1.f + __expf(-x));
    return s * (1.f + x * (1.f - s));
  }
  }
}

// Index of this thread's first element, V elements a thread.
#define AT(V) (((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V)

template <int V, class T> __device__ void activation(const T *x, T *y, int64_t n, int kind) {
  int64_t i = AT(V);
  if (i >= n) return;
  float v[V];
  load<V>(x + i, v);
  for (int j = 0; j < V; j++) v[j] = activate(v[j], kind);
  store<V>(y + i, v);
}

template <int V, class T> __device__ void activation_backward(const T *x, const T *grad, T *dx, int64_t n, int kind) {
  int64_t i = AT(V);
  if (i >= n) return;
  float v[V], g[V];
  load<V>(x + i, v);
  load<V>(grad + i, g);
  for (int j = 0; j < V; j++) v[j] = g[j] * slope(v[j], kind);
  store<V>(dx + i, v);
}

// y = x + a + m.
template <int V, class T> __device__ void residual(const T *x, const T *a, const T *m, T *y, int64_t n) {
  int64_t i = AT(V);
  if (i >= n) return;
  float v[V], b[V], c[V];
  load<V>(x + i, v);
  load<V>(a + i, b);
  load<V>(m + i, c);
  for (int j = 0; j < V; j++) v[j] += b[j] + c[j];
  store<V>(y + i, v);
}

// y = α₁⊙a + α₂⊙m with gates (groups, 2, width) and `group` elements of y for each pair of gates.
template <int V, class T, class Y>
__device__ void gated_sum(const T *a, const T *m, const Y *gates, Y *y, int64_t n, int width, int64_t group) {
  int64_t i = AT(V);
  if (i >= n) return;
  const Y *gate = gates + i / group * 2 * width + i % width;
  float v[V], w[V], first[V], second[V];
  load<V>(a + i, v);
  load<V>(m + i, w);
  load<V>(gate, first);
  load<V>(gate + width, second);
  for (int j = 0; j < V; j++) v[j] = first[j] * v[j] + second[j] * w[j];
  store<V>(y + i, v);
}

// da, dm, and sums over a chunk of rows of g·a and g·m: partial (groups·chunks, 2, width).
template <int V, class T, class Y>
__device__ void gated_sum_backward(const T *a, const T *m, const Y *gates, const Y *grad, T *da, T *dm, float *partial,
                                   int width, int group_rows, int chunk_rows, int chunks) {
  CHUNK(V)
  float gate1[V], gate2[V], sums[2][V] = {}, v[V], w[V], g[V];
  if (column < width) {
    load<V>(gates + (int64_t)group * 2 * width + column, gate1);
    load<V>(gates + (int64_t)group * 2 * width + width + column, gate2);
    for (int64_t row = first + threadIdx.y; row < last; row += 8) {
      int64_t at = row * width + column;
      load<V>(a + at, v);
      load<V>(m + at, w);
      load<V>(grad + at, g);
      for (int j = 0; j < V; j++) {
        sums[0][j] += g[j] * v[j], sums[1][j] += g[j] * w[j];
        v[j] = g[j] * gate1[j], w[j] = g[j] * gate2[j];
      }
      store<V>(da + at, v);
      store<V>(dm + at, w);
    }
  }
  chunk_sums<V, 2>(sums, partial, column, width);
}

// Turns the pairs (i, i + half) of queries and keys in place, V neighbouring pairs a thread; qkv (tokens of all examples, heads, 3,
// channels).
template <int V, class T>
__device__ void rotary(T *qkv, const float *cos, const float *sin, uint32_t threads, int tokens, int start, int heads, int channels,
                       int half, float direction) {
  uint32_t n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= threads) return;
  // `part`: the queries or keys of one head at one token.
  uint32_t pieces = half / V, part = n / pieces, i = n % pieces * V, token = part / (2 * heads);
  T *x = qkv + ((int64_t)(part / 2) * 3 + part % 2) * channels + i;
  int table = (start + token % tokens) * half + i;
  float a[V], b[V], c[V], s[V];
  load<V>(x, a), load<V>(x + half, b), load<V>(cos + table, c), load<V>(sin + table, s);
#pragma unroll
  for (int j = 0; j < V; j++) {
    float turned = a[j] * c[j] - direction * s[j] * b[j];
    b[j] = b[j] * c[j] + direction * s[j] * a[j], a[j] = turned;
  }
  store<V>(x, a), store<V>(x + half, b);
}

// Takes qkv (B, T, H, 3, channels) apart into q, k, v (B, H, T, channels), queries and keys turned; n elements each.
template <class T>
__device__ void split_heads(const T *qkv, const float *cos, const float *sin, T *q, T *k, T *v, int64_t n, int tokens, int start,
                            int heads, int channels, int half) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int c = i % channels, token = i / channels % tokens, head = i / channels / tokens % heads;
  int64_t example = i / channels / tokens / heads;
  const T *from = qkv + ((example * tokens + token) * heads + head) * 3 * channels;
  float a = widen(from[c]), b = widen(from[channels + c]);
  if (c < 2 * half) {
    int other = c < half ? c + half : c - half, table = (start + token) * half + c % half;
    float x = cos[table], y = c < half ? -sin[table] : sin[table];
    a = a * x + widen(from[other]) * y;
    b = b * x + widen(from[channels + other]) * y;
  }
  put(q + i, a);
  put(k + i, b);
  v[i] = from[2 * channels + c];
}

// x_t = x0 + t·(x1 − x0) and the difference, with `each` elements of an example.
template <int V>
__device__ void straight_path(const float *x0, const float *x1, const float *t, float *x_t, float *displacement, int64_t n,
                              int64_t each) {
  int64_t i = AT(V);
  if (i >= n) return;
  float a[V], b[V], time = t[i / each];
  load<V>(x0 + i, a);
  load<V>(x1 + i, b);
  for (int j = 0; j < V; j++) b[j] -= a[j], a[j] += time * b[j];
  store<V>(x_t + i, a);
  store<V>(displacement + i, b);
}

// *different = 1 where some of n words differ.
ENTRY differ(const uint32_t *a, const uint32_t *b, uint32_t *different, int64_t n) {
  int64_t i = AT(1);
  if (i < n && a[i] != b[i]) *different = 1;
}

template <int V> __device__ void widen(const bf16 *x, float *y, int64_t n) {
  int64_t i = AT(V);
  if (i >= n) return;
  float v[V];
  load<V>(x + i, v);
  store<V>(y + i, v);
}

// partial[block]: this block's share of Σ (a − b)².
ENTRY square_error(const float *a, const float *b, float *partial, int64_t n) {
  float sum = 0;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    float d = a[i] - b[i];
    sum += d * d;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// out = factor·Σ partial, by one block.
ENTRY square_error_sum(const float *partial, float *out, int count, float factor) {
  float sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *out = sum * factor;
}

// d = factor·grad·(a − b).
ENTRY square_error_backward(const float *a, const float *b, const float *grad, float *d, int64_t n, float factor) {
  int64_t i = AT(1);
  if (i < n) d[i] = factor * *grad * (a[i] - b[i]);
}

#define UNARY(name, V, T)                                                                                              \
  ENTRY activation_##name(const T *x, T *y, int64_t n, int kind) { activation<V>(x, y, n, kind); }                     \
  ENTRY activation_backward_##name(const T *x, const T *grad, T *dx, int64_t n, int kind) {                            \
    activation_backward<V>(x, grad, dx, n, kind);                                                                      \
  }                                                                                                                    \
  ENTRY residual_##name(const T *x, const T *a, const T *m, T *y, int64_t n) { residual<V>(x, a, m, y, n); }

UNARY(f32_v1, 1, float)
UNARY(f32_v4, 4, float)
UNARY(bf16_v1, 1, bf16)
UNARY(bf16_v8, 8, bf16)

#define GATED(name, V, T, Y)                                                                                           \
  ENTRY gated_sum_##name(const T *a, const T *m, const Y *gates, Y *y, int64_t n, int width, int64_t group) {          \
    gated_sum<V>(a, m, gates, y, n, width, group);                                                                     \
  }                                                                                                                    \
  ENTRY gated_sum_backward_##name(const T *a, const T *m, const Y *gates, const Y *grad, T *da, T *dm, float *partial, \
                                  int width, int group_rows, int chunk_rows, int chunks) {                             \
    gated_sum_backward<V>(a, m, gates, grad, da, dm, partial, width, group_rows, chunk_rows, chunks);                  \
  }

GATED(f32_v1, 1, float, float)
GATED(f32_v4, 4, float, float)
GATED(bf16_v1, 1, bf16, bf16)
GATED(bf16_v4, 4, bf16, bf16)
GATED(mixed_v1, 1, bf16, float)
GATED(mixed_v4, 4, bf16, float)

#define ROTARY(name, V, T)                                                                                             \
  ENTRY rotary_##name(T *qkv, const float *cos, const float *sin, uint32_t threads, int tokens, int start, int heads,  \
                      int channels, int half, float direction) {                                                       \
    rotary<V>(qkv, cos, sin, threads, tokens, start, heads, channels, half, direction);                                \
  }

ROTARY(f32_v1, 1, float)
ROTARY(f32_v4, 4, float)
ROTARY(f32_v8, 8, float)
ROTARY(bf16_v1, 1, bf16)
ROTARY(bf16_v4, 4, bf16)
ROTARY(bf16_v8, 8, bf16)

#define SPLIT(name, T)                                                                                                 \
  ENTRY split_heads_##name(const T *qkv, const float *cos, const float *sin, T *q, T *k, T *v, int64_t n, int tokens,  \
                           int start, int heads, int channels, int half) {                                             \
    split_heads(qkv, cos, sin, q, k, v, n, tokens, start, heads, channels, half);                                      \
  }

SPLIT(f32, float)
SPLIT(bf16, bf16)

#define PATH(V)                                                                                                        \
  ENTRY straight_path_v##V(const float *x0, const float *x1, const float *t, float *x_t, float *displacement,          \
                           int64_t n, int64_t each) {                                                                  \
    straight_path<V>(x0, x1, t, x_t, displacement, n, each);                                                           \
  }

PATH(1)
PATH(4)

#define WIDEN(V)                                                                                                       \
  ENTRY widen_v##V(const bf16 *x, float *y, int64_t n) { widen<V>(x, y, n); }

WIDEN(1)
WIDEN(8)
