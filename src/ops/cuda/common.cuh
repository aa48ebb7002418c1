// What the kernels share: element types, vectors of elements, and sums over warps.
#pragma once
#include <cuda_bf16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void put(float *p, float x) { *p = x; }
__device__ __forceinline__ void put(bf16 *p, float x) { *p = __float2bfloat16(x); }

__device__ __forceinline__ float2 unpack(uint32_t pair) { return __bfloat1622float2(*reinterpret_cast<__nv_bfloat162 *>(&pair)); }

__device__ __forceinline__ uint32_t pack(float lo, float hi) {
  __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
  return *reinterpret_cast<uint32_t *>(&v);
}

// V consecutive elements as floats; V is 8 or 4, or 1 where widths or addresses are odd.
template <int V> __device__ __forceinline__ void load(const float *p, float (&x)[V]) {
  if constexpr (V == 1) {
    x[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      float4 v = *reinterpret_cast<const float4 *>(p + i);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
  }
}

template <int V> __device__ __forceinline__ void load(const bf16 *p, float (&x)[V]) {
  if constexpr (V == 1) {
    x[0] = widen(*p);
  } else {
    alignas(16) uint32_t pairs[V / 2];
    if constexpr (V == 8)
      *reinterpret_cast<uint4 *>(pairs) = *reinterpret_cast<const uint4 *>(p);
    else
      *reinterpret_cast<uint2 *>(pairs) = *reinterpret_cast<const uint2 *>(p);
#pragma unroll
    for (int i = 0; i < V / 2; i++) {
      float2 pair = unpack(pairs[i]);
      x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
    }
  }
}

template <int V> __device__ __forceinline__ void store(float *p, const float (&x)[V]) {
  if constexpr (V == 1) {
    *p = x[0];
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4) *reinterpret_cast<float4 *>(p + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
  }
}

template <int V> __device__ __forceinline__ void store(bf16 *p, const float (&x)[V]) {
  if constexpr (V == 8)
    *reinterpret_cast<uint4 *>(p) = make_uint4(pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7]));
  else if constexpr (V == 4)
    *reinterpret_cast<uint2 *>(p) = make_uint2(pack(x[0], x[1]), pack(x[2], x[3]));
  else
    put(p, x[0]);
}

__device__ __forceinline__ float warp_sum(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, offset));
  return x;
}

// 2ˣ to about 2 units in the last place.
__device__ __forceinline__ float power(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Φ(x), the normal distribution, and bell = e^(−x²/2): equation 7.1.26 of Abramowitz and Stegun, off by at most 1e-7.
__device__ __forceinline__ float normal(float x, float &bell) {
  float t;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(t) : "f"(fmaf(0.3275911f * 0.70710678f, fabsf(x), 1.f)));
  bell = power(x * x * -0.72134752f);
  float series = fmaf(t, fmaf(t, fmaf(t, fmaf(t, 1.061405429f, -1.453152027f), 1.421413741f), -0.284496736f), 0.254829592f);
  float tail = 0.5f * bell * t * series;
  return x < 0.f ? tail : 1.f - tail;
}

// Sum over a block of up to 1024 threads; every thread receives it.
__device__ __forceinline__ float block_sum(float x) {
  __shared__ float lanes[32];
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) lanes[threadIdx.x / 32] = x;
  __syncthreads();
  return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? lanes[threadIdx.x % 32] : 0.f);
}

// N such sums at once.
template <int N> __device__ __forceinline__ void block_sums(float (&x)[N]) {
  __shared__ float lanes[N][32];
#pragma unroll
  for (int i = 0; i < N; i++) x[i] = warp_sum(x[i]);
  __syncthreads();
  if (threadIdx.x % 32 == 0)
#pragma unroll
    for (int i = 0; i < N; i++) lanes[i][threadIdx.x / 32] = x[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < N; i++) x[i] = warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? lanes[i][threadIdx.x % 32] : 0.f);
}

__device__ __forceinline__ float block_max(float x) {
  __shared__ float lanes[32];
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) lanes[threadIdx.x / 32] = x;
  __syncthreads();
  return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? lanes[threadIdx.x % 32] : -INFINITY);
}

// Mean of a row, and its mean and 1/deviation, by one warp.
template <int V, class T> __device__ __forceinline__ float row_mean(const T *x, int width) {
  float sum = 0, v[V];
  for (int i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
    load<V>(x + i, v);
    for (int j = 0; j < V; j++) sum += v[j];
  }
  return warp_sum(sum) / width;
}
template <int V, class T> __device__ __forceinline__ float2 row_moments(const T *x, int width, float eps) {
  float mean = row_mean<V>(x, width), square = 0, v[V];
  for (int i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
    load<V>(x + i, v);
    for (int j = 0; j < V; j++) square += (v[j] - mean) * (v[j] - mean);
  }
  return make_float2(mean, rsqrtf(warp_sum(square) / width + eps));
}

// Sums of P quantities over the 8 rows of threads, written to partial (P, width) of this chunk.
template <int V, int P> __device__ void chunk_sums(const float (&x)[P][V], float *partial, int column, int width) {
  __shared__ float sums[8][32 * V];
  for (int p = 0; p < P; p++) {
    __syncthreads();
    for (int j = 0; j < V; j++) sums[threadIdx.y][threadIdx.x * V + j] = x[p][j];
    __syncthreads();
    if (threadIdx.y == 0 && column < width)
      for (int j = 0; j < V; j++) {
        float sum = 0;
        for (int i = 0; i < 8; i++) sum += sums[i][threadIdx.x * V + j];
        partial[((int64_t)blockIdx.y * P + p) * width + column + j] = sum;
      }
  }
}

// Where this block of 32 × 8 threads stands: its columns, and the rows of its chunk.
#define CHUNK(V)                                                                                                            \
  int column = (blockIdx.x * 32 + threadIdx.x) * V, group = blockIdx.y / chunks;                                            \
  int64_t first = (int64_t)group * group_rows + blockIdx.y % chunks * chunk_rows;                                           \
  int64_t last = min(first + chunk_rows, (int64_t)(group + 1) * group_rows);

// Defines name_f32 and so on from a template: `KERNELS` in each file lists the combinations.
#define ENTRY extern "C" __global__ void
