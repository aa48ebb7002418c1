// Forward of causal attention for heads of 64 channels in bf16 on Hopper cards.
//
// A block of three multiplying warpgroups owns 192 queries of one head, each warpgroup 64 of them; keys and values stream by, 64 a
// step. While the tensor cores multiply the weights of one step with its values and make the scores of the next, the other
// warpgroups take exponentials. Layouts and results are those of attention.cu. After FlashAttention-3 (Shah and others, arXiv
// 2407.08608).
#include "hopper.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr int GROUPS = 3, STAGES = 4, STEP_BYTES = 2 * TILE_BYTES;
typedef Ring<STAGES, STEP_BYTES, GROUPS> Steps;

// Keys and values of all steps, and before them the queries, by one thread.
__device__ void fetch(const CUtensorMap *qkv, Steps steps, uint32_t q, int row0, int head, int example, int count) {
  barrier_expect(steps.own(), GROUPS * TILE_BYTES);
  for (int i = 0; i < GROUPS; i++) copy_tile(q + i * TILE_BYTES, qkv, row0 + i * TILE, 3 * head, example, steps.own());
  for (int step = 0; step < count; step++) {
    steps.wait_empty(step);
    barrier_expect(steps.full(step), STEP_BYTES);
    copy_tile(steps.data(step), qkv, step * TILE, 3 * head + 1, example, steps.full(step));
    copy_tile(steps.data(step) + TILE_BYTES, qkv, step * TILE, 3 * head + 2, example, steps.full(step));
  }
}

// This thread's part of 64 queries: rows `row` and `row + 8`.
struct Queries {
  float o[32], s[32], most[2], sum[2], keep[2];
  uint32_t weights[4][4];

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int i = 0; i < 32; i++) o[i] = 0;
    most[0] = most[1] = -1e30f, sum[0] = sum[1] = 0;
  }
  __device__ __forceinline__ void scores(uint32_t q, uint32_t k) {
#pragma unroll
    for (int j = 0; j < 4; j++) multiply(s, describe(q + 32 * j), describe(k + 32 * j), j);
    commit();
  }
  __device__ __forceinline__ void add_values(uint32_t v) {
#pragma unroll
    for (int j = 0; j < 4; j++) mix(o, weights[j], describe(v + 2048 * j));
    commit();
  }
  // Keys from `first` on lie behind the row's own.
  __device__ __forceinline__ void mask(int row, int first) {
#pragma unroll
    for (int i = 0; i < 32; i++)
      if (first + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2 > row + i / 2 % 2 * 8) s[i] = -1e30f;
  }
  // From scores to weights relative to the largest score so far; `keep` is what earlier sums keep of themselves.
  __device__ __forceinline__ void exponentials(float scale) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float top = most[half], total = 0;
#pragma unroll
      for (int i = 0; i < 8; i++) top = fmaxf(top, fmaxf(s[4 * i + 2 * half], s[4 * i + 2 * half + 1]));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      keep[half] = power((most[half] - top) * scale);
      most[half] = top;
      float least = top * scale;
#pragma unroll
      for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          float &x = s[4 * i + 2 * half + j];
          x = power(x * scale - least);
          total += x;
        }
      sum[half] = sum[half] * keep[half] + total;
    }
  }
  __device__ __forceinline__ void rescale() {
#pragma unroll
    for (int i = 0; i < 32; i++) o[i] *= keep[i / 2 % 2];
  }
};

__device__ __forceinline__ void attend(Steps steps, uint32_t q, int first_row, bf16 *out, float *norm, int tokens, int heads, int count,
                                       float scale) {
  int lane = threadIdx.x % 32, row = first_row + threadIdx.x / 32 % 4 * 16 + lane / 4;
  int last = min(first_row / TILE, count - 1);
  Queries mine;
  mine.begin();
  barrier_wait(steps.own(), 0);
  steps.wait_full(0);
  fence();
  mine.scores(q, steps.data(0));
  wait<0>(mine.s);
  if (last == 0) mine.mask(row, 0);
  mine.exponentials(scale);
  pack_operand(mine.weights, mine.s);
  for (int step = 1; step <= last; step++) {
    steps.wait_full(step);
    fence();
    mine.scores(q, steps.data(step));
    mine.add_values(steps.data(step - 1) + TILE_BYTES);
    wait<1>(mine.s);
    if (step == last) mine.mask(row, step * TILE);
    mine.exponentials(scale);
    wait<0>(mine.o);
    hold(mine.weights);
    steps.release(step - 1);
    mine.rescale();
    pack_operand(mine.weights, mine.s);
  }
  fence();
  mine.add_values(steps.data(last) + TILE_BYTES);
  wait<0>(mine.o);
  // Steps that only the other warpgroups look at are given back as well.
  steps.release(last);
  for (int step = last + 1; step < count; step++) steps.wait_full(step), steps.release(step);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float total = mine.sum[half];
    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    int at = row + half * 8;
    if (at < tokens && lane % 4 == 0) norm[at] = mine.most[half] * scale + log2f(total);
    mine.keep[half] = 1.f / total;
  }
  mine.rescale();
  write_tile(mine.o, out, first_row, tokens, heads * CHANNELS, 1.f);
}
#endif

ENTRY __launch_bounds__(512, 1)
    attention_hopper(const __grid_constant__ CUtensorMap qkv, bf16 *out, float *norm, int tokens, int heads, float scale) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  int group = __shfl_sync(~0u, threadIdx.x / 128, 0), pieces = (tokens + GROUPS * TILE - 1) / (GROUPS * TILE);
  Job job = find_job(pieces);
  int head = job.head % heads, example = job.head / heads;
  int row0 = (pieces - 1 - job.piece) * GROUPS * TILE, count = (min(row0 + GROUPS * TILE, tokens) + TILE - 1) / TILE;
  uint32_t q = first_tile();
  Steps steps{q + GROUPS * TILE_BYTES};
  steps.init(1);
  if (group == GROUPS) {
    give_registers<24>();
    if (threadIdx.x == GROUPS * 128) fetch(&qkv, steps, q, row0, head, example, count);
  } else {
    take_registers<160>();
    attend(steps, q + group * TILE_BYTES, row0 + group * TILE, out + ((int64_t)example * tokens * heads + head) * CHANNELS,
           norm + (int64_t)job.head * tokens, tokens, heads, count, scale);
  }
#endif
}
