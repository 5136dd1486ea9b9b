// The update of many parameters in few launches: one pass over parameter,
// gradient and both moments that also writes the parameter in the compute
// dtype, and the norm of all gradients. Invariant: one rounding an operation,
// as the host reference (no fused multiply-add); sums in an order that depends
// on the sizes alone. Numbers that change from step to step are read from
// device memory where the caller says so, so a recorded graph stays valid.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <type_traits>

#include "kernels/launch.cuh"
#include "kernels/multi_update_cuda.h"

namespace heddle::kernels {
namespace {

constexpr int kThreads = 256;
// Enough to fill every GPU there is a few times over; each takes many chunks.
constexpr unsigned kMaxBlocks = 132 * 16;

__device__ double Read(const DeviceScalar& scalar) {
  return scalar.address == nullptr ? scalar.value : *scalar.address;
}

__device__ float ReadElement(const void* data, int element, size_t i) {
  switch (element) {
    case kUpdateF16:
      return __half2float(static_cast<const __half*>(data)[i]);
    case kUpdateBF16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

__device__ void WriteElement(void* data, int element, size_t i, float value) {
  switch (element) {
    case kUpdateF16:
      static_cast<__half*>(data)[i] = __float2half_rn(value);
      return;
    case kUpdateBF16:
      static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(value);
      return;
    default:
      static_cast<float*>(data)[i] = value;
  }
}

// What every element of a step shares.
struct Constants {
  float decay, weight1, beta2, weight2, eps, root, size, divisor, factor;
  bool has_decay;
};

__device__ Constants ConstantsOf(const AdamWScalars& s) {
  const double lr = Read(s.lr) * s.lr_scale, step = Read(s.step);
  Constants c;
  c.has_decay = s.weight_decay != 0;
  c.decay = static_cast<float>(1 - lr * s.weight_decay);
  c.weight1 = static_cast<float>(1 - s.beta1);
  c.beta2 = static_cast<float>(s.beta2);
  c.weight2 = static_cast<float>(1 - s.beta2);
  c.eps = static_cast<float>(s.eps);
  c.root = static_cast<float>(sqrt(1 - pow(s.beta2, step)));
  c.size = static_cast<float>(-(lr / (1 - pow(s.beta1, step))));
  c.divisor = static_cast<float>(Read(s.divisor));
  c.factor = s.factor == nullptr ? 1.0f : *s.factor;
  return c;
}

__device__ void Step(const Constants& c, float& p, float g, float& m,
                     float& v) {
  if (c.divisor != 1.0f) g = __fdiv_rn(g, c.divisor);
  if (c.factor != 1.0f) g = __fmul_rn(g, c.factor);
  if (c.has_decay) p = __fmul_rn(p, c.decay);
  const float difference = __fadd_rn(g, -m);
  m = c.weight1 < 0.5f
          ? __fadd_rn(m, __fmul_rn(c.weight1, difference))
          : __fadd_rn(g, -__fmul_rn(difference, __fadd_rn(1.0f, -c.weight1)));
  v = __fadd_rn(__fmul_rn(v, c.beta2), __fmul_rn(__fmul_rn(c.weight2, g), g));
  const float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), c.root), c.eps);
  p = __fadd_rn(p, __fmul_rn(c.size, __fdiv_rn(m, denominator)));
}

// The tensor that a chunk belongs to.
template <typename Batch>
__device__ int TensorOf(const Batch& batch, const unsigned* first,
                        unsigned chunk) {
  int low = 0, high = batch.tensors - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (first[middle] <= chunk) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

template <typename Copy>
__device__ void StoreCopy(void* copy, size_t at, const float4& p) {
  struct alignas(sizeof(Copy) * 4) Four {
    Copy v[4];
  } four;
  if constexpr (sizeof(Copy) == 4) {
    four = {p.x, p.y, p.z, p.w};
  } else if constexpr (std::is_same<Copy, __half>::value) {
    four = {__float2half_rn(p.x), __float2half_rn(p.y), __float2half_rn(p.z),
            __float2half_rn(p.w)};
  } else {
    four = {__float2bfloat16_rn(p.x), __float2bfloat16_rn(p.y),
            __float2bfloat16_rn(p.z), __float2bfloat16_rn(p.w)};
  }
  *reinterpret_cast<Four*>(static_cast<Copy*>(copy) + at) = four;
}

// `kVectors`: everything but the copy is f32 and aligned.
template <bool kVectors, typename Copy>
__global__ void __launch_bounds__(kThreads)
    MultiAdamWKernel(const __grid_constant__ AdamWBatch b) {
  if (b.scalars.finite != nullptr && *b.scalars.finite == 0) return;
  __shared__ Constants shared;
  if (threadIdx.x == 0) shared = ConstantsOf(b.scalars);
  __syncthreads();
  const Constants c = shared;
  for (unsigned chunk = blockIdx.x; chunk < b.first_chunk[b.tensors];
       chunk += gridDim.x) {
    const int t = TensorOf(b, b.first_chunk, chunk);
    const size_t begin =
        static_cast<size_t>(chunk - b.first_chunk[t]) * kUpdateChunk;
    const size_t end =
        begin + kUpdateChunk < b.counts[t] ? begin + kUpdateChunk : b.counts[t];
    size_t tail = begin + threadIdx.x;
    if constexpr (kVectors) {
      float* params = static_cast<float*>(b.params[t]);
      const float* grads = static_cast<const float*>(b.grads[t]);
      float* averages = static_cast<float*>(b.exp_avgs[t]);
      float* squares = static_cast<float*>(b.exp_avg_sqs[t]);
      const size_t whole = begin + (end - begin) / 4 * 4;
#pragma unroll 2
      for (size_t i = begin + threadIdx.x * 4; i < whole; i += kThreads * 4) {
        float4 p = *reinterpret_cast<const float4*>(params + i);
        const float4 g = *reinterpret_cast<const float4*>(grads + i);
        float4 m = *reinterpret_cast<const float4*>(averages + i);
        float4 v = *reinterpret_cast<const float4*>(squares + i);
        Step(c, p.x, g.x, m.x, v.x);
        Step(c, p.y, g.y, m.y, v.y);
        Step(c, p.z, g.z, m.z, v.z);
        Step(c, p.w, g.w, m.w, v.w);
        *reinterpret_cast<float4*>(params + i) = p;
        *reinterpret_cast<float4*>(averages + i) = m;
        *reinterpret_cast<float4*>(squares + i) = v;
        if (b.copy_element >= 0) StoreCopy<Copy>(b.copies[t], i, p);
      }
      tail = whole + threadIdx.x;
    }
    for (size_t i = tail; i < end; i += kThreads) {
      float p = ReadElement(b.params[t], b.param_element, i);
      float m = ReadElement(b.exp_avgs[t], b.average_element, i);
      float v = ReadElement(b.exp_avg_sqs[t], b.square_element, i);
      Step(c, p, ReadElement(b.grads[t], b.grad_element, i), m, v);
      WriteElement(b.params[t], b.param_element, i, p);
      WriteElement(b.exp_avgs[t], b.average_element, i, m);
      WriteElement(b.exp_avg_sqs[t], b.square_element, i, v);
      if (b.copy_element >= 0) WriteElement(b.copies[t], b.copy_element, i, p);
    }
  }
}

__device__ double BlockSum(double value) {
  __shared__ double warps[kThreads / 32];
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, lane);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x != 0) return 0;
  double sum = 0;
  for (double warp : warps) sum += warp;
  return sum;
}

template <bool kVectors>
__global__ void __launch_bounds__(kThreads)
    NormPartsKernel(const __grid_constant__ NormBatch b) {
  const unsigned part = blockIdx.x;
  const int t = TensorOf(b, b.first_part, part);
  const size_t begin = static_cast<size_t>(part - b.first_part[t]) * kNormPart;
  const size_t end =
      begin + kNormPart < b.counts[t] ? begin + kNormPart : b.counts[t];
  // Four sums a thread: short chains of float additions, long ones in double.
  float4 sums = {0, 0, 0, 0};
  size_t tail = begin + threadIdx.x;
  if constexpr (kVectors) {
    const float* grads = static_cast<const float*>(b.grads[t]);
    const size_t whole = begin + (end - begin) / 4 * 4;
#pragma unroll 4
    for (size_t i = begin + threadIdx.x * 4; i < whole; i += kThreads * 4) {
      const float4 g = *reinterpret_cast<const float4*>(grads + i);
      sums.x += g.x * g.x;
      sums.y += g.y * g.y;
      sums.z += g.z * g.z;
      sums.w += g.w * g.w;
    }
    tail = whole + threadIdx.x;
  }
  for (size_t i = tail; i < end; i += kThreads) {
    const float g = ReadElement(b.grads[t], b.element, i);
    sums.x += g * g;
  }
  const double sum = BlockSum((static_cast<double>(sums.x) + sums.y) +
                              (static_cast<double>(sums.z) + sums.w));
  if (threadIdx.x == 0) b.partials[part] = sum;
}

__global__ void __launch_bounds__(kThreads)
    NormSumsKernel(const __grid_constant__ NormBatch b) {
  const int t = blockIdx.x;
  double sum = 0;
  for (unsigned part = b.first_part[t] + threadIdx.x;
       part < b.first_part[t + 1]; part += kThreads)
    sum += b.partials[part];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) b.sums[t] = sum;
}

__global__ void __launch_bounds__(kThreads) NormResultKernel(NormResult r) {
  double sum = 0;
  for (int t = threadIdx.x; t < r.count; t += kThreads) sum += r.sums[t];
  sum = BlockSum(sum);
  if (threadIdx.x != 0) return;
  const float norm = static_cast<float>(sqrt(sum) / Read(r.divisor));
  if (r.norm != nullptr) *r.norm = norm;
  if (r.factor != nullptr) {
    const float limit = static_cast<float>(r.max_norm);
    // NaN stays NaN, as in torch's clamp.
    const float factor = limit / (norm + 1e-6f);
    *r.factor = r.max_norm > 0 ? (factor > 1.0f ? 1.0f : factor) : 1.0f;
  }
  if (r.finite != nullptr) *r.finite = isfinite(norm);
}

}  // namespace

const char* LaunchMultiAdamW(const AdamWBatch& b, void* stream) {
  const unsigned chunks = b.first_chunk[b.tensors];
  if (chunks == 0) return nullptr;
  bool vectors =
      b.param_element == kUpdateF32 && b.grad_element == kUpdateF32 &&
      b.average_element == kUpdateF32 && b.square_element == kUpdateF32;
  for (int t = 0; t < b.tensors; ++t)
    vectors &= IsAligned(b.params[t]) && IsAligned(b.grads[t]) &&
               IsAligned(b.exp_avgs[t]) && IsAligned(b.exp_avg_sqs[t]) &&
               (b.copy_element < 0 || IsAligned(b.copies[t]));
  auto* kernel = !vectors ? &MultiAdamWKernel<false, float>
                 : b.copy_element == kUpdateF16
                     ? &MultiAdamWKernel<true, __half>
                     : (b.copy_element == kUpdateBF16
                            ? &MultiAdamWKernel<true, __nv_bfloat16>
                            : &MultiAdamWKernel<true, float>);
  const unsigned blocks = std::min(chunks, kMaxBlocks);
  const auto on = static_cast<cudaStream_t>(stream);
  kernel<<<blocks, kThreads, 0, on>>>(b);
  return LastError();
}

const char* LaunchNormSums(const NormBatch& b, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  bool vectors = b.element == kUpdateF32;
  for (int t = 0; t < b.tensors; ++t) vectors &= IsAligned(b.grads[t]);
  const unsigned parts = b.first_part[b.tensors];
  if (parts != 0) {
    auto* kernel = vectors ? &NormPartsKernel<true> : &NormPartsKernel<false>;
    kernel<<<parts, kThreads, 0, on>>>(b);
    if (const char* error = LastError()) return error;
  }
  NormSumsKernel<<<b.tensors, kThreads, 0, on>>>(b);
  return LastError();
}

const char* LaunchNormResult(const NormResult& r, void* stream) {
  NormResultKernel<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(r);
  return LastError();
}

}  // namespace heddle::kernels
