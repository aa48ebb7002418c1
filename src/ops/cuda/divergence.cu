// Cross-entropy and Kullback–Leibler divergence from logits: one block a row, nothing of the vocabulary's size is written
// but the gradients.
#include "common.cuh"

// log Σ e^x of a row.
template <class T> __device__ float log_norm(const T *x, int width) {
  float top = -INFINITY, sum = 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) top = fmaxf(top, widen(x[i]));
  top = block_max(top);
  for (int i = threadIdx.x; i < width; i += blockDim.x) sum += expf(widen(x[i]) - top);
  return top + logf(block_sum(sum));
}

template <class T> __device__ float row_divergence(const T *p, const T *q, int width, float log_p, float log_q) {
  float sum = 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float a = widen(p[i]) - log_p;
    sum += expf(a) * (a - (widen(q[i]) - log_q));
  }
  return block_sum(sum);
}

// kl (rows), f32.
template <class T> __device__ void divergence(const T *p, const T *q, float *kl, int width) {
  p += (int64_t)blockIdx.x * width, q += (int64_t)blockIdx.x * width;
  float log_p = log_norm(p, width), log_q = log_norm(q, width);
  float sum = row_divergence(p, q, width, log_p, log_q);
  if (threadIdx.x == 0) kl[blockIdx.x] = sum;
}

// dp = p⊙(log p − log q − KL), dq = softmax(q) − softmax(p), each times the row's gradient; null where not wanted.
template <class T> __device__ void divergence_backward(const T *p, const T *q, const float *grad, T *dp, T *dq, int width) {
  int64_t at = (int64_t)blockIdx.x * width;
  p += at, q += at;
  float log_p = log_norm(p, width), log_q = log_norm(q, width), g = grad[blockIdx.x];
  float kl = dp ? row_divergence(p, q, width, log_p, log_q) : 0.f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float a = widen(p[i]) - log_p, b = widen(q[i]) - log_q;
    if (dp) put(dp + at + i, g * expf(a) * (a - b - kl));
    if (dq) put(dq + at + i, g * (expf(b) - expf(a)));
  }
}

template <class T> __device__ void cross_entropy(const T *x, const uint32_t *target, float *loss, int width) {
  x += (int64_t)blockIdx.x * width;
  float norm = log_norm(x, width);
  if (threadIdx.x == 0) loss[blockIdx.x] = norm - widen(x[target[blockIdx.x]]);
}

template <class T> __device__ void cross_entropy_backward(const T *x, const uint32_t *target, const float *grad, T *dx, int width) {
  int64_t at = (int64_t)blockIdx.x * width;
  x += at;
  float norm = log_norm(x, width), g = grad[blockIdx.x];
  for (int i = threadIdx.x; i < width; i += blockDim.x)
    put(dx + at + i, g * (expf(widen(x[i]) - norm) - (i == target[blockIdx.x] ? 1.f : 0.f)));
}

// The cross-entropy, and in place of the logits their slopes times `scale`: one pass that keeps the largest logit and rescales
// the sum as it goes, and one that writes.
template <int V, class T> __device__ void cross_entropy_slopes(T *x, const uint32_t *target, float *loss, float scale, int width) {
  x += (int64_t)blockIdx.x * width;
  float top = -INFINITY, sum = 0, v[V];
  for (int i = threadIdx.x * V; i < width; i += blockDim.x * V) {
    load<V>(x + i, v);
    float before = top;
    for (int j = 0; j < V; j++) top = fmaxf(top, v[j]);
    sum *= expf(before - top);
    for (int j = 0; j < V; j++) sum += expf(v[j] - top);
  }
  float all = block_max(top);
  float norm = all + logf(block_sum(top == -INFINITY ? 0.f : sum * expf(top - all)));
  int right = target[blockIdx.x];
  if (threadIdx.x == 0) loss[blockIdx.x] = norm - widen(x[right]);
  __syncthreads();
  for (int i = threadIdx.x * V; i < width; i += blockDim.x * V) {
    load<V>(x + i, v);
    for (int j = 0; j < V; j++) v[j] = scale * (expf(v[j] - norm) - (i + j == right ? 1.f : 0.f));
    store<V>(x + i, v);
  }
}

#define SLOPES(name, V, T)                                                                                                    \
  ENTRY cross_entropy_slopes_##name(T *x, const uint32_t *target, float *loss, float scale, int width) {                      \
    cross_entropy_slopes<V>(x, target, loss, scale, width);                                                                   \
  }

SLOPES(f32_v1, 1, float)
SLOPES(f32_v4, 4, float)
SLOPES(bf16_v1, 1, bf16)
SLOPES(bf16_v4, 4, bf16)

#define KERNELS(name, T)                                                                                                      \
  ENTRY divergence_##name(const T *p, const T *q, float *kl, int width) { divergence(p, q, kl, width); }                      \
  ENTRY divergence_backward_##name(const T *p, const T *q, const float *grad, T *dp, T *dq, int width) {                      \
    divergence_backward(p, q, grad, dp, dq, width);                                                                           \
  }                                                                                                                           \
  ENTRY cross_entropy_##name(const T *x, const uint32_t *target, float *loss, int width) {                                    \
    cross_entropy(x, target, loss, width);                                                                                    \
  }                                                                                                                           \
  ENTRY cross_entropy_backward_##name(const T *x, const uint32_t *target, const float *grad, T *dx, int width) {              \
    cross_entropy_backward(x, target, grad, dx, width);                                                                       \
  }

KERNELS(f32, float)
KERNELS(bf16, bf16)
