// Attention of one new token over the keys and values of all tokens so far.
#include "common.cuh"

constexpr int THREADS = 256;

// q (B, H, c); keys and values (B, H, seen, c) with their own strides of examples and heads; out (B, H·c).
// One block a head; shared memory holds `seen` weights and THREADS sums.
template <class T>
__device__ void attend(const T *q, const T *k, const T *v, T *out, int seen, int heads, int c, int64_t k_example, int64_t k_head,
                       int64_t v_example, int64_t v_head, float scale) {
  extern __shared__ float shared[];
  float *weights = shared + THREADS;
  int head = blockIdx.x % heads, example = blockIdx.x / heads, lane = threadIdx.x % 32;
  q += (int64_t)blockIdx.x * c, k += example * k_example + head * k_head, v += example * v_example + head * v_head;
  float top = -INFINITY, total = 0;
  for (int key = threadIdx.x / 32; key < seen; key += THREADS / 32) {
    float sum = 0;
    for (int i = lane; i < c; i += 32) sum += widen(q[i]) * widen(k[(int64_t)key * c + i]);
    sum = warp_sum(sum) * scale;
    if (lane == 0) weights[key] = sum;
    top = fmaxf(top, sum);
  }
  top = block_max(top);
  for (int key = threadIdx.x; key < seen; key += THREADS) {
    float weight = exp2f(weights[key] - top);
    weights[key] = weight;
    total += weight;
  }
  total = block_sum(total);
  // Thread (group, channel) sums every THREADS/c-th value.
  int groups = THREADS / c, group = threadIdx.x / c, channel = threadIdx.x % c;
  float sum = 0;
  if (group < groups)
    for (int key = group; key < seen; key += groups) sum += weights[key] * widen(v[(int64_t)key * c + channel]);
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x < c) {
    for (int g = 1; g < groups; g++) sum += shared[g * c + threadIdx.x];
    put(out + (int64_t)blockIdx.x * c + threadIdx.x, sum / total);
  }
}

#define KERNEL(name, T)                                                                                                        \
  ENTRY attention_one_##name(const T *q, const T *k, const T *v, T *out, int seen, int heads, int c, int64_t k_example,        \
                             int64_t k_head, int64_t v_example, int64_t v_head, float scale) {                                 \
    attend(q, k, v, out, seen, heads, c, k_example, k_head, v_example, v_head, scale);                                         \
  }

KERNEL(f32, float)
KERNEL(bf16, bf16)
