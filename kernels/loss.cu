// Cross entropy on the GPU: a block per row of logits, which forward reads once
// (largest value and sum of exponentials together) and backward once more. The
// probabilities are never written but as the gradient. The rows' losses are
// summed by one block in a fixed order.

#include "kernels/vectors.cuh"

namespace heddle::kernels {
namespace {

constexpr int kThreads = 512;

// __expf is off by what its argument is rounded to: for the arguments here, at
// most 0, 2^-23 of the largest probability, far below a sum's own rounding.

__device__ float ReadScalar(const void* data, int element) {
  switch (element) {
    case kFusedF16:
      return ToFloat(*static_cast<const __half*>(data));
    case kFusedBF16:
      return ToFloat(*static_cast<const __nv_bfloat16*>(data));
    default:
      return *static_cast<const float*>(data);
  }
}

__device__ void WriteScalar(void* data, int element, float value) {
  switch (element) {
    case kFusedF16:
      *static_cast<__half*>(data) = FromFloat<__half>(value);
      return;
    case kFusedBF16:
      *static_cast<__nv_bfloat16*>(data) = FromFloat<__nv_bfloat16>(value);
      return;
    default:
      *static_cast<float*>(data) = value;
  }
}

// The largest value so far and the sum of exp(value - largest).
struct Running {
  float top;
  float sum;
};

__device__ Running Join(Running a, Running b) {
  const float top = fmaxf(a.top, b.top);
  // Nothing seen on either side: no difference of infinities.
  if (top == -INFINITY) return {top, 0.0f};
  return {top, a.sum * expf(a.top - top) + b.sum * expf(b.top - top)};
}

__device__ Running WarpJoin(Running value) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) {
    const Running other = {__shfl_xor_sync(0xffffffffu, value.top, lane),
                           __shfl_xor_sync(0xffffffffu, value.sum, lane)};
    value = Join(value, other);
  }
  return value;
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads, 4)
    LogSumExpKernel(const __grid_constant__ CrossEntropyDevice a) {
  const long long row = blockIdx.x;
  const long long base = row * a.classes;
  Running mine = {-INFINITY, 0.0f};
#pragma unroll 4
  for (unsigned c = threadIdx.x * V; c < a.classes; c += kThreads * V) {
    const Pack<T, V> pack = LoadPack<T, V>(a.logits, base + c);
    float top = pack[0];
#pragma unroll
    for (int i = 1; i < V; ++i) top = fmaxf(top, pack[i]);
    if (top > mine.top) {
      mine.sum *= expf(mine.top - top);
      mine.top = top;
    }
    if (mine.top == -INFINITY) continue;
#pragma unroll
    for (int i = 0; i < V; ++i) mine.sum += __expf(pack[i] - mine.top);
  }
  __shared__ Running warps[kThreads / 32];
  mine = WarpJoin(mine);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  mine = threadIdx.x < kThreads / 32 ? warps[threadIdx.x]
                                     : Running{-INFINITY, 0.0f};
  mine = WarpJoin(mine);
  if (threadIdx.x != 0) return;
  const float lse = mine.top + logf(mine.sum);
  const long long label = a.labels[row * a.label_stride];
  float loss = 0;
  if (label != a.ignore) {
    // A label that is no class must not be read at, and must be seen.
    loss = label < 0 || label >= a.classes
               ? NAN
               : lse - ToFloat(static_cast<const T*>(a.logits)[base + label]);
  }
  a.lse[row] = lse;
  a.row_loss[row] = loss;
}

__global__ void SumLossKernel(CrossEntropyDevice a) {
  __shared__ double sums[kThreads];
  __shared__ unsigned counts[kThreads];
  double sum = 0;
  unsigned count = 0;
  for (unsigned row = threadIdx.x; row < a.rows; row += kThreads) {
    sum += a.row_loss[row];
    count += a.labels[row * a.label_stride] != a.ignore;
  }
  sums[threadIdx.x] = sum;
  counts[threadIdx.x] = count;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x >= half) continue;
    sums[threadIdx.x] += sums[threadIdx.x + half];
    counts[threadIdx.x] += counts[threadIdx.x + half];
  }
  if (threadIdx.x != 0) return;
  // Without any label the mean is NaN, as eager's is.
  WriteScalar(a.loss, a.scalar_element,
              static_cast<float>(a.mean ? sums[0] / counts[0] : sums[0]));
  WriteScalar(a.total_weight, a.scalar_element, static_cast<float>(counts[0]));
}

template <typename T, int V>
__global__ void GradientKernel(CrossEntropyDevice a) {
  const long long row = blockIdx.x;
  const long long base = row * a.classes;
  const long long label = a.labels[row * a.label_stride];
  const bool counts = label != a.ignore;
  float scale = ReadScalar(a.dloss, a.scalar_element);
  if (a.mean) scale /= ReadScalar(a.total_weight, a.scalar_element);
  const float lse = a.lse[row];
#pragma unroll 4
  for (unsigned c = threadIdx.x * V; c < a.classes; c += kThreads * V) {
    Pack<T, V> pack = LoadPack<T, V>(a.logits, base + c);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float p = __expf(pack[i] - lse);
      pack.Set(i, counts ? (p - (c + i == label ? 1.0f : 0.0f)) * scale : 0.0f);
    }
    StorePack(a.dlogits, base + c, pack);
  }
}

}  // namespace

const char* LaunchCrossEntropy(const CrossEntropyDevice& a, int element,
                               void* stream) {
  return WithElement(element, [&](auto type) -> const char* {
    using T = decltype(type);
    constexpr int kVector = 16 / sizeof(T);
    const bool vectors =
        a.classes % kVector == 0 && IsAligned(a.logits) && IsAligned(a.dlogits);
    const auto on = static_cast<cudaStream_t>(stream);
    if (a.dlogits != nullptr) {
      auto* kernel =
          vectors ? &GradientKernel<T, kVector> : &GradientKernel<T, 1>;
      kernel<<<a.rows, kThreads, 0, on>>>(a);
      return LastError();
    }
    auto* kernel =
        vectors ? &LogSumExpKernel<T, kVector> : &LogSumExpKernel<T, 1>;
    kernel<<<a.rows, kThreads, 0, on>>>(a);
    if (const char* error = LastError()) return error;
    SumLossKernel<<<1, kThreads, 0, on>>>(a);
    return LastError();
  });
}

}  // namespace heddle::kernels
