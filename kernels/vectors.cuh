// Packs of elements for 16-byte loads and stores, arithmetic in float, and sums
// over a warp or a block in a fixed order.

#ifndef HEDDLE_KERNELS_VECTORS_CUH_
#define HEDDLE_KERNELS_VECTORS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/fused_cuda.h"
#include "kernels/launch.cuh"

namespace heddle::kernels {

__device__ inline float ToFloat(float v) { return v; }
__device__ inline float ToFloat(__half v) { return __half2float(v); }
__device__ inline float ToFloat(__nv_bfloat16 v) { return __bfloat162float(v); }

template <typename T>
__device__ inline T FromFloat(float v);
template <>
__device__ inline float FromFloat<float>(float v) {
  return v;
}
template <>
__device__ inline __half FromFloat<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ inline __nv_bfloat16 FromFloat<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T v[V];
  __device__ float operator[](int i) const { return ToFloat(v[i]); }
  __device__ void Set(int i, float value) { v[i] = FromFloat<T>(value); }
};

template <typename T, int V>
__device__ inline Pack<T, V> LoadPack(const void* data, long long at) {
  return *reinterpret_cast<const Pack<T, V>*>(static_cast<const T*>(data) + at);
}
template <typename T, int V>
__device__ inline void StorePack(void* data, long long at,
                                 const Pack<T, V>& pack) {
  *reinterpret_cast<Pack<T, V>*>(static_cast<T*>(data) + at) = pack;
}

__device__ inline float WarpSum(float value) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, lane);
  return value;
}

// The sum over the threads of one row: those of a warp where blockDim.x is 32,
// else those of the whole block. Every thread gets it.
__device__ inline float RowSum(float value) {
  value = WarpSum(value);
  if (blockDim.x == 32) return value;
  __shared__ float warps[32];
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  __syncthreads();  // the last call's sums have been read
  if (lane == 0) warps[warp] = value;
  __syncthreads();
  return WarpSum(lane < blockDim.x / 32 ? warps[lane] : 0.0f);
}

// Where a row stands in each dimension of rows.
struct RowIndex {
  unsigned i0, i1, i2;
  __device__ RowIndex(const RowShape& shape, unsigned row) {
    const unsigned rest = row / shape.sizes[2];
    i2 = row - rest * shape.sizes[2];
    i0 = rest / shape.sizes[1];
    i1 = rest - i0 * shape.sizes[1];
  }
  __device__ long long Offset(const RowsOf& t) const {
    return i0 * t.strides[0] + i1 * t.strides[1] + i2 * t.strides[2];
  }
};

// Whether packs of `vector` elements lie on their own bytes everywhere.
inline bool TakesVectors(const RowsOf& t, unsigned vector) {
  return IsAligned(t.data) && t.strides[0] % vector == 0 &&
         t.strides[1] % vector == 0 && t.strides[2] % vector == 0;
}

// Calls f(T{}) with the type of a FusedElement.
template <typename F>
const char* WithElement(int element, F f) {
  switch (element) {
    case kFusedF16:
      return f(__half());
    case kFusedBF16:
      return f(__nv_bfloat16());
    default:
      return f(float());
  }
}

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_VECTORS_CUH_
