// Operands and constants are gathered at Prepare; a run adds the scalars.

#include "runtime/exec/host_kernel_handler.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/registry.h"

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
                                           int64_t index) {
  // A result that nobody reads is dropped.
  if (index < 0) return kernels::Operand{};
  const plan::Value& value = plan.values[static_cast<size_t>(index)];
  if (!plan::IsDense(value))
    return absl::UnimplementedError(
        "a kernel needs its tensors dense, and one of them has gaps");
  absl::StatusOr<kernels::Element> element = ElementOf(value.dtype);
  if (!element.ok()) return element.status();
  return kernels::Operand{memory.Address(static_cast<uint32_t>(index)),
                          *element, plan::ElementCount(value)};
}

class HostKernelStep final : public PreparedStep {
 public:
  HostKernelStep(kernels::Launch launch, kernels::Call call,
                 std::vector<std::pair<std::string, std::string>> runtime)
      : launch_(launch), call_(std::move(call)), runtime_(std::move(runtime)) {}

  absl::Status Execute(const RunContext& context, device::Stream*) override {
    for (const auto& [argument, scalar] : runtime_) {
      absl::StatusOr<double> value = RuntimeScalar(context, scalar);
      if (!value.ok()) return value.status();
      call_.scalars[argument] = *value;
    }
    return launch_(call_);
  }

 private:
  kernels::Launch launch_;
  kernels::Call call_;
  std::vector<std::pair<std::string, std::string>> runtime_;
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
    kernels::Call call;
    std::vector<std::pair<std::string, std::string>> runtime;
    for (const plan::Arg& arg : step.args) {
      switch (arg.kind) {
        case plan::ArgKind::kValue:
        case plan::ArgKind::kValueList:
          for (int64_t value : arg.kind == plan::ArgKind::kValue
                                   ? std::vector<int64_t>{arg.i}
                                   : arg.ints) {
            if (value < 0)
              return absl::InvalidArgumentError(absl::StrCat(
                  "kernel argument '", arg.name, "' has an absent tensor"));
            absl::StatusOr<kernels::Operand> operand =
                OperandOf(plan, memory, value);
            if (!operand.ok()) return operand.status();
            call.tensors[arg.name].push_back(*operand);
          }
          break;
        case plan::ArgKind::kInt:
        case plan::ArgKind::kBool:
          call.scalars[arg.name] = static_cast<double>(arg.i);
          break;
        case plan::ArgKind::kFloat:
          call.scalars[arg.name] = arg.f;
          break;
        case plan::ArgKind::kIntList:
          call.ints[arg.name] = arg.ints;
          break;
        case plan::ArgKind::kRuntime:
          runtime.emplace_back(arg.name, arg.s);
          break;
        case plan::ArgKind::kNone:
          break;
        default:
          return absl::InvalidArgumentError(absl::StrCat(
              "kernel argument '", arg.name, "' is of a kind no kernel takes"));
      }
    }
    for (int32_t value : step.results) {
      absl::StatusOr<kernels::Operand> operand = OperandOf(plan, memory, value);
      if (!operand.ok()) return operand.status();
      call.results.push_back(*operand);
    }
    return std::unique_ptr<PreparedStep>(
        new HostKernelStep(kernel->host, std::move(call), std::move(runtime)));
  }
};

}  // namespace

std::shared_ptr<StepHandler> CreateHostKernelHandler() {
  return std::make_shared<HostKernelHandler>();
}

}  // namespace heddle::exec
