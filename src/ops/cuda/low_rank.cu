// What low-rank updates of a layer's maps need beside matrix products: the factors B (outputs, rank) with their columns
// scaled, and the sums over rows that are the scales' gradients.
#include "common.cuh"

// Where the factors B of the four maps begin in the joined vector, and their rows; the same layout as in low_rank.rs.
struct Ups {
  int64_t start[4];
  int rows[4];
};

// to = from⊙s with one scale for each column; where `sums` is given, sums[c] = Σ over rows of from⊙weights as well. Scales
// and sums (4, rank). Block (32, 32): 32 columns of one map, blockIdx.y says which.
ENTRY low_rank_scale(const float *from, const float *weights, const float *scales, float *to, float *sums, Ups ups, int rank) {
  int column = blockIdx.x * 32 + threadIdx.x, map = blockIdx.y;
  float sum = 0;
  if (column < rank) {
    float scale = scales[map * rank + column];
    for (int row = threadIdx.y; row < ups.rows[map]; row += 32) {
      int64_t at = ups.start[map] + (int64_t)row * rank + column;
      float x = from[at];
      if (sums) sum += x * weights[at];
      to[at] = x * scale;
    }
  }
  if (!sums) return;
  __shared__ float shared[32][33];
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= rank) return;
  for (int i = 1; i < 32; i++) sum += shared[i][threadIdx.x];
  sums[map * rank + column] = sum;
}
