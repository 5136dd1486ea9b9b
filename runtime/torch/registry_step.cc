// A plan's kernel step -> a Call of the registry. Invariant: the kernel sees
// exactly the addresses, sizes and strides of the plan's values; it allocates
// nothing, so it needs no workspace.

#include "runtime/torch/registry_step.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/registry.h"

namespace heddle::torch_runtime {
namespace {

absl::StatusOr<kernels::Operand> OperandOf(const std::string& kernel,
                                           const std::string& name,
                                           const at::Tensor& tensor) {
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
  RegistryStep(std::shared_ptr<Shared> shared, kernels::Launch launch,
               kernels::Call call, std::map<std::string, std::string> runtime)
      : shared_(std::move(shared)),
        launch_(launch),
        call_(std::move(call)),
        runtime_(std::move(runtime)) {}

  absl::Status Execute(const exec::RunContext& context,
                       device::Stream* stream) override {
    for (const auto& [argument, scalar] : runtime_) {
      absl::StatusOr<double> value = exec::RuntimeScalar(context, scalar);
      if (!value.ok()) return value.status();
      call_.scalars[argument] = *value;
    }
    call_.stream = stream == nullptr ? nullptr : stream->native();
    shared_->counters.steps += 1;
    return launch_(call_);
  }

 private:
  std::shared_ptr<Shared> shared_;
  kernels::Launch launch_;
  kernels::Call call_;
  // Argument -> the run-time scalar that it is.
  std::map<std::string, std::string> runtime_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<exec::PreparedStep>> PrepareRegistryStep(
    std::shared_ptr<Shared> shared, const plan::Plan& plan,
    const plan::Step& step, const exec::Memory& memory) {
  const kernels::Kernel* kernel = kernels::Find(step.name);
  if (kernel == nullptr)
    return absl::UnimplementedError(
        absl::StrCat("this runtime has no kernel '", step.name, "' for ",
                     plan.target, "; it has ", kernels::KnownNames()));
  const bool on_device = shared->device.is_cuda();
  const kernels::Launch launch = on_device ? kernel->device : kernel->host;
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
      case plan::ArgKind::kRuntime:
        runtime[arg.name] = arg.s;
        break;
      default:
        status = absl::InvalidArgumentError(absl::StrCat(
            "kernel argument '", arg.name, "' is neither tensor nor number"));
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
  return std::unique_ptr<exec::PreparedStep>(new RegistryStep(
      std::move(shared), launch, std::move(call), std::move(runtime)));
}

}  // namespace heddle::torch_runtime
