// AdamW over many tensors at once, with clipping to a global norm that never leaves the device.
#include "common.cuh"

constexpr int TENSORS = 48;
// Rows of the table are passed by value, so that no copy to the device is needed.
struct Table {
  float *parameter[TENSORS], *gradient[TENSORS], *first[TENSORS], *second[TENSORS];
  int64_t length[TENSORS];
  int count;
};

// partial[blockIdx.x]: sum of squares of this block's share of every gradient.
ENTRY adamw_squares(const __grid_constant__ Table table, float *partial) {
  float sum = 0;
  for (int t = 0; t < table.count; t++)
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < table.length[t]; i += (int64_t)gridDim.x * blockDim.x) {
      float g = table.gradient[t][i];
      sum += g * g;
    }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// state: the norm of these gradients and of others, and the factor that clips to it; 0 if the norm is not finite, which
// skips the update.
ENTRY adamw_norm(const float *partial, float *state, int count, float others, float clip) {
  __shared__ double sums[256];
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += 256) sum += partial[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    float norm = (float)sqrt(sums[0] + others);
    state[0] = norm;
    state[1] = isfinite(norm) ? (norm > clip ? clip / norm : 1.f) : 0.f;
  }
}

ENTRY adamw_step(const __grid_constant__ Table table, const float *state, float beta1, float beta2, float keep, float rate,
                 float correction, float eps) {
  float factor = state[1];
  if (factor == 0.f) return;
  for (int t = 0; t < table.count; t++) {
    float *w = table.parameter[t], *m = table.first[t], *v = table.second[t];
    const float *gradient = table.gradient[t];
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < table.length[t]; i += (int64_t)gridDim.x * blockDim.x) {
      float g = gradient[i] * factor;
      float first = beta1 * m[i] + (1.f - beta1) * g, second = beta2 * v[i] + (1.f - beta2) * g * g;
      m[i] = first, v[i] = second;
      w[i] = keep * w[i] - rate * first / (sqrtf(second * correction) + eps);
    }
  }
}
