// Planned memory on CUDA: a forwarding wrapper around libtorch's caching
// allocator, and ATen's view of the runtime's streams.

#ifndef HEDDLE_RUNTIME_TORCH_PLANNED_CUDA_H_
#define HEDDLE_RUNTIME_TORCH_PLANNED_CUDA_H_

#include <c10/core/Stream.h>

#include "absl/status/statusor.h"
#include "runtime/torch/planned_allocator.h"

namespace heddle::torch_runtime {

// Loads libtorch's CUDA part if the process has not, and puts the wrapper in
// front of its allocator, once per process. FailedPrecondition if there is no
// such part, or in a build without the CUDA toolkit.
absl::StatusOr<Source*> InstallPlannedCudaAllocator();

// The ATen stream for a cudaStream_t of this device.
c10::Stream AtenStream(void* native, int device);

// The cudaStream_t that the caller's own work goes to.
void* CurrentStream(int device);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_PLANNED_CUDA_H_
