// A kernel step that runs what kernels/registry has under its name, on the
// host's reference or the device's code as the plan's target says.

#ifndef HEDDLE_RUNTIME_TORCH_REGISTRY_STEP_H_
#define HEDDLE_RUNTIME_TORCH_REGISTRY_STEP_H_

#include <memory>

#include "runtime/torch/handlers.h"

namespace heddle::torch_runtime {

// Resolves names, addresses and constants once; a run only fills in the
// run-time scalars and launches.
absl::StatusOr<std::unique_ptr<exec::PreparedStep>> PrepareRegistryStep(
    std::shared_ptr<Shared> shared, const plan::Plan& plan,
    const plan::Step& step, const exec::Memory& memory);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_REGISTRY_STEP_H_
