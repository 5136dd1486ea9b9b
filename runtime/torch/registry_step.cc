// A plan's kernel step -> a Call of the registry. Invariant: the kernel sees
// exactly the addresses, sizes and strides of the plan's values, and whatever
// else it writes is workspace: scratch that its section leaves unused, where
// there is enough, or else reserved for it. A result that a kernel updates in
// place must lie where its argument lies, or the old value would be taken for
// the new one.

#include "runtime/torch/registry_step.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/registry.h"
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
               kernels::Workspace workspace, bool allocates, kernels::Call call,
               std::map<std::string, std::string> runtime)
      : shared_(std::move(shared)),
        launch_(launch),
        workspace_(workspace),
        allocates_(allocates),
        call_(std::move(call)),
        runtime_(std::move(runtime)) {}

  absl::Status Execute(const exec::RunContext& context,
                       device::Stream* stream) override {
    for (const auto& [argument, scalar] : runtime_) {
      absl::StatusOr<double> value = exec::RuntimeScalar(context, scalar);
      if (!value.ok()) return value.status();
      call_.scalars[argument] = *value;
    }
    // A rank that has none of a step's tensors has nothing to do.
    if (call_.results.empty()) return absl::OkStatus();
    call_.stream = stream == nullptr ? nullptr : stream->native();
    if (workspace_ == nullptr && !allocates_) {
      shared_->counters.steps += 1;
      return launch_(call_);
    }
    return RunScoped(*shared_, learned_, stream, [&](Scope& scope, bool first) {
      at::Tensor scratch;
      if (workspace_ != nullptr) {
        absl::StatusOr<int64_t> bytes = workspace_(call_);
        if (!bytes.ok()) return bytes.status();
        scratch = at::empty(
            {*bytes}, at::TensorOptions(at::kByte).device(shared_->device));
        call_.workspace = scratch.data_ptr();
        call_.workspace_bytes = *bytes;
      }
      absl::Status status = launch_(call_);
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
  kernels::Call call_;
  // Argument -> the run-time scalar that it is.
  std::map<std::string, std::string> runtime_;
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
  kernels::Call call;
  std::map<std::string, std::string> runtime;
  auto add = [&](const std::string& name, int64_t value) -> absl::Status {
    if (value < 0)
      return absl::InvalidArgumentError(
          absl::StrCat("kernel argument '", name, "' has an absent tensor"));
    absl::StatusOr<kernels::Operand> operand =
        OperandOf(step.name, name, tensors.at(static_cast<uint32_t>(value)));
    if (!operand.ok()) return operand.status();
    call.tensors[name].push_back(*std::move(operand));
    return absl::OkStatus();
  };
  for (const plan::Arg& arg : step.args) {
    absl::Status status;
    switch (arg.kind) {
      case plan::ArgKind::kValue:
        status = add(arg.name, arg.i);
        break;
      case plan::ArgKind::kValueList:
        call.tensors[arg.name];
        for (int64_t value : arg.ints)
          if (status.ok()) status = add(arg.name, value);
        break;
      case plan::ArgKind::kInt:
      case plan::ArgKind::kBool:
        call.scalars[arg.name] = static_cast<double>(arg.i);
        break;
      case plan::ArgKind::kFloat:
        call.scalars[arg.name] = arg.f;
        break;
      case plan::ArgKind::kString:
        call.strings[arg.name] = arg.s;
        break;
      case plan::ArgKind::kIntList:
        call.ints[arg.name] = arg.ints;
        break;
      case plan::ArgKind::kFloatList:
        call.lists[arg.name] = arg.floats;
        break;
      case plan::ArgKind::kRuntime:
        runtime[arg.name] = arg.s;
        break;
      case plan::ArgKind::kNone:
        break;
      default:
        status = absl::InvalidArgumentError(
            absl::StrCat("kernel argument '", arg.name,
                         "' is of a kind that no kernel takes"));
    }
    if (!status.ok()) return status;
  }
  for (size_t i = 0; i < step.results.size(); ++i) {
    call.results.emplace_back();
    if (step.results[i] < 0) continue;  // nobody reads it
    absl::StatusOr<kernels::Operand> operand =
        OperandOf(step.name, absl::StrCat("result ", i),
                  tensors.at(static_cast<uint32_t>(step.results[i])));
    if (!operand.ok()) return operand.status();
    call.results[i] = *std::move(operand);
  }
  if (absl::Status status = CheckInPlace(step.name, call); !status.ok())
    return status;
  kernels::Workspace workspace = on_device ? kernel->workspace : nullptr;
  // Steps of one stream follow each other.
  if (workspace != nullptr && step.stream == 0 && !call.results.empty()) {
    absl::StatusOr<int64_t> bytes = workspace(call);
    if (!bytes.ok()) return bytes.status();
    const exec::Memory::Spare spare = memory.SpareScratch(section);
    if (static_cast<uint64_t>(*bytes) <= spare.bytes) {
      call.workspace = spare.address;
      call.workspace_bytes = *bytes;
      workspace = nullptr;
    }
  }
  return std::unique_ptr<exec::PreparedStep>(
      new RegistryStep(std::move(shared), launch, workspace, by_blas,
                       std::move(call), std::move(runtime)));
}

}  // namespace heddle::torch_runtime
