// One NVIDIA GPU as a device. In a build without the CUDA toolkit the functions
// exist and say so.

#ifndef HEDDLE_RUNTIME_DEVICE_CUDA_H_
#define HEDDLE_RUNTIME_DEVICE_CUDA_H_

#include <memory>

#include "absl/status/statusor.h"
#include "runtime/device/device.h"

namespace heddle::device {

// FailedPrecondition if this process sees no GPU, or if this Heddle was built
// without CUDA.
absl::StatusOr<std::unique_ptr<Device>> CreateCudaDevice(int index);

}  // namespace heddle::device

#endif  // HEDDLE_RUNTIME_DEVICE_CUDA_H_
