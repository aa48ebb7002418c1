// Forward of causal attention for heads of 64 channels in bf16, with the matrix instructions of Hopper cards.
//
// A block of two warpgroups owns 128 queries of one head, each warpgroup 64 of them; tiles of 64 keys and values stream by,
// two in flight. Layouts and results are those of attention.cu. Tiles lie in shared memory in rows of 128 bytes whose eight
// 16-byte pieces are permuted by the row (the 128-byte swizzle that wgmma reads).
#include "common.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr int TILE = 64, ROWS = 128, THREADS = 256, CHANNELS = 64, TILE_BYTES = TILE * 128;

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Copies rows of 64 channels, `stride` apart; those from `valid` on become zero.
__device__ __forceinline__ void load_rows(uint32_t to, const bf16 *from, int rows, int valid, int64_t stride) {
  for (int i = threadIdx.x; i < rows * 8; i += THREADS) {
    int row = i / 8, piece = i % 8;
    bool inside = row < valid;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to + row * 128 + ((piece ^ (row & 7)) << 4)),
                 "l"(inside ? from + row * stride + piece * 8 : from), "r"(inside ? 16 : 0));
  }
}

// A tile in shared memory as wgmma wants it described: 128-byte swizzle, 1024 bytes from 8 rows to the next.
__device__ __forceinline__ uint64_t describe(uint32_t address) {
  return (uint64_t)((address & 0x3FFFF) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

#define OUT32(d)                                                                                                           \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),  \
      "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), \
      "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), \
      "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define LIST32                                                                                                            \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"

// d (64 × 64) = or += a · bᵀ, both tiles in shared memory with 16 of their channels.
__device__ __forceinline__ void multiply(float (&d)[32], uint64_t a, uint64_t b, int add) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " LIST32 ", %32, %33, p, 1, 1, 0, 0;\n}\n"
               : OUT32(d)
               : "l"(a), "l"(b), "r"(add));
}

// d (64 × 64) += weights in registers (64 × 16) · b, 16 rows of a tile.
__device__ __forceinline__ void mix(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " LIST32 ", {%32,%33,%34,%35}, %36, 1, 1, 1, 1;\n"
               : OUT32(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void begin() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void finish() {
  asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n" ::: "memory");
}
#endif

ENTRY __launch_bounds__(256, 2)
    attention_hopper(const bf16 *qkv, bf16 *out, float *norm, int tokens, int heads, int c, float scale, int) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) char shared[];
  uint32_t q = (shared_address(shared) + 1023) & ~1023u, k = q + ROWS * 128, v = k + 2 * TILE_BYTES;
  int head = blockIdx.y % heads, example = blockIdx.y / heads, lane = threadIdx.x % 32, group = threadIdx.x / 128;
  int row0 = (gridDim.x - 1 - blockIdx.x) * ROWS, stride = 3 * heads * CHANNELS;
  const bf16 *from = qkv + (int64_t)example * tokens * stride + head * 3 * CHANNELS;
  auto fetch = [&](int tile) {
    int first = tile * TILE, stage = tile % 2 * TILE_BYTES;
    load_rows(k + stage, from + CHANNELS + (int64_t)first * stride, TILE, tokens - first, stride);
    load_rows(v + stage, from + 2 * CHANNELS + (int64_t)first * stride, TILE, tokens - first, stride);
    asm volatile("cp.async.commit_group;\n");
  };
  load_rows(q, from + (int64_t)row0 * stride, ROWS, tokens - row0, stride);
  fetch(0);
  // This thread's rows are `row` and `row + 8`.
  int row = row0 + threadIdx.x / 32 * 16 + lane / 4, first_row = row0 + group * 64;
  int tiles = (min(row0 + ROWS, tokens) + TILE - 1) / TILE;
  float o[32], s[32], most[2] = {-1e30f, -1e30f}, sum[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < 32; i++) o[i] = 0;
  for (int tile = 0; tile < tiles; tile++) {
    asm volatile("cp.async.wait_group 0;\nfence.proxy.async.shared::cta;\n" ::: "memory");
    __syncthreads();
    if (tile + 1 < tiles) fetch(tile + 1);
    if (tile * TILE > first_row + 63) continue;
    int stage = tile % 2 * TILE_BYTES;
    begin();
#pragma unroll
    for (int i = 0; i < 4; i++) multiply(s, describe(q + group * TILE_BYTES + 32 * i), describe(k + stage + 32 * i), i);
    finish();
    if (tile * TILE + TILE > first_row + 1) {
#pragma unroll
      for (int i = 0; i < 32; i++)
        if (tile * TILE + i / 4 * 8 + lane % 4 * 2 + i % 2 > row + i / 2 % 2 * 8) s[i] = -1e30f;
    }
    float keep[2];
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
#pragma unroll
    for (int i = 0; i < 32; i++) o[i] *= keep[i / 2 % 2];
    uint32_t weights[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) weights[i][j] = pack(s[8 * i + 2 * j], s[8 * i + 2 * j + 1]);
    begin();
#pragma unroll
    for (int i = 0; i < 4; i++) mix(o, weights[i], describe(v + stage + 16 * 128 * i));
    finish();
  }
  bf16 *to = out + ((int64_t)example * tokens * heads + head) * CHANNELS;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float total = sum[half];
    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    int mine = row + half * 8;
    if (mine >= tokens) continue;
    if (lane % 4 == 0) norm[(int64_t)blockIdx.y * tokens + mine] = most[half] * scale + log2f(total);
    total = 1.f / total;
#pragma unroll
    for (int i = 0; i < 8; i++)
      *reinterpret_cast<uint32_t *>(to + (int64_t)mine * heads * CHANNELS + i * 8 + lane % 4 * 2) =
          pack(o[4 * i + 2 * half] * total, o[4 * i + 2 * half + 1] * total);
  }
#endif
}
