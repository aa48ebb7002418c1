// Σ over the channels of grad⊙out, which the backward of attention subtracts from the slopes of the weights.
#include "common.cuh"

// grad and out (B, T, H, c); inner (B, H, T). One warp for each of the `rows` = B·T·H.
template <class T> __device__ void inner_product(const T *grad, const T *out, float *inner, int64_t rows, int tokens, int heads, int c) {
  int64_t row = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  float sum = 0;
  for (int i = threadIdx.x % 32; i < c; i += 32) sum += widen(grad[row * c + i]) * widen(out[row * c + i]);
  sum = warp_sum(sum);
  int64_t head = row % heads, token = row / heads;
  if (threadIdx.x % 32 == 0) inner[((token / tokens) * heads + head) * tokens + token % tokens] = sum;
}

ENTRY attention_inner_f32(const float *grad, const float *out, float *inner, int64_t rows, int tokens, int heads, int c) {
  inner_product(grad, out, inner, rows, tokens, heads, c);
}
ENTRY attention_inner_bf16(const bf16 *grad, const bf16 *out, float *inner, int64_t rows, int tokens, int heads, int c) {
  inner_product(grad, out, inner, rows, tokens, heads, c);
}
