// Matrix products by cuBLASLt. In a build without the CUDA toolkit the function
// exists and says so.

#ifndef HEDDLE_RUNTIME_EXEC_GEMM_CUDA_H_
#define HEDDLE_RUNTIME_EXEC_GEMM_CUDA_H_

#include <memory>

#include "absl/status/statusor.h"
#include "runtime/exec/gemm_handler.h"

namespace heddle::exec {

// FailedPrecondition if the library cannot be found. `device` outlives the
// engine, which takes its workspaces from it.
absl::StatusOr<std::unique_ptr<GemmEngine>> CreateCudaGemmEngine(
    device::Device& device);

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_GEMM_CUDA_H_
