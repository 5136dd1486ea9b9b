// Operands and constants are gathered once; a run adds the scalars.

#include "runtime/exec/kernel_call.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace heddle::exec {
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

bool IsRowMajor(const plan::Value& value) {
  int64_t elements = 1;
  for (size_t d = value.sizes.size(); d-- > 0;) {
    if (value.sizes[d] == 0) return true;
    if (value.sizes[d] != 1 && value.strides[d] != elements) return false;
    elements *= value.sizes[d];
  }
  return true;
}

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
      return absl::InvalidArgumentError(
          absl::StrCat("of type ", plan::DTypeName(dtype)));
  }
}

// Reads the values of one step.
class Reader {
 public:
  Reader(const plan::Plan& plan, const plan::Step& step, const Memory& memory,
         Gaps gaps)
      : plan_(plan), step_(step), memory_(memory), gaps_(gaps) {}

  absl::StatusOr<kernels::Operand> Operand(const std::string& name,
                                           int64_t index) const {
    const plan::Value& value = plan_.values[static_cast<size_t>(index)];
    if (gaps_ == Gaps::kRefused && !plan::IsDense(value))
      return Refused(name, "dense, and it has gaps");
    if (NeedsRowMajor(step_.name) && !IsRowMajor(value))
      return Refused(name, "dense and row-major");
    absl::StatusOr<kernels::Element> element = ElementOf(value.dtype);
    if (!element.ok())
      return absl::InvalidArgumentError(
          absl::StrCat("kernel ", step_.name, " cannot take ", name, " ",
                       element.status().message()));
    kernels::Operand operand;
    operand.element = *element;
    operand.count = plan::ElementCount(value);
    operand.sizes = value.sizes;
    operand.strides = value.strides;
    if (operand.count > 0)
      operand.data = memory_.Address(static_cast<uint32_t>(index));
    return operand;
  }

  absl::Status AddTensor(const std::string& name, int64_t index,
                         kernels::Call& call) const {
    if (index < 0)
      return absl::InvalidArgumentError(
          absl::StrCat("kernel argument '", name, "' has an absent tensor"));
    absl::StatusOr<kernels::Operand> operand = Operand(name, index);
    if (!operand.ok()) return operand.status();
    call.tensors[name].push_back(*std::move(operand));
    return absl::OkStatus();
  }

 private:
  absl::Status Refused(const std::string& name, const char* needs) const {
    return absl::UnimplementedError(
        absl::StrCat("kernel ", step_.name, " needs ", name, " ", needs));
  }

  const plan::Plan& plan_;
  const plan::Step& step_;
  const Memory& memory_;
  const Gaps gaps_;
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

absl::Status KernelCall::FillIn(const RunContext& context) {
  for (const auto& [argument, scalar] : runtime) {
    absl::StatusOr<double> value = RuntimeScalar(context, scalar);
    if (!value.ok()) return value.status();
    call.scalars[argument] = *value;
  }
  return absl::OkStatus();
}

absl::StatusOr<KernelCall> ReadKernelCall(const plan::Plan& plan,
                                          const plan::Step& step,
                                          const Memory& memory, Gaps gaps) {
  const Reader reader(plan, step, memory, gaps);
  KernelCall result;
  kernels::Call& call = result.call;
  for (const plan::Arg& arg : step.args) {
    absl::Status status;
    switch (arg.kind) {
      case plan::ArgKind::kValue:
        status = reader.AddTensor(arg.name, arg.i, call);
        break;
      case plan::ArgKind::kValueList:
        call.tensors[arg.name];
        for (int64_t value : arg.ints)
          if (status.ok()) status = reader.AddTensor(arg.name, value, call);
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
        result.runtime[arg.name] = arg.s;
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
    absl::StatusOr<kernels::Operand> operand =
        reader.Operand(absl::StrCat("result ", i), step.results[i]);
    if (!operand.ok()) return operand.status();
    call.results[i] = *std::move(operand);
  }
  if (absl::Status status = CheckInPlace(step.name, call); !status.ok())
    return status;
  return result;
}

}  // namespace heddle::exec
