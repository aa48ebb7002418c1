// What the kernels for Hopper cards share: its matrix instructions, its copy engine and the barriers between them.
//
// Tiles lie in shared memory in rows of 128 bytes whose eight 16-byte pieces are permuted by the row: the 128-byte swizzle
// that the copy engine writes and the matrix instructions read. A tile begins at a multiple of 1024 bytes.
#pragma once
#include "common.cuh"
#include <cuda.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Which of a head's `pieces` this block has: all pieces of 32 heads, whose tiles stay in the cache, come before those of
// the next 32, and among them the first come first.
struct Job {
  int piece, head;
};
__device__ __forceinline__ Job find_job(int pieces) {
  constexpr int TOGETHER = 32;
  int heads = gridDim.x / pieces, round = blockIdx.x / (TOGETHER * pieces), rest = blockIdx.x % (TOGETHER * pieces);
  int width = min(TOGETHER, heads - round * TOGETHER);
  return {rest / width, round * TOGETHER + rest % width};
}

constexpr int TILE = 64, CHANNELS = 64, TILE_BYTES = TILE * CHANNELS * 2;

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// The first multiple of 1024 in the shared memory of the launch.
__device__ __forceinline__ uint32_t first_tile() {
  extern __shared__ char shared[];
  return (shared_address(shared) + 1023) & ~1023u;
}

// --- Barriers in shared memory: they complete a phase after so many arrivals and, if asked for, so many bytes.

__device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}
// More bytes are on their way in this phase.
__device__ __forceinline__ void barrier_promise(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}
// Waits for the end of the phase of that parity.
__device__ __forceinline__ void barrier_wait(uint32_t barrier, int parity) {
  asm volatile("{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra again;\n}\n" ::"r"(barrier),
               "r"(parity)
               : "memory");
}

// Copies 64 rows from `token` on of one plane of a tensor (batch, tokens, planes, 64); rows past the end become zero.
__device__ __forceinline__ void copy_tile(uint32_t to, const CUtensorMap *map, int token, int plane, int example, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];\n" ::"r"(to),
               "l"(map), "r"(0), "r"(token), "r"(plane), "r"(example), "r"(barrier)
               : "memory");
}

// Steps of a stream through shared memory, STAGES of them at once, which a fetching warp fills and `GROUPS` warpgroups empty.
// Behind the steps' BYTES stand the barriers: one for what the block keeps, then those of full and of empty steps.
template <int STAGES, int BYTES, int GROUPS> struct Ring {
  uint32_t at;
  __device__ __forceinline__ uint32_t data(int step) const { return at + step % STAGES * BYTES; }
  __device__ __forceinline__ uint32_t own() const { return at + STAGES * BYTES; }
  __device__ __forceinline__ uint32_t full(int step) const { return own() + 8 + step % STAGES * 8; }
  __device__ __forceinline__ uint32_t empty(int step) const { return full(step) + STAGES * 8; }
  __device__ __forceinline__ uint32_t end() const { return own() + 8 + 2 * STAGES * 8; }
  // `arrivals` in the fetching warp make a step full.
  __device__ __forceinline__ void init(int arrivals) const {
    if (threadIdx.x == 0) {
      barrier_init(own(), 1);
      for (int i = 0; i < STAGES; i++) barrier_init(full(i), arrivals), barrier_init(empty(i), 4 * GROUPS);
      asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
    }
    __syncthreads();
  }
  __device__ __forceinline__ void wait_full(int step) const { barrier_wait(full(step), step / STAGES % 2); }
  __device__ __forceinline__ void wait_empty(int step) const { barrier_wait(empty(step), step / STAGES % 2 ^ 1); }
  // One warp needs it no more.
  __device__ __forceinline__ void release(int step) const {
    if (threadIdx.x % 32 == 0) barrier_arrive(empty(step));
  }
};

__device__ __forceinline__ void put_shared(uint32_t to, float x) { asm volatile("st.shared.f32 [%0], %1;\n" ::"r"(to), "f"(x) : "memory"); }
__device__ __forceinline__ float2 shared_pair(uint32_t from) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];\n" : "=f"(x.x), "=f"(x.y) : "r"(from));
  return x;
}

// --- Matrix products of a warpgroup.

// A tile as the instruction wants it described: 128-byte swizzle, 1024 bytes from 8 rows to the next.
__device__ __forceinline__ uint64_t describe(uint32_t address) {
  return (uint64_t)((address & 0x3FFFF) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

#define OUT8(d, i)                                                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define OUT32(d) OUT8(d, 0), OUT8(d, 8), OUT8(d, 16), OUT8(d, 24)
#define LIST32                                                                                                            \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"

// d (64 × 64) = or += a · bᵀ, both in shared memory, 16 channels of each.
__device__ __forceinline__ void multiply(float (&d)[32], uint64_t a, uint64_t b, int add) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " LIST32 ", %32, %33, p, 1, 1, 0, 0;\n}\n"
               : OUT32(d)
               : "l"(a), "l"(b), "r"(add));
}
// The same with a in registers.
__device__ __forceinline__ void multiply(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " LIST32 ", {%32,%33,%34,%35}, %36, p, 1, 1, 0;\n}\n"
               : OUT32(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// d (64 × 64) += weights in registers (64 × 16) · b, 16 rows of a tile.
__device__ __forceinline__ void mix(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " LIST32 ", {%32,%33,%34,%35}, %36, 1, 1, 1, 1;\n"
               : OUT32(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
// Waits until at most N groups of products are under way; d is then not read before.
template <int N> __device__ __forceinline__ void wait(float (&d)[32]) {
  asm volatile("wgmma.wait_group.sync.aligned %32;\n" : OUT32(d) : "n"(N) : "memory");
}
__device__ __forceinline__ void hold(float (&d)[32]) { asm volatile("" : OUT32(d)::"memory"); }
// Keeps an operand in its registers up to here, where products under way read it.
__device__ __forceinline__ void hold(uint32_t (&a)[4][4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
}

template <int N> __device__ __forceinline__ void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N)); }
template <int N> __device__ __forceinline__ void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N)); }

// The 64 × 64 tile as the left operand in registers: this thread's pieces of 16 channels each.
__device__ __forceinline__ void load_operand(uint32_t (&a)[4][4], uint32_t tile) {
  int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane % 16;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int piece = 2 * i + lane / 16;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(a[i][0]), "=r"(a[i][1]), "=r"(a[i][2]), "=r"(a[i][3])
                 : "r"(tile + row * 128 + ((piece ^ (row & 7)) << 4)));
  }
}

// Scores as the left operand of a product.
__device__ __forceinline__ void pack_operand(uint32_t (&to)[4][4], const float (&s)[32]) {
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) to[i][j] = pack(s[8 * i + 2 * j], s[8 * i + 2 * j + 1]);
}

// Writes this warpgroup's 64 × 64 result, scaled row by row.
__device__ __forceinline__ void write_tile(const float (&d)[32], bf16 *to, int first, int tokens, int64_t stride, float scale) {
  int lane = threadIdx.x % 32, row = first + threadIdx.x / 32 % 4 * 16 + lane / 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    if (row + 8 * half >= tokens) continue;
    bf16 *out = to + (row + 8 * half) * stride + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 8; i++) *reinterpret_cast<uint32_t *>(out + i * 8) = pack(d[4 * i + 2 * half] * scale, d[4 * i + 2 * half + 1] * scale);
  }
}
#endif
