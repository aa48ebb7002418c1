// The next token of one sequence: the products of every weight with one vector, three launches a layer.
//
// `input` holds the token's id and its position, so that the same launches, repeated by a graph, serve every token. A weight is
// read once, so what counts is that enough of them are on their way at any time: each thread asks for several vectors of 16
// bytes before it uses the first.
#include "activate.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;

// 8 elements of a weight as they lie in memory.
template <class T> struct Eight {
  uint4 raw[sizeof(T) / 2];

  __device__ __forceinline__ void fetch(const T *p) {
#pragma unroll
    for (int i = 0; i < (int)sizeof(T) / 2; i++) raw[i] = __ldg(reinterpret_cast<const uint4 *>(p) + i);
  }
};

__device__ __forceinline__ float dot(const Eight<bf16> &w, const float (&x)[8]) {
  const uint32_t pairs[4] = {w.raw[0].x, w.raw[0].y, w.raw[0].z, w.raw[0].w};
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float2 pair = unpack(pairs[i]);
    sum = fmaf(pair.x, x[2 * i], fmaf(pair.y, x[2 * i + 1], sum));
  }
  return sum;
}

__device__ __forceinline__ float dot(const Eight<float> &w, const float (&x)[8]) {
  const uint32_t bits[8] = {w.raw[0].x, w.raw[0].y, w.raw[0].z, w.raw[0].w, w.raw[1].x, w.raw[1].y, w.raw[1].z, w.raw[1].w};
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) sum = fmaf(__uint_as_float(bits[i]), x[i], sum);
  return sum;
}

template <class T> __device__ __forceinline__ float element(const T *x, int i) { return x ? widen(x[i]) : 0.f; }

// x = the token's row of the embedding (V, width).
template <class T> __device__ void embed(const uint32_t *input, const T *embedding, T *x, int width) {
  int v = blockIdx.x * blockDim.x + threadIdx.x;
  if (v >= width / 8) return;
  float row[8];
  load<8>(embedding + (int64_t)input[0] * width + 8 * v, row);
  store<8>(x + 8 * v, row);
}

// The layer norm of x in f32, by one block: vector v of 8 elements becomes to[v] and to[width/8 + v], so that lanes side by side
// read 16 bytes side by side.
template <class T>
__device__ __forceinline__ void normalise(const T *x, const T *scale, const T *shift, float4 *to, int width, float eps) {
  float2 moments = row_moments<8>(x, width, eps);
  for (int v = threadIdx.x; v < width / 8; v += THREADS) {
    float y[8], factor[8], added[8];
    load<8>(x + 8 * v, y);
    load<8>(scale + 8 * v, factor);
    load<8>(shift + 8 * v, added);
#pragma unroll
    for (int j = 0; j < 8; j++) y[j] = (y[j] - moments.x) * moments.y * factor[j] + added[j];
    to[v] = make_float4(y[0], y[1], y[2], y[3]);
    to[width / 8 + v] = make_float4(y[4], y[5], y[6], y[7]);
  }
}

// Rows that a warp computes at a time, all from the same elements of x.
constexpr int ROWS = 2;

// A part of ROWS rows of a matrix: STEPS vectors for each lane of a warp.
template <class T> struct Strip {
  static constexpr int STEPS = 8 / sizeof(T);
  Eight<T> part[ROWS][STEPS];

  // Vectors from `first` on; rows behind the last are the last once more.
  __device__ __forceinline__ void fetch(const T *weight, int vectors, int row, int rows, int first) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const T *from = weight + (int64_t)min(row + r, rows - 1) * vectors * 8;
#pragma unroll
      for (int s = 0; s < STEPS; s++) {
        int v = first + 32 * s + threadIdx.x % 32;
        if (v < vectors) part[r][s].fetch(from + 8 * v);
      }
    }
  }

  // Adds their products with x, which lies as `normalise` left it.
  __device__ __forceinline__ void multiply(const float4 *x, int vectors, int first, float (&sums)[ROWS]) const {
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
      int v = first + 32 * s + threadIdx.x % 32;
      if (v >= vectors) continue;
      float4 a = x[v], b = x[vectors + v];
      const float both[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
      for (int r = 0; r < ROWS; r++) sums[r] += dot(part[r][s], both);
    }
  }
};

// finish(row, weight[row]·LN(x)) for the rows (rows, width) of the `group`-th of `groups` blocks, by one lane each.
template <class T, class Finish>
__device__ __forceinline__ void normed_product(const T *x, const T *scale, const T *shift, const T *weight, int width, int rows,
                                               int group, int groups, float eps, Finish finish) {
  extern __shared__ float4 normed[];
  int vectors = width / 8, row = (group * WARPS + threadIdx.x / 32) * ROWS, first = 0;
  Strip<T> strip;
  // The first weights are on their way while the norm is computed.
  strip.fetch(weight, vectors, row, rows, 0);
  normalise(x, scale, shift, normed, width, eps);
  __syncthreads();
  float sums[ROWS] = {};
  while (row < rows) {
    strip.multiply(normed, vectors, first, sums);
    first += 32 * Strip<T>::STEPS;
    if (first >= vectors) {
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        float sum = warp_sum(sums[r]);
        if (threadIdx.x % 32 == 0 && row + r < rows) finish(row + r, sum);
        sums[r] = 0;
      }
      row += groups * WARPS * ROWS;
      first = 0;
    }
    if (row < rows) strip.fetch(weight, vectors, row, rows, first);
  }
}

// packed (3·width) = W₁·LN₁(x) + b₁ by the first blocks, hidden (inner) = act(W₂·LN₂(x) + b₂) by the others.
template <class T>
__device__ __forceinline__ void project(const T *x, const T *scale1, const T *shift1, const T *weight1, const T *bias1, float *packed,
                                        const T *scale2, const T *shift2, const T *weight2, const T *bias2, T *hidden, int width,
                                        int inner, int first_blocks, float eps, int activation) {
  bool up = blockIdx.x >= first_blocks;
  int group = up ? blockIdx.x - first_blocks : blockIdx.x, groups = up ? gridDim.x - first_blocks : first_blocks;
  const T *bias = up ? bias2 : bias1;
  normed_product(x, up ? scale2 : scale1, up ? shift2 : shift1, up ? weight2 : weight1, width, up ? inner : 3 * width, group, groups,
                 eps, [=](int row, float y) {
                   y += element(bias, row);
                   if (up)
                     put(hidden + row, activate(y, activation));
                   else
                     packed[row] = y;
                 });
}

// Attention of the token over itself and those before: at most MOST channels a head, KEYS keys at a time for each group of lanes.
constexpr int ATTEND_THREADS = 512, ATTEND_WARPS = ATTEND_THREADS / 32, MOST = 256, KEYS = 4;
// Below every score.
constexpr float LOWEST = -1e30f;

// Block (head, part) attends over positions part·chunk onwards, at most `chunk` of them, and leaves
// partial[part][head][c] = Σ 2^(score − top)·value and moments[part][head] = (top, Σ 2^(score − top)); `scale` brings scores to
// base 2. The token's own key, turned, and its value join keys and values (heads, capacity, c). `lanes` of a warp, a power of 2,
// hold a key's channels: 8 each, side by side where V is 8 and otherwise `lanes` apart.
template <int V, class T>
__device__ void attend(const float *packed, const float *cos, const float *sin, T *keys, T *values, const uint32_t *input,
                       float *partial, float2 *moments, int capacity, int c, int half, int chunk, int lanes, float scale) {
  constexpr int PARTS = 8 / V;
  __shared__ float query[MOST], sums[ATTEND_WARPS][MOST], tops[ATTEND_WARPS], totals[ATTEND_WARPS];
  int head = blockIdx.x, position = input[1], begin = blockIdx.y * chunk, end = min(begin + chunk, position + 1), i = threadIdx.x;
  if (begin > position) return;
  packed += (int64_t)head * 3 * c, keys += (int64_t)head * capacity * c, values += (int64_t)head * capacity * c;
  if (i < c) {
    float q = packed[i], k = packed[c + i];
    if (i < 2 * half) {
      int other = i < half ? i + half : i - half, table = position * half + i % half;
      float x = cos[table], y = i < half ? -sin[table] : sin[table];
      q = q * x + packed[other] * y;
      k = k * x + packed[c + other] * y;
    }
    query[i] = q * scale;
    if (end == position + 1) {
      put(keys + (int64_t)position * c + i, k);
      put(values + (int64_t)position * c + i, packed[2 * c + i]);
    }
  }
  __syncthreads();

  // Each group of lanes goes through every groups-th key.
  int lane = i % lanes, group = i / lanes, groups = ATTEND_THREADS / lanes;
  float q[PARTS][V], sum[PARTS][V] = {}, top = LOWEST, total = 0;
#pragma unroll
  for (int p = 0; p < PARTS; p++)
#pragma unroll
    for (int j = 0; j < V; j++) {
      int channel = (p * lanes + lane) * V + j;
      q[p][j] = channel < c ? query[channel] : 0.f;
    }
  // The same number of rounds for all, since the lanes of a warp sum together; a key that is not there weighs nothing.
  for (int start = begin; start < end; start += groups * KEYS) {
    float k[KEYS][PARTS][V] = {}, v[KEYS][PARTS][V] = {}, score[KEYS], fresh = top;
#pragma unroll
    for (int u = 0; u < KEYS; u++) {
      int64_t at = (int64_t)min(start + u * groups + group, end - 1) * c;
#pragma unroll
      for (int p = 0; p < PARTS; p++) {
        int channel = (p * lanes + lane) * V;
        if (channel >= c) continue;
        load<V>(keys + at + channel, k[u][p]);
        load<V>(values + at + channel, v[u][p]);
      }
    }
#pragma unroll
    for (int u = 0; u < KEYS; u++) {
      float s = 0;
#pragma unroll
      for (int p = 0; p < PARTS; p++)
#pragma unroll
        for (int j = 0; j < V; j++) s = fmaf(q[p][j], k[u][p][j], s);
      for (int offset = lanes / 2; offset > 0; offset /= 2) s += __shfl_xor_sync(~0u, s, offset);
      score[u] = s;
      if (start + u * groups + group < end) fresh = fmaxf(fresh, s);
    }
    float shrink = exp2f(top - fresh);
    top = fresh, total *= shrink;
#pragma unroll
    for (int p = 0; p < PARTS; p++)
#pragma unroll
      for (int j = 0; j < V; j++) sum[p][j] *= shrink;
#pragma unroll
    for (int u = 0; u < KEYS; u++) {
      float weight = start + u * groups + group < end ? exp2f(score[u] - top) : 0.f;
      total += weight;
#pragma unroll
      for (int p = 0; p < PARTS; p++)
#pragma unroll
        for (int j = 0; j < V; j++) sum[p][j] = fmaf(weight, v[u][p][j], sum[p][j]);
    }
  }

  // The groups of a warp together, then the warps.
  for (int offset = lanes; offset < 32; offset *= 2) {
    float fresh = fmaxf(top, __shfl_xor_sync(~0u, top, offset)), shrink = exp2f(top - fresh);
    top = fresh, total *= shrink;
    total += __shfl_xor_sync(~0u, total, offset);
#pragma unroll
    for (int p = 0; p < PARTS; p++)
#pragma unroll
      for (int j = 0; j < V; j++) {
        sum[p][j] *= shrink;
        sum[p][j] += __shfl_xor_sync(~0u, sum[p][j], offset);
      }
  }
  int warp = i / 32;
  if (i % 32 == 0) tops[warp] = top, totals[warp] = total;
  if (i % 32 < lanes)
#pragma unroll
    for (int p = 0; p < PARTS; p++)
#pragma unroll
      for (int j = 0; j < V; j++) {
        int channel = (p * lanes + lane) * V + j;
        if (channel < c) sums[warp][channel] = sum[p][j];
      }
  __syncthreads();
  if (i >= c) return;
  float whole = 0, whole_total = 0;
  top = LOWEST;
#pragma unroll
  for (int w = 0; w < ATTEND_WARPS; w++) top = fmaxf(top, tops[w]);
#pragma unroll
  for (int w = 0; w < ATTEND_WARPS; w++) {
    float share = exp2f(tops[w] - top);
    whole_total = fmaf(share, totals[w], whole_total);
    whole = fmaf(share, sums[w][i], whole);
  }
  int place = blockIdx.y * gridDim.x + head;
  partial[(int64_t)place * c + i] = whole;
  if (i == 0) moments[place] = make_float2(top, whole_total);
}

// Attention's result at channels i to i + 7 of all heads: the `parts` that `attend` left put together. V of them are of one head.
template <int V>
__device__ __forceinline__ void attended(const float *partial, const float2 *moments, int parts, int width, int c, int i,
                                         float (&x)[8]) {
  int heads = width / c;
#pragma unroll
  for (int p = 0; p < 8; p += V) {
    int head = (i + p) / c;
    float top = LOWEST, total = 0, sum[V] = {}, part[V];
    for (int s = 0; s < parts; s++) top = fmaxf(top, moments[s * heads + head].x);
    for (int s = 0; s < parts; s++) {
      float2 moment = moments[s * heads + head];
      float share = exp2f(moment.x - top);
      load<V>(partial + (int64_t)s * width + i + p, part);
      total = fmaf(share, moment.y, total);
#pragma unroll
      for (int j = 0; j < V; j++) sum[j] = fmaf(share, part[j], sum[j]);
    }
#pragma unroll
    for (int j = 0; j < V; j++) x[p + j] = sum[j] / total;
  }
}

// Rows that a block computes at a time, its threads side by side along them.
constexpr int OUT_ROWS = 4;

// x += W₁·attended + b₁ + W₂·hidden + b₂ for OUT_ROWS elements of x, which alone this block reads and writes.
template <int V, class T>
__device__ void add(T *x, const T *weight1, const T *bias1, const T *weight2, const T *bias2, const float *partial,
                    const float2 *moments, const T *hidden, const uint32_t *input, int width, int inner, int c, int chunk) {
  constexpr int STEPS = 4 / sizeof(T);
  int row = blockIdx.x * OUT_ROWS, front = width / 8, back = inner / 8, parts = (int)input[1] / chunk + 1;
  float sums[OUT_ROWS] = {};
  for (int first = threadIdx.x; first < front + back; first += THREADS * STEPS) {
    Eight<T> part[STEPS][OUT_ROWS];
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
      int v = first + s * THREADS;
      if (v >= front + back) continue;
#pragma unroll
      for (int r = 0; r < OUT_ROWS; r++)
        part[s][r].fetch(v < front ? weight1 + (int64_t)(row + r) * width + 8 * v
                                   : weight2 + (int64_t)(row + r) * inner + 8 * (v - front));
    }
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
      int v = first + s * THREADS;
      if (v >= front + back) continue;
      float factor[8];
      if (v < front)
        attended<V>(partial, moments, parts, width, c, 8 * v, factor);
      else
        load<8>(hidden + 8 * (v - front), factor);
#pragma unroll
      for (int r = 0; r < OUT_ROWS; r++) sums[r] += dot(part[s][r], factor);
    }
  }
  block_sums(sums);
  if (threadIdx.x > 0) return;
  float y[OUT_ROWS];
  load<OUT_ROWS>(x + row, y);
#pragma unroll
  for (int r = 0; r < OUT_ROWS; r++) y[r] += sums[r] + element(bias1, row + r) + element(bias2, row + r);
  store<OUT_ROWS>(x + row, y);
}

#define KERNELS(name, T)                                                                                                       \
  ENTRY decode_embed_##name(const uint32_t *input, const T *embedding, T *x, int width) { embed(input, embedding, x, width); } \
  ENTRY __launch_bounds__(THREADS, 4)                                                                                          \
      decode_project_##name(const T *x, const T *scale1, const T *shift1, const T *weight1, const T *bias1, float *packed,     \
                            const T *scale2, const T *shift2, const T *weight2, const T *bias2, T *hidden, int width,          \
                            int inner, int first_blocks, float eps, int activation) {                                          \
    project(x, scale1, shift1, weight1, bias1, packed, scale2, shift2, weight2, bias2, hidden, width, inner, first_blocks,     \
            eps, activation);                                                                                                  \
  }                                                                                                                            \
  ENTRY __launch_bounds__(THREADS, 4)                                                                                          \
      decode_head_##name(const T *x, const T *scale, const T *shift, const T *weight, float *logits, int width,                \
                         int vocabulary, float eps) {                                                                          \
    normed_product(x, scale, shift, weight, width, vocabulary, blockIdx.x, gridDim.x, eps,                                     \
                   [=](int row, float y) { logits[row] = y; });                                                                \
  }

#define HEADS(name, T, V)                                                                                                      \
  ENTRY __launch_bounds__(ATTEND_THREADS)                                                                                      \
      decode_attend_##name##_v##V(const float *packed, const float *cos, const float *sin, T *keys, T *values,                 \
                                  const uint32_t *input, float *partial, float2 *moments, int capacity, int c, int half,       \
                                  int chunk, int lanes, float scale) {                                                         \
    attend<V>(packed, cos, sin, keys, values, input, partial, moments, capacity, c, half, chunk, lanes, scale);                \
  }                                                                                                                            \
  ENTRY __launch_bounds__(THREADS)                                                                                             \
      decode_add_##name##_v##V(T *x, const T *weight1, const T *bias1, const T *weight2, const T *bias2,                       \
                               const float *partial, const float2 *moments, const T *hidden, const uint32_t *input,            \
                               int width, int inner, int c, int chunk) {                                                       \
    add<V>(x, weight1, bias1, weight2, bias2, partial, moments, hidden, input, width, inner, c, chunk);                        \
  }

KERNELS(f32, float)
KERNELS(bf16, bf16)
HEADS(f32, float, 8)
HEADS(f32, float, 1)
HEADS(bf16, bf16, 8)
HEADS(bf16, bf16, 1)
