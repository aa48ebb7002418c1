// Causal attention in bf16 on the tensor cores, forward and backward, never holding T × T scores.
//
// A block of 4 warps owns 64·M rows of one head, each warp 16·M of them, and streams tiles of 64 rows of the other side
// through shared memory, two tiles in flight. Queries and keys are rotated already. qkv is (B, T, H, 3, c); C is c rounded
// up to an instantiated size, and the channels between are zero. After FlashAttention-2 (Dao, arXiv 2307.08691).
#include "common.cuh"

constexpr int TILE = 64, WARPS = 4, THREADS = 32 * WARPS;

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void copy16(void *to, const void *from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0));
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;\n"); }
template <int N> __device__ __forceinline__ void wait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(N)); }

__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], const bf16 *p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)));
}
__device__ __forceinline__ void ldmatrix_transposed(uint32_t (&r)[4], const bf16 *p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)));
}
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Rows in shared memory are 16 bytes longer than they need be, so that ldmatrix meets no bank twice.
template <int C> constexpr int PITCH = C + 8;

// Copies `rows` rows of c channels, `stride` apart, into a tile; rows from `valid` on and channels from c on become zero.
template <int C> __device__ void load_tile(bf16 *tile, const bf16 *from, int rows, int valid, int64_t stride, int c, bool wide) {
  if (wide) {
    for (int i = threadIdx.x; i < rows * (C / 8); i += THREADS) {
      int row = i / (C / 8), channel = i % (C / 8) * 8;
      bool inside = row < valid && channel < c;
      copy16(tile + row * PITCH<C> + channel, inside ? from + row * stride + channel : from, inside);
    }
  } else {
    for (int i = threadIdx.x; i < rows * C; i += THREADS) {
      int row = i / C, channel = i % C;
      bool inside = row < valid && channel < c;
      tile[row * PITCH<C> + channel] = inside ? from[row * stride + channel] : __float2bfloat16(0.f);
    }
  }
}

// d (16·M × 8·N) += a (16·M × C rows in shared memory) · bᵀ (rows of a tile).
template <int C, int M, int N> __device__ __forceinline__ void times_rows(float (&d)[M][N][4], const bf16 *a, const bf16 *b) {
  int lane = threadIdx.x % 32;
  a += (lane & 15) * PITCH<C> + (lane >> 4) * 8;
  b += ((lane & 7) + ((lane >> 4) << 3)) * PITCH<C> + ((lane >> 3) & 1) * 8;
#pragma unroll
  for (int k = 0; k < C / 16; k++) {
    uint32_t x[M][4], y[4];
#pragma unroll
    for (int m = 0; m < M; m++) ldmatrix(x[m], a + m * 16 * PITCH<C> + k * 16);
#pragma unroll
    for (int n = 0; n < N / 2; n++) {
      ldmatrix(y, b + n * 16 * PITCH<C> + k * 16);
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma(d[m][2 * n], x[m], y[0], y[1]);
        mma(d[m][2 * n + 1], x[m], y[2], y[3]);
      }
    }
  }
}

// d (16·M × C) += w (16·M × 8·N weights in registers) · b (8·N rows of a tile).
template <int C, int M, int N> __device__ __forceinline__ void times_columns(float (&d)[M][C / 8][4], float (&w)[M][N][4], const bf16 *b) {
  int lane = threadIdx.x % 32;
  b += (lane & 15) * PITCH<C> + (lane >> 4) * 8;
#pragma unroll
  for (int k = 0; k < N / 2; k++) {
    uint32_t x[M][4], y[4];
#pragma unroll
    for (int m = 0; m < M; m++) {
      x[m][0] = pack(w[m][2 * k][0], w[m][2 * k][1]), x[m][1] = pack(w[m][2 * k][2], w[m][2 * k][3]);
      x[m][2] = pack(w[m][2 * k + 1][0], w[m][2 * k + 1][1]), x[m][3] = pack(w[m][2 * k + 1][2], w[m][2 * k + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < C / 16; n++) {
      ldmatrix_transposed(y, b + k * 16 * PITCH<C> + n * 16);
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma(d[m][2 * n], x[m], y[0], y[1]);
        mma(d[m][2 * n + 1], x[m], y[2], y[3]);
      }
    }
  }
}

template <int M, int N> __device__ __forceinline__ void clear(float (&d)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) d[m][n][i] = 0;
}

// Writes a warp's rows, those below `valid`, scaled row by row.
template <int C, int M, class Scale>
__device__ void write_rows(float (&d)[M][C / 8][4], bf16 *to, int row0, int valid, int64_t stride, int c, Scale scale) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int row = row0 + m * 16 + half * 8 + lane / 4;
      if (row >= valid) continue;
      float factor = scale(m, half);
      bf16 *out = to + row * stride;
#pragma unroll
      for (int n = 0; n < C / 8; n++) {
        int channel = n * 8 + lane % 4 * 2;
        float x = d[m][n][2 * half] * factor, y = d[m][n][2 * half + 1] * factor;
        if (c % 2 == 0) {
          if (channel < c) *reinterpret_cast<uint32_t *>(out + channel) = pack(x, y);
        } else {
          if (channel < c) put(out + channel, x);
          if (channel + 1 < c) put(out + channel + 1, y);
        }
      }
    }
}

// out (B, T, H, c); norm (B, H, T): log₂ Σ 2^(score·log₂e).
template <int C, int M>
__device__ void forward(const bf16 *qkv, bf16 *out, float *norm, int tokens, int heads, int c, float scale, int wide) {
  extern __shared__ __align__(16) bf16 shared[];
  constexpr int ROWS = TILE * M, SIZE = TILE * PITCH<C>;
  bf16 *q = shared, *k = q + ROWS * PITCH<C>, *v = k + 2 * SIZE;
  int head = blockIdx.y % heads, example = blockIdx.y / heads, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int row0 = (gridDim.x - 1 - blockIdx.x) * ROWS, stride = 3 * heads * c;
  const bf16 *from = qkv + (int64_t)example * tokens * stride + head * 3 * c;
  auto fetch = [&](int tile) {
    int first = tile * TILE, stage = tile % 2 * SIZE;
    load_tile<C>(k + stage, from + c + (int64_t)first * stride, TILE, tokens - first, stride, c, wide);
    load_tile<C>(v + stage, from + 2 * c + (int64_t)first * stride, TILE, tokens - first, stride, c, wide);
    commit();
  };
  load_tile<C>(q, from + (int64_t)row0 * stride, ROWS, tokens - row0, stride, c, wide);
  fetch(0);
  int tiles = (min(row0 + ROWS, tokens) + TILE - 1) / TILE, mine = row0 + warp * 16 * M;
  float o[M][C / 8][4], most[M][2], sum[M][2];
  clear(o);
#pragma unroll
  for (int m = 0; m < M; m++) most[m][0] = most[m][1] = -1e30f, sum[m][0] = sum[m][1] = 0;
  for (int tile = 0; tile < tiles; tile++) {
    wait<0>();
    __syncthreads();
    if (tile + 1 < tiles) fetch(tile + 1);
    if (tile * TILE > mine + 16 * M - 1) continue;
    float s[M][8][4];
    clear(s);
    times_rows<C, M, 8>(s, q + warp * 16 * M * PITCH<C>, k + tile % 2 * SIZE);
    if (tile * TILE + TILE > mine + 1) {
#pragma unroll
      for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
          for (int i = 0; i < 4; i++)
            if (tile * TILE + n * 8 + lane % 4 * 2 + i % 2 > mine + m * 16 + i / 2 * 8 + lane / 4) s[m][n][i] = -1e30f;
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float top = most[m][half];
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
          for (int i = 0; i < 2; i++) top = fmaxf(top, s[m][n][2 * half + i]);
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        float keep = power((most[m][half] - top) * scale), least = top * scale, total = 0;
        most[m][half] = top;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
          for (int i = 0; i < 2; i++) {
            float &x = s[m][n][2 * half + i];
            x = power(x * scale - least);
            total += x;
          }
        sum[m][half] = sum[m][half] * keep + total;
#pragma unroll
        for (int n = 0; n < C / 8; n++) o[m][n][2 * half] *= keep, o[m][n][2 * half + 1] *= keep;
      }
    times_columns<C, M, 8>(o, s, v + tile % 2 * SIZE);
  }
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float &total = sum[m][half];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      int row = mine + m * 16 + half * 8 + lane / 4;
      if (lane % 4 == 0 && row < tokens) norm[(int64_t)blockIdx.y * tokens + row] = most[m][half] * scale + log2f(total);
    }
  bf16 *to = out + ((int64_t)example * tokens * heads + head) * c;
  write_rows<C, M>(o, to, mine, tokens, (int64_t)heads * c, c, [&](int m, int half) { return 1.f / sum[m][half]; });
}

// Gradients of keys and values of 64·M keys; queries and slopes stream by, N·8 of them at a time.
// grad (B, T, H, c); inner (B, H, T): Σ grad⊙out. The scores' factor is `scale` in base 2, that of the slopes 1/√c.
template <int C, int M, int N>
__device__ void backward_keys(const bf16 *qkv, const bf16 *grad, const float *norm, const float *inner, bf16 *d_qkv, int tokens,
                              int heads, int c, float scale, float factor, int wide) {
  extern __shared__ __align__(16) bf16 shared[];
  constexpr int ROWS = TILE * M, SIZE = TILE * PITCH<C>;
  bf16 *k = shared, *v = k + ROWS * PITCH<C>, *q = v + ROWS * PITCH<C>, *g = q + 2 * SIZE;
  float *norms = reinterpret_cast<float *>(g + 2 * SIZE), *inners = norms + 2 * TILE;
  int head = blockIdx.y % heads, example = blockIdx.y / heads, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int row0 = blockIdx.x * ROWS, stride = 3 * heads * c, out_stride = heads * c;
  const bf16 *from = qkv + (int64_t)example * tokens * stride + head * 3 * c;
  const bf16 *slopes = grad + ((int64_t)example * tokens * heads + head) * c;
  auto fetch = [&](int tile) {
    int first = tile * TILE, stage = tile % 2;
    load_tile<C>(q + stage * SIZE, from + (int64_t)first * stride, TILE, tokens - first, stride, c, wide);
    load_tile<C>(g + stage * SIZE, slopes + (int64_t)first * out_stride, TILE, tokens - first, out_stride, c, wide);
    commit();
    for (int i = threadIdx.x; i < TILE; i += THREADS) {
      bool inside = first + i < tokens;
      int64_t at = (int64_t)blockIdx.y * tokens + first + i;
      norms[stage * TILE + i] = inside ? norm[at] : 0.f;
      inners[stage * TILE + i] = inside ? inner[at] : 0.f;
    }
  };
  load_tile<C>(k, from + c + (int64_t)row0 * stride, ROWS, tokens - row0, stride, c, wide);
  load_tile<C>(v, from + 2 * c + (int64_t)row0 * stride, ROWS, tokens - row0, stride, c, wide);
  int tile0 = row0 / TILE, tiles = (tokens + TILE - 1) / TILE, mine = row0 + warp * 16 * M;
  fetch(tile0);
  float dk[M][C / 8][4], dv[M][C / 8][4];
  clear(dk);
  clear(dv);
  for (int tile = tile0; tile < tiles; tile++) {
    wait<0>();
    __syncthreads();
    if (tile + 1 < tiles) fetch(tile + 1);
    int stage = tile % 2;
#pragma unroll 1
    for (int part = 0; part < TILE; part += 8 * N) {
      if (tile * TILE + part + 8 * N - 1 < mine) continue;
      const bf16 *q_part = q + stage * SIZE + part * PITCH<C>, *g_part = g + stage * SIZE + part * PITCH<C>;
      float p[M][N][4], s[M][N][4];
      clear(p);
      times_rows<C, M, N>(p, k + warp * 16 * M * PITCH<C>, q_part);
#pragma unroll
      for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) {
            int at = part + n * 8 + lane % 4 * 2 + i % 2;
            p[m][n][i] = power(p[m][n][i] * scale - norms[stage * TILE + at]);
          }
      if (tile * TILE + part < mine + 16 * M || tile * TILE + part + 8 * N > tokens) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
          for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
              int key = mine + m * 16 + i / 2 * 8 + lane / 4, query = tile * TILE + part + n * 8 + lane % 4 * 2 + i % 2;
              if (key > query || query >= tokens) p[m][n][i] = 0;
            }
      }
      times_columns<C, M, N>(dv, p, g_part);
      clear(s);
      times_rows<C, M, N>(s, v + warp * 16 * M * PITCH<C>, g_part);
#pragma unroll
      for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) s[m][n][i] = p[m][n][i] * (s[m][n][i] - inners[stage * TILE + part + n * 8 + lane % 4 * 2 + i % 2]);
      times_columns<C, M, N>(dk, s, q_part);
    }
  }
  bf16 *to = d_qkv + (int64_t)example * tokens * stride + head * 3 * c;
  write_rows<C, M>(dk, to + c, mine, tokens, stride, c, [&](int, int) { return factor; });
  write_rows<C, M>(dv, to + 2 * c, mine, tokens, stride, c, [&](int, int) { return 1.f; });
}

// Gradients of 64·M queries; keys and values stream by.
template <int C, int M, int N>
__device__ void backward_queries(const bf16 *qkv, const bf16 *grad, const float *norm, const float *inner, bf16 *d_qkv, int tokens,
                                 int heads, int c, float scale, float factor, int wide) {
  extern __shared__ __align__(16) bf16 shared[];
  constexpr int ROWS = TILE * M, SIZE = TILE * PITCH<C>;
  bf16 *q = shared, *g = q + ROWS * PITCH<C>, *k = g + ROWS * PITCH<C>, *v = k + 2 * SIZE;
  int head = blockIdx.y % heads, example = blockIdx.y / heads, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int row0 = (gridDim.x - 1 - blockIdx.x) * ROWS, stride = 3 * heads * c, out_stride = heads * c;
  const bf16 *from = qkv + (int64_t)example * tokens * stride + head * 3 * c;
  const bf16 *slopes = grad + ((int64_t)example * tokens * heads + head) * c;
  auto fetch = [&](int tile) {
    int first = tile * TILE, stage = tile % 2 * SIZE;
    load_tile<C>(k + stage, from + c + (int64_t)first * stride, TILE, tokens - first, stride, c, wide);
    load_tile<C>(v + stage, from + 2 * c + (int64_t)first * stride, TILE, tokens - first, stride, c, wide);
    commit();
  };
  load_tile<C>(q, from + (int64_t)row0 * stride, ROWS, tokens - row0, stride, c, wide);
  load_tile<C>(g, slopes + (int64_t)row0 * out_stride, ROWS, tokens - row0, out_stride, c, wide);
  fetch(0);
  int tiles = (min(row0 + ROWS, tokens) + TILE - 1) / TILE, mine = row0 + warp * 16 * M;
  float dq[M][C / 8][4], norms[M][2], inners[M][2];
  clear(dq);
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int row = mine + m * 16 + half * 8 + lane / 4;
      int64_t at = (int64_t)blockIdx.y * tokens + row;
      norms[m][half] = row < tokens ? norm[at] : 0.f;
      inners[m][half] = row < tokens ? inner[at] : 0.f;
    }
  for (int tile = 0; tile < tiles; tile++) {
    wait<0>();
    __syncthreads();
    if (tile + 1 < tiles) fetch(tile + 1);
#pragma unroll 1
    for (int part = 0; part < TILE; part += 8 * N) {
      if (tile * TILE + part > mine + 16 * M - 1) continue;
      const bf16 *k_part = k + tile % 2 * SIZE + part * PITCH<C>, *v_part = v + tile % 2 * SIZE + part * PITCH<C>;
      float p[M][N][4], s[M][N][4];
      clear(p);
      clear(s);
      times_rows<C, M, N>(p, q + warp * 16 * M * PITCH<C>, k_part);
      times_rows<C, M, N>(s, g + warp * 16 * M * PITCH<C>, v_part);
#pragma unroll
      for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
          for (int i = 0; i < 4; i++)
            s[m][n][i] = power(p[m][n][i] * scale - norms[m][i / 2]) * (s[m][n][i] - inners[m][i / 2]);
      if (tile * TILE + part + 8 * N > mine) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
          for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
              if (tile * TILE + part + n * 8 + lane % 4 * 2 + i % 2 > mine + m * 16 + i / 2 * 8 + lane / 4) s[m][n][i] = 0;
      }
      times_columns<C, M, N>(dq, s, k_part);
    }
  }
  bf16 *to = d_qkv + (int64_t)example * tokens * stride + head * 3 * c;
  write_rows<C, M>(dq, to, mine, tokens, stride, c, [&](int, int) { return factor; });
}

#define HEAD(C, M, MK, NK, MQ, NQ)                                                                                          \
  ENTRY __launch_bounds__(THREADS) attention_bf16_##C(const bf16 *qkv, bf16 *out, float *norm, int tokens, int heads, int c, \
                                                      float scale, int wide) {                                              \
    forward<C, M>(qkv, out, norm, tokens, heads, c, scale, wide);                                                           \
  }                                                                                                                         \
  ENTRY __launch_bounds__(THREADS)                                                                                          \
      attention_keys_bf16_##C(const bf16 *qkv, const bf16 *grad, const float *norm, const float *inner, bf16 *d_qkv,        \
                              int tokens, int heads, int c, float scale, float factor, int wide) {                          \
    backward_keys<C, MK, NK>(qkv, grad, norm, inner, d_qkv, tokens, heads, c, scale, factor, wide);                         \
  }                                                                                                                         \
  ENTRY __launch_bounds__(THREADS)                                                                                          \
      attention_queries_bf16_##C(const bf16 *qkv, const bf16 *grad, const float *norm, const float *inner, bf16 *d_qkv,     \
                                 int tokens, int heads, int c, float scale, float factor, int wide) {                       \
    backward_queries<C, MQ, NQ>(qkv, grad, norm, inner, d_qkv, tokens, heads, c, scale, factor, wide);                      \
  }

HEAD(16, 2, 2, 4, 2, 4)
HEAD(32, 2, 2, 4, 2, 4)
HEAD(64, 2, 2, 4, 2, 4)
HEAD(96, 1, 1, 4, 1, 4)
HEAD(128, 1, 1, 4, 1, 4)
