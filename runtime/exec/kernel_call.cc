// Arguments by kind, results in order.

#include "runtime/exec/kernel_call.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace heddle::exec {

absl::StatusOr<KernelCall> ReadKernelCall(const plan::Step& step,
                                          const OperandReader& operand) {
  KernelCall read;
  kernels::Call& call = read.call;
  const auto add = [&](const std::string& name, int64_t value) {
    if (value < 0)
      return absl::InvalidArgumentError(
          absl::StrCat("kernel argument '", name, "' has an absent tensor"));
    absl::StatusOr<kernels::Operand> one =
        operand(name, static_cast<uint32_t>(value));
    if (one.ok()) call.tensors[name].push_back(*std::move(one));
    return one.status();
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
        read.runtime[arg.name] = arg.s;
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
    if (step.results[i] < 0) continue;
    absl::StatusOr<kernels::Operand> one = operand(
        absl::StrCat("result ", i), static_cast<uint32_t>(step.results[i]));
    if (!one.ok()) return one.status();
    call.results[i] = *std::move(one);
  }
  return read;
}

absl::Status SetRuntimeScalars(const RunContext& context, KernelCall& call) {
  for (const auto& [argument, scalar] : call.runtime) {
    absl::StatusOr<double> value = RuntimeScalar(context, scalar);
    if (!value.ok()) return value.status();
    call.call.scalars[argument] = *value;
  }
  return absl::OkStatus();
}

}  // namespace heddle::exec
