// A kernel step that runs what kernels/registry has under its name: on the host
// the reference, on a GPU the device code.

#ifndef HEDDLE_RUNTIME_TORCH_REGISTRY_STEP_H_
#define HEDDLE_RUNTIME_TORCH_REGISTRY_STEP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "runtime/torch/handlers.h"

namespace heddle::torch_runtime {

// Resolves names, addresses and constants once; a run only fills in the
// run-time scalars, takes workspace and launches. Unimplemented for a name that
// is not registered or that has no code for the plan's target.
absl::StatusOr<std::unique_ptr<exec::PreparedStep>> PrepareRegistryStep(
    std::shared_ptr<Shared> shared, const plan::Plan& plan,
    const plan::Section& section, const plan::Step& step,
    const exec::Memory& memory);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_REGISTRY_STEP_H_
