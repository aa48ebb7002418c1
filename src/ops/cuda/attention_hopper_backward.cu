// Backward of causal attention for heads of 64 channels in bf16 on Hopper cards.
//
// One kernel gives the gradients of the queries and one those of keys and values, each in registers and in a fixed order, so that
// the same operands give the same gradients. A block's warpgroups own 64 rows each; the other side streams by, 64 rows a step. The
// scores of a step are made while the sums of the one before are under way. Weights and their slopes never leave the registers,
// where they are the left operands of those sums. Layouts are those of attention.cu.
#include "hopper.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr int QUERY_GROUPS = 3, KEY_GROUPS = 2, STAGES = 4, STEP_BYTES = 2 * TILE_BYTES;
typedef Ring<STAGES, STEP_BYTES, QUERY_GROUPS> KeySteps;
typedef Ring<STAGES, STEP_BYTES, KEY_GROUPS> QuerySteps;

// Row and column of a thread's i-th score in a tile.
__device__ __forceinline__ int score_row(int i) { return threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8; }
__device__ __forceinline__ int score_column(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }

// d = a · bᵀ for tiles in shared memory, or with a in registers.
__device__ __forceinline__ void product(float (&d)[32], uint32_t a, uint32_t b) {
#pragma unroll
  for (int j = 0; j < 4; j++) multiply(d, describe(a + 32 * j), describe(b + 32 * j), j);
}
__device__ __forceinline__ void product(float (&d)[32], const uint32_t (&a)[4][4], uint32_t b) {
#pragma unroll
  for (int j = 0; j < 4; j++) multiply(d, a[j], describe(b + 32 * j), j);
}
// d += a · b with a in registers.
__device__ __forceinline__ void add_product(float (&d)[32], const uint32_t (&a)[4][4], uint32_t b) {
#pragma unroll
  for (int j = 0; j < 4; j++) mix(d, a[j], describe(b + 2048 * j));
}
__device__ __forceinline__ void clear(float (&d)[32]) {
#pragma unroll
  for (int i = 0; i < 32; i++) d[i] = 0;
}

// --- Queries: keys and values stream by.

// What the queries' block keeps: their tiles, those of the slopes, and those of the result.
__device__ void fetch_keys(const CUtensorMap *qkv, const CUtensorMap *grad, const CUtensorMap *out, KeySteps steps, uint32_t own, int row0,
                           int head, int example, int count) {
  barrier_expect(steps.own(), 3 * QUERY_GROUPS * TILE_BYTES);
  for (int i = 0; i < QUERY_GROUPS; i++) {
    copy_tile(own + 3 * i * TILE_BYTES, qkv, row0 + i * TILE, 3 * head, example, steps.own());
    copy_tile(own + (3 * i + 1) * TILE_BYTES, grad, row0 + i * TILE, head, example, steps.own());
    copy_tile(own + (3 * i + 2) * TILE_BYTES, out, row0 + i * TILE, head, example, steps.own());
  }
  for (int step = 0; step < count; step++) {
    steps.wait_empty(step);
    barrier_expect(steps.full(step), STEP_BYTES);
    copy_tile(steps.data(step), qkv, step * TILE, 3 * head + 1, example, steps.full(step));
    copy_tile(steps.data(step) + TILE_BYTES, qkv, step * TILE, 3 * head + 2, example, steps.full(step));
  }
}

struct Queries {
  float dq[32], s[32], d[32], norm[2], inner[2];
  uint32_t slopes[4][4];

  // Σ grad⊙out of this thread's two rows.
  __device__ __forceinline__ void inner_products(uint32_t grad, uint32_t out) {
    uint32_t a[4][4], b[4][4];
    load_operand(a, grad);
    load_operand(b, out);
    inner[0] = inner[1] = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float2 x = unpack(a[i][j]), y = unpack(b[i][j]);
        inner[j % 2] += x.x * y.x + x.y * y.y;
      }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      inner[half] += __shfl_xor_sync(~0u, inner[half], 1);
      inner[half] += __shfl_xor_sync(~0u, inner[half], 2);
    }
  }
  __device__ __forceinline__ void exponentials(bool diagonal, float scale) {
#pragma unroll
    for (int i = 0; i < 32; i++) s[i] = power(s[i] * scale - norm[i / 2 % 2]);
    if (diagonal) {
#pragma unroll
      for (int i = 0; i < 32; i++)
        if (score_column(i) > score_row(i)) s[i] = 0;
    }
  }
  __device__ __forceinline__ void score_slopes() {
#pragma unroll
    for (int i = 0; i < 32; i++) d[i] = s[i] * (d[i] - inner[i / 2 % 2]);
    pack_operand(slopes, d);
  }
};

// `own`: this warpgroup's queries, slopes and results; norm and inner are those of the head.
__device__ __forceinline__ void query_gradients(KeySteps steps, uint32_t own, int my_step, const float *norm, float *inner, bf16 *dq,
                                                int tokens, int heads, int count, float scale, float factor) {
  uint32_t q = own, g = own + TILE_BYTES;
  Queries mine;
  clear(mine.dq);
  barrier_wait(steps.own(), 0);
  mine.inner_products(g, own + 2 * TILE_BYTES);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int row = my_step * TILE + score_row(2 * half);
    mine.norm[half] = row < tokens ? norm[row] : 0.f;
    if (row < tokens && threadIdx.x % 4 == 0) inner[row] = mine.inner[half];
  }
  steps.wait_full(0);
  fence();
  product(mine.s, q, steps.data(0));
  commit();
  product(mine.d, g, steps.data(0) + TILE_BYTES);
  commit();
  wait<1>(mine.s);
  mine.exponentials(my_step == 0, scale);
  wait<0>(mine.d);
  mine.score_slopes();
  int last = min(my_step, count - 1);
  for (int step = 1; step <= last; step++) {
    steps.wait_full(step);
    fence();
    product(mine.s, q, steps.data(step));
    commit();
    add_product(mine.dq, mine.slopes, steps.data(step - 1));
    product(mine.d, g, steps.data(step) + TILE_BYTES);
    commit();
    wait<1>(mine.s);
    mine.exponentials(step == my_step, scale);
    wait<0>(mine.d);
    hold(mine.dq), hold(mine.slopes);
    steps.release(step - 1);
    mine.score_slopes();
  }
  fence();
  add_product(mine.dq, mine.slopes, steps.data(last));
  commit();
  wait<0>(mine.dq);
  // Steps that only the other warpgroups look at are given back as well.
  steps.release(last);
  for (int step = last + 1; step < count; step++) steps.wait_full(step), steps.release(step);
  write_tile(mine.dq, dq, my_step * TILE, tokens, 3 * heads * CHANNELS, factor);
}

// --- Keys and values: queries and slopes stream by, with their norms and inner products.

// By one warp.
__device__ void fetch_queries(const CUtensorMap *qkv, const CUtensorMap *grad, QuerySteps steps, uint32_t own, uint32_t stats,
                              const float *norm, const float *inner, int first, int head, int example, int tokens, int count) {
  int lane = threadIdx.x % 32;
  if (lane == 0) {
    barrier_expect(steps.own(), 2 * KEY_GROUPS * TILE_BYTES);
    for (int i = 0; i < KEY_GROUPS; i++) {
      copy_tile(own + 2 * i * TILE_BYTES, qkv, (first + i) * TILE, 3 * head + 1, example, steps.own());
      copy_tile(own + (2 * i + 1) * TILE_BYTES, qkv, (first + i) * TILE, 3 * head + 2, example, steps.own());
    }
  }
  for (int step = 0; step < count; step++) {
    float x[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int row = (first + step) * TILE + i % 2 * 32 + lane;
      x[i] = row < tokens ? (i < 2 ? norm : inner)[row] : 0.f;
    }
    steps.wait_empty(step);
    if (lane == 0) {
      barrier_promise(steps.full(step), STEP_BYTES);
      copy_tile(steps.data(step), qkv, (first + step) * TILE, 3 * head, example, steps.full(step));
      copy_tile(steps.data(step) + TILE_BYTES, grad, (first + step) * TILE, head, example, steps.full(step));
    }
#pragma unroll
    for (int i = 0; i < 4; i++) put_shared(stats + step % STAGES * 512 + i * 128 + lane * 4, x[i]);
    barrier_arrive(steps.full(step));
  }
}

struct Keys {
  float dk[32], dv[32], s[32], d[32];
  uint32_t k[4][4], v[4][4], weights[4][4], slopes[4][4];

  // `stats`: the norms of the step's queries.
  __device__ __forceinline__ void exponentials(bool diagonal, uint32_t stats, float scale) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
      float2 norm = shared_pair(stats + n * 32 + threadIdx.x % 4 * 8);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float &x = s[4 * n + 2 * half], &y = s[4 * n + 2 * half + 1];
        x = power(x * scale - norm.x), y = power(y * scale - norm.y);
      }
    }
    if (diagonal) {
#pragma unroll
      for (int i = 0; i < 32; i++)
        if (score_row(i) > score_column(i)) s[i] = 0;
    }
  }
  // `stats`: the inner products of the step's queries.
  __device__ __forceinline__ void score_slopes(uint32_t stats) {
    pack_operand(weights, s);
#pragma unroll
    for (int n = 0; n < 8; n++) {
      float2 inner = shared_pair(stats + n * 32 + threadIdx.x % 4 * 8);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float &x = d[4 * n + 2 * half], &y = d[4 * n + 2 * half + 1];
        x = s[4 * n + 2 * half] * (x - inner.x), y = s[4 * n + 2 * half + 1] * (y - inner.y);
      }
    }
    pack_operand(slopes, d);
  }
};

// `own`: this warpgroup's keys and values, which meet their first query in step `group`; dk: where the keys' gradients go.
__device__ __forceinline__ void key_gradients(QuerySteps steps, uint32_t own, uint32_t stats, int group, int row0, bf16 *dk, int tokens,
                                              int heads, int count, float scale, float factor) {
  Keys mine;
  clear(mine.dk), clear(mine.dv);
  barrier_wait(steps.own(), 0);
  load_operand(mine.k, own);
  load_operand(mine.v, own + TILE_BYTES);
  for (int step = 0; step < min(group, count); step++) steps.wait_full(step), steps.release(step);
  if (group >= count) return;
  auto stats_of = [&](int step) { return stats + step % STAGES * 512; };
  steps.wait_full(group);
  fence();
  product(mine.s, mine.k, steps.data(group));
  commit();
  product(mine.d, mine.v, steps.data(group) + TILE_BYTES);
  commit();
  wait<1>(mine.s);
  mine.exponentials(true, stats_of(group), scale);
  wait<0>(mine.d);
  mine.score_slopes(stats_of(group) + 256);
  for (int step = group + 1; step < count; step++) {
    steps.wait_full(step);
    fence();
    product(mine.s, mine.k, steps.data(step));
    commit();
    add_product(mine.dv, mine.weights, steps.data(step - 1) + TILE_BYTES);
    add_product(mine.dk, mine.slopes, steps.data(step - 1));
    product(mine.d, mine.v, steps.data(step) + TILE_BYTES);
    commit();
    wait<1>(mine.s);
    mine.exponentials(false, stats_of(step), scale);
    wait<0>(mine.d);
    hold(mine.weights), hold(mine.slopes), hold(mine.dk), hold(mine.dv);
    steps.release(step - 1);
    mine.score_slopes(stats_of(step) + 256);
  }
  fence();
  add_product(mine.dv, mine.weights, steps.data(count - 1) + TILE_BYTES);
  add_product(mine.dk, mine.slopes, steps.data(count - 1));
  commit();
  wait<0>(mine.dk);
  hold(mine.dv);
  write_tile(mine.dk, dk, row0, tokens, 3 * heads * CHANNELS, factor);
  write_tile(mine.dv, dk + CHANNELS, row0, tokens, 3 * heads * CHANNELS, 1.f);
}
#endif

// d_qkv's queries, and inner (B, H, T): Σ grad⊙out.
ENTRY __launch_bounds__(512, 1)
    attention_hopper_queries(const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap grad,
                             const __grid_constant__ CUtensorMap out, const float *norm, float *inner, bf16 *d_qkv, int tokens, int heads,
                             float scale, float factor) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  int group = __shfl_sync(~0u, threadIdx.x / 128, 0), pieces = (tokens + QUERY_GROUPS * TILE - 1) / (QUERY_GROUPS * TILE);
  Job job = find_job(pieces);
  int head = job.head % heads, example = job.head / heads, first = (pieces - 1 - job.piece) * QUERY_GROUPS;
  int count = min(first + QUERY_GROUPS, (tokens + TILE - 1) / TILE);
  uint32_t own = first_tile();
  KeySteps steps{own + 3 * QUERY_GROUPS * TILE_BYTES};
  steps.init(1);
  if (group == QUERY_GROUPS) {
    give_registers<24>();
    if (threadIdx.x == QUERY_GROUPS * 128) fetch_keys(&qkv, &grad, &out, steps, own, first * TILE, head, example, count);
  } else {
    take_registers<160>();
    query_gradients(steps, own + 3 * group * TILE_BYTES, first + group, norm + (int64_t)job.head * tokens,
                    inner + (int64_t)job.head * tokens, d_qkv + ((int64_t)example * tokens * heads + head) * 3 * CHANNELS, tokens, heads,
                    count, scale, factor);
  }
#endif
}

// d_qkv's keys and values.
ENTRY __launch_bounds__(384, 1)
    attention_hopper_keys(const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap grad, const float *norm,
                          const float *inner, bf16 *d_qkv, int tokens, int heads, float scale, float factor) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  int group = __shfl_sync(~0u, threadIdx.x / 128, 0), pieces = (tokens + KEY_GROUPS * TILE - 1) / (KEY_GROUPS * TILE);
  Job job = find_job(pieces);
  int head = job.head % heads, example = job.head / heads, first = job.piece * KEY_GROUPS, count = (tokens + TILE - 1) / TILE - first;
  uint32_t own = first_tile();
  QuerySteps steps{own + 2 * KEY_GROUPS * TILE_BYTES};
  steps.init(32);
  if (group == KEY_GROUPS) {
    give_registers<24>();
    if (threadIdx.x / 32 == KEY_GROUPS * 4)
      fetch_queries(&qkv, &grad, steps, own, steps.end(), norm + (int64_t)job.head * tokens, inner + (int64_t)job.head * tokens, first, head,
                    example, tokens, count);
  } else {
    take_registers<240>();
    bf16 *dk = d_qkv + ((int64_t)example * tokens * heads + head) * 3 * CHANNELS + CHANNELS;
    key_gradients(steps, own + 2 * group * TILE_BYTES, steps.end(), group, (first + group) * TILE, dk, tokens, heads, count, scale, factor);
  }
#endif
}
