// Momentum and parameter update of Muon on the GPU, many tensors a launch. One
// rounding an operation, as the host reference (no fused multiply-add), so the
// bits are the same.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/muon_cuda.h"

namespace heddle::kernels {
namespace {

constexpr int kThreads = 256;

__device__ float Mul(float a, float b) { return __fmul_rn(a, b); }
__device__ float Add(float a, float b) { return __fadd_rn(a, b); }
__device__ float Div(float a, float b) { return __fdiv_rn(a, b); }
__device__ double Mul(double a, double b) { return __dmul_rn(a, b); }
__device__ double Add(double a, double b) { return __dadd_rn(a, b); }
__device__ double Div(double a, double b) { return __ddiv_rn(a, b); }

template <typename T>
__device__ T Read(const void* data, int element, long long i) {
  switch (element) {
    case kDeviceF16:
      return static_cast<T>(__half2float(static_cast<const __half*>(data)[i]));
    case kDeviceBF16:
      return static_cast<T>(
          __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]));
    case kDeviceF32:
      return static_cast<T>(static_cast<const float*>(data)[i]);
    default:
      return static_cast<T>(static_cast<const double*>(data)[i]);
  }
}

__device__ __half HalfOf(float value) { return __float2half_rn(value); }
__device__ __half HalfOf(double value) { return __double2half(value); }
__device__ __nv_bfloat16 BFloat16Of(float value) {
  return __float2bfloat16_rn(value);
}
__device__ __nv_bfloat16 BFloat16Of(double value) {
  return __double2bfloat16(value);
}

template <typename T>
__device__ void Write(void* data, int element, long long i, T value) {
  switch (element) {
    case kDeviceF16:
      static_cast<__half*>(data)[i] = HalfOf(value);
      return;
    case kDeviceBF16:
      static_cast<__nv_bfloat16*>(data)[i] = BFloat16Of(value);
      return;
    case kDeviceF32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    default:
      static_cast<double*>(data)[i] = static_cast<double>(value);
  }
}

template <typename T>
__device__ T Lerp(T from, T to, T weight) {
  const T difference = Add(to, -from);
  return (weight < T(0) ? -weight : weight) < T(0.5)
             ? Add(from, Mul(weight, difference))
             : Add(to, -Mul(difference, Add(T(1), -weight)));
}

__device__ const MuonEntry& EntryOf(const MuonDevice& a, int block) {
  int low = 0, high = a.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (a.entries[middle].blocks_before <= block) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return a.entries[low];
}

template <typename T>
__global__ void MomentumKernel(const __grid_constant__ MuonDevice a) {
  const MuonEntry& entry = EntryOf(a, static_cast<int>(blockIdx.x));
  const long long first =
      (static_cast<long long>(blockIdx.x) - entry.blocks_before) * kMuonBlock;
  const bool skip = a.finite != nullptr && *a.finite == 0;
  const T beta = static_cast<T>(a.momentum),
          weight = static_cast<T>(1 - a.momentum),
          divisor = static_cast<T>(a.divisor),
          scale = a.gradient_factor == nullptr
                      ? T(1)
                      : static_cast<T>(*a.gradient_factor);
  for (long long i = first + threadIdx.x;
       i < first + kMuonBlock && i < entry.count; i += kThreads) {
    if (skip) {
      if (entry.third != nullptr) Write(entry.third, a.third_element, i, T(0));
      continue;
    }
    T g = Read<T>(entry.first, a.first_element, i);
    if (divisor != T(1)) g = Div(g, divisor);
    if (scale != T(1)) g = Mul(g, scale);
    T m = Read<T>(entry.second, a.second_element, i);
    m = a.ema ? Lerp(m, g, weight) : Add(Mul(beta, m), g);
    Write(entry.second, a.second_element, i, m);
    m = Read<T>(entry.second, a.second_element, i);
    const T u = !a.nesterov ? m
                : a.ema     ? Lerp(g, m, beta)
                            : Add(g, Mul(beta, m));
    if (entry.third != nullptr) Write(entry.third, a.third_element, i, u);
  }
}

template <typename T>
__global__ void ApplyKernel(const __grid_constant__ MuonDevice a) {
  if (a.finite != nullptr && *a.finite == 0) return;
  const MuonEntry& entry = EntryOf(a, static_cast<int>(blockIdx.x));
  const long long first =
      (static_cast<long long>(blockIdx.x) - entry.blocks_before) * kMuonBlock;
  const T decay = static_cast<T>(a.decay),
          factor = static_cast<T>(entry.factor);
  for (long long i = first + threadIdx.x;
       i < first + kMuonBlock && i < entry.count; i += kThreads) {
    T p = Read<T>(entry.first, a.first_element, i);
    if (decay != T(1)) p = Mul(p, decay);
    p = Add(p, Mul(factor, Read<T>(entry.second, a.second_element, i)));
    Write(entry.first, a.first_element, i, p);
    if (entry.third != nullptr)
      Write(entry.third, a.third_element, i,
            Read<T>(entry.first, a.first_element, i));
  }
}

const char* Failure() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* LaunchMuonMomentum(const MuonDevice& arguments, bool f64,
                               void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  if (f64) {
    MomentumKernel<double><<<arguments.blocks, kThreads, 0, on>>>(arguments);
  } else {
    MomentumKernel<float><<<arguments.blocks, kThreads, 0, on>>>(arguments);
  }
  return Failure();
}

const char* LaunchMuonApply(const MuonDevice& arguments, bool f64,
                            void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  if (f64) {
    ApplyKernel<double><<<arguments.blocks, kThreads, 0, on>>>(arguments);
  } else {
    ApplyKernel<float><<<arguments.blocks, kThreads, 0, on>>>(arguments);
  }
  return Failure();
}

}  // namespace heddle::kernels
