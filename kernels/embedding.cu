// Adds the rows of an embedding's gradient to another gradient of its weight.
// The first token of each id does the work of all its tokens, in their order,
// so no two blocks write one row and a run repeats its bits.

#include "kernels/vectors.cuh"

namespace heddle::kernels {
namespace {

constexpr int kThreads = 256;

// Block (token, part of the columns).
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    EmbeddingAddKernel(const __grid_constant__ EmbeddingAddDevice a) {
  const unsigned token = blockIdx.x, tokens = a.shape.rows;
  const long long id = a.indices[token];
  if (id == a.padding || id < 0 || id >= a.weights) return;
  bool earlier = false;
  for (unsigned t = threadIdx.x; t < token; t += kThreads)
    earlier |= a.indices[t] == id;
  if (__syncthreads_or(earlier)) return;
  const unsigned c = (blockIdx.y * kThreads + threadIdx.x) * V;
  const bool mine = c < a.shape.columns;
  float sum[V] = {};
  __shared__ unsigned masks[kThreads / 32];
  for (unsigned begin = token; begin < tokens; begin += kThreads) {
    const unsigned t = begin + threadIdx.x;
    const unsigned mask =
        __ballot_sync(0xffffffffu, t < tokens && a.indices[t] == id);
    __syncthreads();  // the last masks have been read
    if (threadIdx.x % 32 == 0) masks[threadIdx.x / 32] = mask;
    __syncthreads();
    for (unsigned warp = 0; warp < kThreads / 32; ++warp) {
      for (unsigned bits = masks[warp]; bits != 0; bits &= bits - 1) {
        const unsigned row = begin + warp * 32 + __ffs(bits) - 1;
        if (!mine) continue;
        const Pack<T, V> pack =
            LoadPack<T, V>(a.dy.data, RowIndex(a.shape, row).Offset(a.dy) + c);
#pragma unroll
        for (int i = 0; i < V; ++i) sum[i] += pack[i];
      }
    }
  }
  if (!mine) return;
  const long long at = id * a.shape.columns + c;
  Pack<T, V> out = LoadPack<T, V>(a.base, at);
#pragma unroll
  for (int i = 0; i < V; ++i) out.Set(i, out[i] + sum[i]);
  StorePack(a.out, at, out);
}

}  // namespace

const char* LaunchEmbeddingAdd(const EmbeddingAddDevice& a, int element,
                               void* stream) {
  return WithElement(element, [&](auto type) -> const char* {
    using T = decltype(type);
    constexpr unsigned kVector = 16 / sizeof(T);
    const auto on = static_cast<cudaStream_t>(stream);
    if (a.out != a.base) {
      const cudaError_t error = cudaMemcpyAsync(
          a.out, a.base, sizeof(T) * a.weights * a.shape.columns,
          cudaMemcpyDeviceToDevice, on);
      if (error != cudaSuccess) return cudaGetErrorString(error);
    }
    const bool vectors = a.shape.columns % kVector == 0 && IsAligned(a.base) &&
                         IsAligned(a.out) && TakesVectors(a.dy, kVector);
    const unsigned columns = kThreads * (vectors ? kVector : 1);
    const dim3 blocks(a.shape.rows, (a.shape.columns + columns - 1) / columns);
    auto* kernel =
        vectors ? &EmbeddingAddKernel<T, kVector> : &EmbeddingAddKernel<T, 1>;
    kernel<<<blocks, kThreads, 0, on>>>(a);
    return LastError();
  });
}

}  // namespace heddle::kernels
