// What every launch does on the host.

#ifndef HEDDLE_KERNELS_LAUNCH_CUH_
#define HEDDLE_KERNELS_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace heddle::kernels {

inline bool IsAligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

// nullptr, or what went wrong.
inline const char* TextOf(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

inline const char* LastError() { return TextOf(cudaGetLastError()); }

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_LAUNCH_CUH_
