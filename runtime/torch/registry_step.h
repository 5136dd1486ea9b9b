// Kernel steps that call kernels/registry as it is: plan arguments become a
// kernels::Call, on the host the reference runs and on a GPU the device code.

#ifndef HEDDLE_RUNTIME_TORCH_REGISTRY_STEP_H_
#define HEDDLE_RUNTIME_TORCH_REGISTRY_STEP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "runtime/torch/handlers.h"

namespace heddle::torch_runtime {

// NotFoundError for a name that is not registered.
absl::StatusOr<std::unique_ptr<exec::PreparedStep>> PrepareRegistryStep(
    std::shared_ptr<Shared> shared, const plan::Plan& plan,
    const plan::Step& step, const exec::Memory& memory);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_REGISTRY_STEP_H_
