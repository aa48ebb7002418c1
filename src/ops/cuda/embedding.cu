// Embedding lookups and their gradient.
#include "common.cuh"

// y = W[ids], n elements in rows of `width`.
template <int V, class T> __device__ void embedding(const T *weight, const uint32_t *ids, T *y, int64_t n, int width) {
  int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
  if (i >= n) return;
  float v[V];
  load<V>(weight + (int64_t)ids[i / width] * width + i % width, v);
  store<V>(y + i, v);
}

#define EMBEDDING(name, V, T)                                                                                                    \
  ENTRY embedding_##name(const T *weight, const uint32_t *ids, T *y, int64_t n, int width) { embedding<V>(weight, ids, y, n, width); }

EMBEDDING(f32_v1, 1, float)
EMBEDDING(f32_v4, 4, float)
EMBEDDING(bf16_v1, 1, bf16)
EMBEDDING(bf16_v8, 8, bf16)

// out[ids[k]] = Σ grad[order[i]] for i from starts[k] to starts[k + 1]: a block's threads have columns of one id k.
template <class T>
__device__ void embedding_gradient(const T *grad, const uint32_t *order, const uint32_t *starts, const uint32_t *ids, float *out, int width) {
  int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= width) return;
  float sum = 0;
  for (uint32_t i = starts[blockIdx.x]; i < starts[blockIdx.x + 1]; i++) sum += widen(grad[(int64_t)order[i] * width + column]);
  out[(int64_t)ids[blockIdx.x] * width + column] = sum;
}

ENTRY embedding_gradient_f32(const float *grad, const uint32_t *order, const uint32_t *starts, const uint32_t *ids, float *out, int width) {
  embedding_gradient(grad, order, starts, ids, out, width);
}
ENTRY embedding_gradient_bf16(const bf16 *grad, const uint32_t *order, const uint32_t *starts, const uint32_t *ids, float *out, int width) {
  embedding_gradient(grad, order, starts, ids, out, width);
}
