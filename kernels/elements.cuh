// Elements of a type that is known when a launch runs, and arithmetic of one
// rounding an operation, which the compiler does not contract: what an update
// needs to have the bits of its host reference.

#ifndef HEDDLE_KERNELS_ELEMENTS_CUH_
#define HEDDLE_KERNELS_ELEMENTS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "kernels/device_element.h"

namespace heddle::kernels {

__device__ inline float Mul(float a, float b) { return __fmul_rn(a, b); }
__device__ inline float Add(float a, float b) { return __fadd_rn(a, b); }
__device__ inline float Div(float a, float b) { return __fdiv_rn(a, b); }
__device__ inline float Root(float a) { return __fsqrt_rn(a); }
__device__ inline double Mul(double a, double b) { return __dmul_rn(a, b); }
__device__ inline double Add(double a, double b) { return __dadd_rn(a, b); }
__device__ inline double Div(double a, double b) { return __ddiv_rn(a, b); }
__device__ inline double Root(double a) { return __dsqrt_rn(a); }

// A stored element in the type of arithmetic, which is float or double.
template <typename T, typename From>
__device__ inline T As(From value) {
  if constexpr (std::is_same_v<From, __half>) {
    return static_cast<T>(__half2float(value));
  } else if constexpr (std::is_same_v<From, __nv_bfloat16>) {
    return static_cast<T>(__bfloat162float(value));
  } else {
    return static_cast<T>(value);
  }
}

// A result as it is stored, by one rounding.
template <typename To, typename T>
__device__ inline To Rounded(T value) {
  constexpr bool kWide = std::is_same_v<T, double>;
  if constexpr (std::is_same_v<To, __half>) {
    if constexpr (kWide) return __double2half(value);
    return __float2half_rn(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, __nv_bfloat16>) {
    if constexpr (kWide) return __double2bfloat16(value);
    return __float2bfloat16_rn(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

template <typename T>
__device__ inline T Read(const void* data, int element, long long i) {
  switch (element) {
    case kDeviceF16:
      return As<T>(static_cast<const __half*>(data)[i]);
    case kDeviceBF16:
      return As<T>(static_cast<const __nv_bfloat16*>(data)[i]);
    case kDeviceF32:
      return As<T>(static_cast<const float*>(data)[i]);
    default:
      return As<T>(static_cast<const double*>(data)[i]);
  }
}

template <typename T>
__device__ inline void Write(void* data, int element, long long i, T value) {
  switch (element) {
    case kDeviceF16:
      static_cast<__half*>(data)[i] = Rounded<__half>(value);
      return;
    case kDeviceBF16:
      static_cast<__nv_bfloat16*>(data)[i] = Rounded<__nv_bfloat16>(value);
      return;
    case kDeviceF32:
      static_cast<float*>(data)[i] = Rounded<float>(value);
      return;
    default:
      static_cast<double*>(data)[i] = Rounded<double>(value);
  }
}

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_ELEMENTS_CUH_
