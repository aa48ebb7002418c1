// Sums over rows.
#include "common.cuh"

// Sum over a chunk of rows: partial (groups·chunks, width).
template <int V, class T>
__device__ void column_sums(const T *x, float *partial, int width, int group_rows, int chunk_rows, int chunks) {
  CHUNK(V)
  float sums[1][V] = {}, v[V];
  if (column < width)
    for (int64_t row = first + threadIdx.y; row < last; row += 8) {
      load<V>(x + row * width + column, v);
      for (int j = 0; j < V; j++) sums[0][j] += v[j];
    }
  chunk_sums<V, 1>(sums, partial, column, width);
}

ENTRY column_sums_f32_v1(const float *x, float *p, int w, int g, int c, int n) { column_sums<1>(x, p, w, g, c, n); }
ENTRY column_sums_f32_v4(const float *x, float *p, int w, int g, int c, int n) { column_sums<4>(x, p, w, g, c, n); }
ENTRY column_sums_bf16_v1(const bf16 *x, float *p, int w, int g, int c, int n) { column_sums<1>(x, p, w, g, c, n); }
ENTRY column_sums_bf16_v4(const bf16 *x, float *p, int w, int g, int c, int n) { column_sums<4>(x, p, w, g, c, n); }

// out[group][i] = Σ over the group's chunks of partial[chunk][i] for i < width, on top of what is there where `add` says so; rows
// lie their strides apart. Block (32, 8).
template <class T> __device__ void fold(const float *partial, T *out, int width, int chunks, int from_stride, int to_stride, int add) {
  __shared__ float sums[8][32];
  int i = blockIdx.x * 32 + threadIdx.x, group = blockIdx.y;
  float sum = 0;
  if (i < width)
    for (int c = threadIdx.y; c < chunks; c += 8) sum += partial[((int64_t)group * chunks + c) * from_stride + i];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || i >= width) return;
  for (int k = 1; k < 8; k++) sum += sums[k][threadIdx.x];
  T *to = out + (int64_t)group * to_stride + i;
  put(to, add ? sum + widen(*to) : sum);
}

ENTRY fold_f32(const float *p, float *out, int width, int chunks, int from, int to, int add) {
  fold(p, out, width, chunks, from, to, add);
}
ENTRY fold_bf16(const float *p, bf16 *out, int width, int chunks, int from, int to, int add) {
  fold(p, out, width, chunks, from, to, add);
}
