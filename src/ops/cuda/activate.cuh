// The activations, for the kernels that apply them.
#pragma once
#include "common.cuh"

enum { GELU, GELU_TANH, RELU, SILU };

__device__ __forceinline__ float activate(float x, int kind) {
  float bell;
  switch (kind) {
  case GELU: return x * normal(x, bell);
  case GELU_TANH: return 0.5f * x * (1.f + tanhf(0.7978846f * (x + 0.044715f * x * x * x)));
  case RELU: return fmaxf(x, 0.f);
  default: return x / (1.f + __expf(-x));
  }
}
