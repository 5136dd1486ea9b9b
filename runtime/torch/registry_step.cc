// Operands are row-major and dense, whatever the kernel; a result that a kernel
// updates in place must lie where its argument lies, or the old value would be
// taken for the new one.

#include "runtime/torch/registry_step.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/registry.h"

namespace heddle::torch_runtime {
namespace {

// The list that a kernel's first results are new values of.
const char* InPlaceList(const std::string& kernel) {
  if (kernel == "muon_momentum") return "momenta";
  if (kernel == "muon_apply") return "params";
  return nullptr;
}

absl::StatusOr<kernels::Operand> OperandOf(const at::Tensor& tensor,
                                           const std::string& kernel,
                                           const std::string& name) {
  kernels::Operand operand;
  switch (tensor.scalar_type()) {
    case at::kBool:
      operand.element = kernels::Element::kBool;
      break;
    case at::kLong:
      operand.element = kernels::Element::kI64;
      break;
    case at::kHalf:
      operand.element = kernels::Element::kF16;
      break;
    case at::kBFloat16:
      operand.element = kernels::Element::kBF16;
      break;
    case at::kFloat:
      operand.element = kernels::Element::kF32;
      break;
    case at::kDouble:
      operand.element = kernels::Element::kF64;
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("kernel ", kernel, " cannot take ", name, " of type ",
                       c10::toString(tensor.scalar_type())));
  }
  if (!tensor.is_contiguous())
    return absl::UnimplementedError(absl::StrCat("kernel ", kernel, " needs ",
                                                 name, " dense and row-major"));
  operand.data = tensor.data_ptr();
  operand.count = tensor.numel();
  operand.sizes = tensor.sizes().vec();
  return operand;
}

class RegistryStep final : public exec::PreparedStep {
 public:
  RegistryStep(std::shared_ptr<Shared> shared, const kernels::Kernel* kernel,
               std::string name)
      : shared_(std::move(shared)), kernel_(kernel), name_(std::move(name)) {}

  absl::Status Read(const plan::Step& step, TensorTable& table) {
    for (const plan::Arg& arg : step.args) {
      switch (arg.kind) {
        case plan::ArgKind::kNone:
          break;
        case plan::ArgKind::kValue:
          tensors_[arg.name] = {table.at(static_cast<uint32_t>(arg.i))};
          break;
        case plan::ArgKind::kValueList:
          tensors_[arg.name] = {};
          for (int64_t value : arg.ints) {
            if (value < 0)
              return Wrong(absl::StrCat("argument '", arg.name,
                                        "' has an absent tensor"));
            tensors_[arg.name].push_back(
                table.at(static_cast<uint32_t>(value)));
          }
          break;
        case plan::ArgKind::kInt:
        case plan::ArgKind::kBool:
          call_.scalars[arg.name] = static_cast<double>(arg.i);
          break;
        case plan::ArgKind::kFloat:
          call_.scalars[arg.name] = arg.f;
          break;
        case plan::ArgKind::kString:
          call_.strings[arg.name] = arg.s;
          break;
        case plan::ArgKind::kFloatList:
          call_.lists[arg.name] = arg.floats;
          break;
        case plan::ArgKind::kIntList:
          call_.ints[arg.name] = arg.ints;
          break;
        case plan::ArgKind::kRuntime:
          runtime_[arg.name] = arg.s;
          break;
        default:
          return Wrong(absl::StrCat("argument '", arg.name,
                                    "' is of a kind that no kernel takes"));
      }
    }
    for (int32_t value : step.results)
      results_.push_back(value < 0 ? at::Tensor()
                                   : table.at(static_cast<uint32_t>(value)));
    return absl::OkStatus();
  }

  absl::Status Execute(const exec::RunContext& context,
                       device::Stream* stream) override {
    // A rank that has none of a step's tensors has nothing to do.
    if (results_.empty()) return absl::OkStatus();
    kernels::Call call = call_;
    if (absl::Status status = Bind(context, call); !status.ok()) return status;
    const bool on_device = shared_->device.is_cuda();
    const kernels::Launch launch = on_device ? kernel_->device : kernel_->host;
    if (launch == nullptr)
      return absl::UnimplementedError(
          absl::StrCat("kernel ", name_, " has no ",
                       on_device ? "device" : "host", " code in this build",
                       on_device ? "; build with the CUDA toolkit" : ""));
    return RunScoped(*shared_, learned_, stream, [&](Scope& scope, bool first) {
      at::Tensor workspace;
      if (on_device) {
        call.stream = stream->native();
        if (kernel_->workspace != nullptr) {
          absl::StatusOr<int64_t> bytes = kernel_->workspace(call);
          if (!bytes.ok()) return bytes.status();
          workspace = at::empty(
              {*bytes}, at::TensorOptions(at::kByte).device(shared_->device));
          call.workspace = workspace.data_ptr();
          call.workspace_bytes = *bytes;
        }
      }
      absl::Status status = launch(call);
      if (first) learned_.workspace_bytes = scope.PeakWithout({});
      return status;
    });
  }

 private:
  absl::Status Wrong(const std::string& what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("kernel ", name_, ": ", what));
  }

  absl::Status Bind(const exec::RunContext& context,
                    kernels::Call& call) const {
    for (const auto& [name, scalar] : runtime_) {
      absl::StatusOr<double> value = exec::RuntimeScalar(context, scalar);
      if (!value.ok()) return value.status();
      call.scalars[name] = *value;
    }
    for (const auto& [name, list] : tensors_) {
      std::vector<kernels::Operand>& operands = call.tensors[name];
      for (const at::Tensor& tensor : list) {
        absl::StatusOr<kernels::Operand> operand =
            OperandOf(tensor, name_, name);
        if (!operand.ok()) return operand.status();
        operands.push_back(*std::move(operand));
      }
    }
    for (const at::Tensor& tensor : results_) {
      if (!tensor.defined()) {
        call.results.emplace_back();
        continue;
      }
      absl::StatusOr<kernels::Operand> operand =
          OperandOf(tensor, name_, "a result");
      if (!operand.ok()) return operand.status();
      call.results.push_back(*std::move(operand));
    }
    const char* list = InPlaceList(name_);
    if (list == nullptr || call.tensors.count(list) == 0)
      return absl::OkStatus();
    const std::vector<kernels::Operand>& old = call.tensors.at(list);
    for (size_t i = 0; i < old.size() && i < call.results.size(); ++i)
      if (call.results[i].data != nullptr &&
          call.results[i].data != old[i].data)
        return Wrong(absl::StrCat("result ", i, " does not lie over entry ", i,
                                  " of '", list,
                                  "', which is updated in "
                                  "place"));
    return absl::OkStatus();
  }

  std::shared_ptr<Shared> shared_;
  const kernels::Kernel* kernel_;
  const std::string name_;
  std::map<std::string, std::vector<at::Tensor>> tensors_;
  std::vector<at::Tensor> results_;
  std::map<std::string, std::string> runtime_;
  kernels::Call call_;
  Learned learned_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<exec::PreparedStep>> PrepareRegistryStep(
    std::shared_ptr<Shared> shared, const plan::Plan& plan,
    const plan::Step& step, const exec::Memory& memory) {
  const kernels::Kernel* kernel = kernels::Find(step.name);
  if (kernel == nullptr)
    return absl::NotFoundError(absl::StrCat("no kernel '", step.name, "'"));
  TensorTable& table = shared->tensors(plan, memory);
  auto prepared =
      std::make_unique<RegistryStep>(std::move(shared), kernel, step.name);
  if (absl::Status status = prepared->Read(step, table); !status.ok())
    return status;
  return std::unique_ptr<exec::PreparedStep>(std::move(prepared));
}

}  // namespace heddle::torch_runtime
