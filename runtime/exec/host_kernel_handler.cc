// Operands and constants are gathered at Prepare; a run adds the scalars.

#include "runtime/exec/host_kernel_handler.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/registry.h"
#include "runtime/exec/kernel_call.h"

namespace heddle::exec {
namespace {

absl::StatusOr<kernels::Element> ElementOf(plan::DType dtype) {
  switch (dtype) {
    case plan::DType::kBool:
      return kernels::Element::kBool;
    case plan::DType::kI64:
      return kernels::Element::kI64;
    case plan::DType::kF16:
      return kernels::Element::kF16;
    case plan::DType::kBF16:
      return kernels::Element::kBF16;
    case plan::DType::kF32:
      return kernels::Element::kF32;
    case plan::DType::kF64:
      return kernels::Element::kF64;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "a kernel cannot take elements of ", plan::DTypeName(dtype)));
  }
}

absl::StatusOr<kernels::Operand> OperandOf(const plan::Plan& plan,
                                           const Memory& memory,
                                           uint32_t index) {
  const plan::Value& value = plan.values[index];
  if (!plan::IsDense(value))
    return absl::UnimplementedError(
        "a kernel needs its tensors dense, and one of them has gaps");
  absl::StatusOr<kernels::Element> element = ElementOf(value.dtype);
  if (!element.ok()) return element.status();
  return kernels::Operand{memory.Address(index), *element,
                          plan::ElementCount(value)};
}

class HostKernelStep final : public PreparedStep {
 public:
  HostKernelStep(kernels::Launch launch, KernelCall call)
      : launch_(launch), call_(std::move(call)) {}

  absl::Status Execute(const RunContext& context, device::Stream*) override {
    if (absl::Status status = SetRuntimeScalars(context, call_); !status.ok())
      return status;
    return launch_(call_.call);
  }

 private:
  kernels::Launch launch_;
  KernelCall call_;
};

class HostKernelHandler final : public StepHandler {
 public:
  absl::StatusOr<std::unique_ptr<PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section&, const plan::Step& step,
      const Memory& memory) override {
    const kernels::Kernel* kernel = kernels::Find(step.name);
    if (kernel == nullptr || kernel->host == nullptr)
      return absl::UnimplementedError(
          absl::StrCat("this runtime has no host kernel '", step.name,
                       "'; it has ", kernels::KnownNames()));
    absl::StatusOr<KernelCall> call =
        ReadKernelCall(step, [&](const std::string&, uint32_t value) {
          return OperandOf(plan, memory, value);
        });
    if (!call.ok()) return call.status();
    return std::unique_ptr<PreparedStep>(
        new HostKernelStep(kernel->host, *std::move(call)));
  }
};

}  // namespace

std::shared_ptr<StepHandler> CreateHostKernelHandler() {
  return std::make_shared<HostKernelHandler>();
}

}  // namespace heddle::exec
