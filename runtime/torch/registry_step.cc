// A kernel step -> a launch of what is registered. Invariant: whatever a kernel
// writes beside its results is workspace: scratch that its section leaves
// unused, where there is enough, or else reserved for it. Two steps that run at
// once must not share it.

#include "runtime/torch/registry_step.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/registry.h"
#include "runtime/exec/kernel_call.h"
#include "runtime/torch/newton_schulz_blas.h"

namespace heddle::torch_runtime {
namespace {

class RegistryStep final : public exec::PreparedStep {
 public:
  // `workspace` is null for a kernel that needs none. `allocates`: it is ATen
  // code, whose temporaries are the step's workspace.
  RegistryStep(std::shared_ptr<Shared> shared, kernels::Launch launch,
               kernels::Workspace workspace, bool allocates,
               exec::KernelCall call)
      : shared_(std::move(shared)),
        launch_(launch),
        workspace_(workspace),
        allocates_(allocates),
        call_(std::move(call)) {}

  absl::Status Execute(const exec::RunContext& context,
                       device::Stream* stream) override {
    if (absl::Status status = call_.FillIn(context); !status.ok())
      return status;
    kernels::Call& call = call_.call;
    // A rank that has none of a step's tensors has nothing to do.
    if (call.results.empty()) return absl::OkStatus();
    call.stream = stream == nullptr ? nullptr : stream->native();
    if (workspace_ == nullptr && !allocates_) {
      shared_->counters.steps += 1;
      return launch_(call);
    }
    return RunScoped(*shared_, learned_, stream, [&](Scope& scope, bool first) {
      at::Tensor scratch;
      if (workspace_ != nullptr) {
        absl::StatusOr<int64_t> bytes = workspace_(call);
        if (!bytes.ok()) return bytes.status();
        scratch = at::empty(
            {*bytes}, at::TensorOptions(at::kByte).device(shared_->device));
        call.workspace = scratch.data_ptr();
        call.workspace_bytes = *bytes;
      }
      absl::Status status = launch_(call);
      if (first) learned_.workspace_bytes = scope.PeakWithout({});
      learned_.exact = workspace_ != nullptr;
      return status;
    });
  }

 private:
  std::shared_ptr<Shared> shared_;
  kernels::Launch launch_;
  kernels::Workspace workspace_;
  const bool allocates_;
  exec::KernelCall call_;
  Learned learned_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<exec::PreparedStep>> PrepareRegistryStep(
    std::shared_ptr<Shared> shared, const plan::Plan& plan,
    const plan::Section& section, const plan::Step& step,
    const exec::Memory& memory) {
  const kernels::Kernel* kernel = kernels::Find(step.name);
  if (kernel == nullptr)
    return absl::UnimplementedError(
        absl::StrCat("this runtime has no kernel '", step.name, "' for ",
                     plan.target, "; it has ", kernels::KnownNames()));
  const bool on_device = shared->device.is_cuda();
  const bool by_blas = !on_device && step.name == "newton_schulz";
  const kernels::Launch launch = by_blas     ? &NewtonSchulzByBlas
                                 : on_device ? kernel->device
                                             : kernel->host;
  if (launch == nullptr)
    return absl::UnimplementedError(absl::StrCat(
        "kernel ", step.name, " has no ", on_device ? "device" : "host",
        " code in this build; build with the CUDA toolkit"));
  absl::StatusOr<exec::KernelCall> read =
      exec::ReadKernelCall(plan, step, memory, exec::Gaps::kAllowed);
  if (!read.ok()) return read.status();
  kernels::Call& call = read->call;
  kernels::Workspace workspace = on_device ? kernel->workspace : nullptr;
  // Steps of one stream follow each other. A kernel that takes scalars of the
  // run is asked for its workspace when they are known.
  if (workspace != nullptr && step.stream == 0 && !call.results.empty() &&
      read->runtime.empty()) {
    absl::StatusOr<int64_t> bytes = workspace(call);
    if (!bytes.ok()) return bytes.status();
    const exec::Memory::Spare spare = memory.SpareScratch(section);
    if (static_cast<uint64_t>(*bytes) <= spare.bytes) {
      call.workspace = spare.address;
      call.workspace_bytes = *bytes;
      workspace = nullptr;
    }
  }
  return std::unique_ptr<exec::PreparedStep>(new RegistryStep(
      std::move(shared), launch, workspace, by_blas, *std::move(read)));
}

}  // namespace heddle::torch_runtime
