// A plan's kernel step -> a Call of the registry. Invariant: the kernel sees
// exactly the addresses, sizes and strides of the plan's values, and whatever
// else it writes is workspace: scratch that its section leaves unused, where
// there is enough, or else reserved for it. A result that a kernel updates in
// place must lie where its argument lies, or the old value would be taken for
// the new one.

#include "runtime/torch/registry_step.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/registry.h"
#include "runtime/exec/kernel_call.h"
#include "runtime/torch/newton_schulz_blas.h"

namespace heddle::torch_runtime {
namespace {

// The list that a kernel's first results are new values of.
const char* InPlaceList(const std::string& kernel) {
  if (kernel == "muon_momentum") return "momenta";
  if (kernel == "muon_apply") return "params";
  return nullptr;
}

// Kernels that speak of rows and columns.
bool NeedsRowMajor(const std::string& kernel) {
  return kernel == "newton_schulz" || InPlaceList(kernel) != nullptr;
}

absl::StatusOr<kernels::Operand> OperandOf(const std::string& kernel,
                                           const std::string& name,
                                           const at::Tensor& tensor) {
  if (NeedsRowMajor(kernel) && !tensor.is_contiguous())
    return absl::UnimplementedError(absl::StrCat("kernel ", kernel, " needs ",
                                                 name, " dense and row-major"));
  kernels::Operand operand;
  operand.data = tensor.data_ptr();
  operand.count = tensor.numel();
  operand.sizes = tensor.sizes().vec();
  operand.strides = tensor.strides().vec();
  switch (tensor.scalar_type()) {
    case at::kBool:
      operand.element = kernels::Element::kBool;
      return operand;
    case at::kLong:
      operand.element = kernels::Element::kI64;
      return operand;
    case at::kHalf:
      operand.element = kernels::Element::kF16;
      return operand;
    case at::kBFloat16:
      operand.element = kernels::Element::kBF16;
      return operand;
    case at::kFloat:
      operand.element = kernels::Element::kF32;
      return operand;
    case at::kDouble:
      operand.element = kernels::Element::kF64;
      return operand;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("kernel ", kernel, " cannot take ", name, " of type ",
                       c10::toString(tensor.scalar_type())));
  }
}

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
        read_(std::move(call)) {}

  absl::Status Execute(const exec::RunContext& context,
                       device::Stream* stream) override {
    if (absl::Status status = exec::SetRuntimeScalars(context, read_);
        !status.ok())
      return status;
    kernels::Call& call = read_.call;
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
  exec::KernelCall read_;
  Learned learned_;
};

absl::Status CheckInPlace(const std::string& kernel,
                          const kernels::Call& call) {
  const char* list = InPlaceList(kernel);
  if (list == nullptr || call.tensors.count(list) == 0) return absl::OkStatus();
  const std::vector<kernels::Operand>& old = call.tensors.at(list);
  for (size_t i = 0; i < old.size() && i < call.results.size(); ++i) {
    if (call.results[i].data != nullptr && call.results[i].data != old[i].data)
      return absl::InvalidArgumentError(absl::StrCat(
          "kernel ", kernel, ": result ", i, " does not lie over entry ", i,
          " of '", list, "', which is updated in place"));
  }
  return absl::OkStatus();
}

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
  TensorTable& tensors = shared->tensors(plan, memory);
  absl::StatusOr<exec::KernelCall> call =
      exec::ReadKernelCall(step, [&](const std::string& name, uint32_t value) {
        return OperandOf(step.name, name, tensors.at(value));
      });
  if (!call.ok()) return call.status();
  if (absl::Status status = CheckInPlace(step.name, call->call); !status.ok())
    return status;
  kernels::Workspace workspace = on_device ? kernel->workspace : nullptr;
  // Steps of one stream follow each other.
  if (workspace != nullptr && step.stream == 0 && !call->call.results.empty()) {
    absl::StatusOr<int64_t> bytes = workspace(call->call);
    if (!bytes.ok()) return bytes.status();
    const exec::Memory::Spare spare = memory.SpareScratch(section);
    if (static_cast<uint64_t>(*bytes) <= spare.bytes) {
      call->call.workspace = spare.address;
      call->call.workspace_bytes = *bytes;
      workspace = nullptr;
    }
  }
  return std::unique_ptr<exec::PreparedStep>(new RegistryStep(
      std::move(shared), launch, workspace, by_blas, *std::move(call)));
}

}  // namespace heddle::torch_runtime
