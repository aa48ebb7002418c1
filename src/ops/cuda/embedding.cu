// The gradient of an embedding lookup.
#include "common.cuh"

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
