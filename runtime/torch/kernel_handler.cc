// The kernel and copy steps of a plan; kernels that are not written out here
// run from the registry (registry_step.h). The update must round as
// torch.optim.AdamW does, and ATen's vector loops fuse some multiply-adds and
// not others (and differ between a loop's body and its tail), so the arithmetic
// is ATen's own in-place operators in torch's order; temporaries come from the
// workspace.

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/registry.h"
#include "runtime/torch/handlers.h"
#include "runtime/torch/registry_step.h"

namespace heddle::torch_runtime {
namespace {

// A kernel's arguments by name.
class Args {
 public:
  static absl::StatusOr<Args> Create(const plan::Step& step,
                                     TensorTable& tensors) {
    Args args;
    for (const plan::Arg& arg : step.args) {
      Entry& entry = args.entries_[arg.name];
      entry.arg = &arg;
      if (arg.kind == plan::ArgKind::kValue)
        entry.tensors.push_back(tensors.at(static_cast<uint32_t>(arg.i)));
      if (arg.kind != plan::ArgKind::kValueList) continue;
      for (int64_t v : arg.ints) {
        if (v < 0)
          return absl::InvalidArgumentError(absl::StrCat(
              "kernel argument '", arg.name, "' has an absent tensor"));
        entry.tensors.push_back(tensors.at(static_cast<uint32_t>(v)));
      }
    }
    for (int32_t value : step.results) {
      args.results.push_back(
          value < 0 ? at::Tensor()
                    : tensors.at(static_cast<uint32_t>(
                          value)));  // a result that nobody reads is dropped
    }
    return args;
  }
  absl::Status Require(std::initializer_list<const char*> names,
                       size_t result_count) const {
    for (const char* name : names) {
      if (entries_.count(name) == 0)
        return absl::InvalidArgumentError(
            absl::StrCat("kernel argument '", name, "' is missing"));
    }
    if (results.size() != result_count)
      return absl::InvalidArgumentError(
          absl::StrCat("the kernel has ", result_count,
                       " results and the plan gives ", results.size()));
    return absl::OkStatus();
  }
  // Whether `name` is exactly one tensor.
  bool Has(const char* name) const {
    const auto it = entries_.find(name);
    return it != entries_.end() && it->second.tensors.size() == 1;
  }
  const at::Tensor& Tensor(const char* name) const {
    return entries_.at(name).tensors[0];
  }
  const std::vector<at::Tensor>& Tensors(const char* name) const {
    return entries_.at(name).tensors;
  }
  absl::StatusOr<double> Number(const char* name, double otherwise,
                                const exec::RunContext& context) const {
    const auto it = entries_.find(name);
    if (it == entries_.end()) return otherwise;
    const plan::Arg& arg = *it->second.arg;
    switch (arg.kind) {
      case plan::ArgKind::kFloat:
        return arg.f;
      case plan::ArgKind::kInt:
      case plan::ArgKind::kBool:
        return static_cast<double>(arg.i);
      case plan::ArgKind::kRuntime:
        return exec::RuntimeScalar(context, arg.s);
      default:
        return absl::InvalidArgumentError(
            absl::StrCat("kernel argument '", name, "' is not a number"));
    }
  }

  std::vector<at::Tensor> results;

 private:
  struct Entry {
    const plan::Arg* arg = nullptr;
    std::vector<at::Tensor> tensors;
  };
  std::map<std::string, Entry> entries_;
};

using Kernel = absl::Status (*)(const Args&, const exec::RunContext&,
                                device::Stream* stream);

absl::Status Accumulate(const Args& args, const exec::RunContext& context,
                        device::Stream*) {
  const at::Tensor& dst = args.Tensor("dst");
  const at::Tensor& src = args.Tensor("src");
  absl::StatusOr<double> first = args.Number("first", 0, context);
  if (!first.ok()) return first.status();
  if (*first != 0) {
    dst.copy_(src);
  } else {
    dst.add_(src);
  }
  return absl::OkStatus();
}

// torch.nn.utils.clip_grad_norm_'s arithmetic, the sum over parameters in the
// order of the list.
absl::Status GradNorm(const Args& args, const exec::RunContext& context,
                      device::Stream*) {
  absl::StatusOr<double> divisor = args.Number("divisor", 1, context);
  absl::StatusOr<double> max_norm = args.Number("max_norm", 0, context);
  if (!divisor.ok()) return divisor.status();
  if (!max_norm.ok()) return max_norm.status();
  const std::vector<at::Tensor>& grads = args.Tensors("grads");
  if (grads.empty())
    return absl::InvalidArgumentError("kernel argument 'grads' is empty");
  const at::ScalarType type =
      grads[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<at::Tensor> norms;
  for (const at::Tensor& grad : grads)
    norms.push_back(at::linalg_vector_norm(grad, 2, {}, false, type));
  at::Tensor norm = at::linalg_vector_norm(at::stack(norms), 2);
  if (*divisor != 1) norm = norm.div(*divisor);
  if (args.results[0].defined()) args.results[0].copy_(norm);
  if (args.results[1].defined()) {
    if (*max_norm > 0) {
      args.results[1].copy_(
          norm.add(1e-6).reciprocal().mul(*max_norm).clamp_max(1.0));
    } else {
      args.results[1].fill_(1);
    }
  }
  if (args.results[2].defined())
    args.results[2].copy_(
        norm.abs().lt(std::numeric_limits<double>::infinity()));
  return absl::OkStatus();
}

// Hands a registered device kernel its operands. It walks them in memory order,
// so they must be dense and alike.
absl::Status LaunchOnDevice(const char* name, const Args& args,
                            std::initializer_list<const char*> tensors,
                            kernels::Call call) {
  const kernels::Kernel* kernel = kernels::Find(name);
  if (kernel == nullptr || kernel->device == nullptr)
    return absl::UnimplementedError(absl::StrCat(
        "kernel ", name,
        " has no device code in this build; build with the CUDA toolkit"));
  const at::Tensor& first = args.Tensor(*tensors.begin());
  for (const char* tensor_name : tensors) {
    if (!args.Has(tensor_name)) continue;
    const at::Tensor& tensor = args.Tensor(tensor_name);
    kernels::Operand operand{tensor.data_ptr(), kernels::Element::kF32,
                             tensor.numel()};
    switch (tensor.scalar_type()) {
      case at::kBool:
        operand.element = kernels::Element::kBool;
        break;
      case at::kHalf:
        operand.element = kernels::Element::kF16;
        break;
      case at::kBFloat16:
        operand.element = kernels::Element::kBF16;
        break;
      case at::kFloat:
        break;
      case at::kDouble:
        operand.element = kernels::Element::kF64;
        break;
      default:
        return absl::InvalidArgumentError(
            absl::StrCat("kernel ", name, " cannot take ", tensor_name,
                         " of type ", c10::toString(tensor.scalar_type())));
    }
    if (tensor.dim() > 0 && (tensor.sizes() != first.sizes() ||
                             tensor.strides() != first.strides() ||
                             !tensor.is_non_overlapping_and_dense()))
      return absl::UnimplementedError(
          absl::StrCat("kernel ", name, " needs ", tensor_name,
                       " dense and laid out as ", *tensors.begin()));
    call.tensors[tensor_name] = {operand};
  }
  return kernel->device(call);
}

absl::Status AdamW(const Args& args, const exec::RunContext& context,
                   device::Stream* stream) {
  double lr, step, divisor, beta1, beta2, eps, weight_decay, lr_scale;
  const double kMissing = std::numeric_limits<double>::quiet_NaN();
  for (const auto& [name, to, otherwise] :
       {std::tuple<const char*, double*, double>{"lr", &lr, kMissing},
        {"step", &step, kMissing},
        {"divisor", &divisor, 1},
        {"beta1", &beta1, kMissing},
        {"beta2", &beta2, kMissing},
        {"eps", &eps, kMissing},
        {"weight_decay", &weight_decay, kMissing},
        {"lr_scale", &lr_scale, 1}}) {
    absl::StatusOr<double> value = args.Number(name, otherwise, context);
    if (!value.ok()) return value.status();
    *to = *value;
  }
  if (args.Tensor("param").is_cuda()) {
    kernels::Call call;
    call.scalars = {{"lr", lr},
                    {"step", step},
                    {"divisor", divisor},
                    {"beta1", beta1},
                    {"beta2", beta2},
                    {"eps", eps},
                    {"weight_decay", weight_decay},
                    {"lr_scale", lr_scale}};
    call.stream = stream->native();
    return LaunchOnDevice(
        "adamw", args,
        {"param", "grad", "exp_avg", "exp_avg_sq", "factor", "finite"},
        std::move(call));
  }
  if (args.Has("finite") && !args.Tensor("finite").item<bool>())
    return absl::OkStatus();
  lr *= lr_scale;
  const at::Tensor& param = args.Tensor("param");
  const at::ScalarType type = param.scalar_type();
  at::Tensor grad = args.Tensor("grad").to(type);
  if (divisor != 1) grad = grad.div(divisor);
  if (args.Has("factor") && args.Tensor("factor").item<double>() != 1)
    grad = grad.mul(args.Tensor("factor"));
  // Moments of the parameter's own type are updated in place; others in a copy
  // that is rounded back.
  const at::Tensor exp_avg = args.Tensor("exp_avg").to(type);
  const at::Tensor exp_avg_sq = args.Tensor("exp_avg_sq").to(type);
  if (weight_decay != 0) param.mul_(1 - lr * weight_decay);
  exp_avg.lerp_(grad, 1 - beta1);
  exp_avg_sq.mul_(beta2).addcmul_(grad, grad, 1 - beta2);
  const double bias_correction1 = 1 - std::pow(beta1, step);
  const double bias_correction2 = 1 - std::pow(beta2, step);
  const double step_size = lr / bias_correction1;
  const at::Tensor denom =
      exp_avg_sq.sqrt().div(std::pow(bias_correction2, 0.5)).add_(eps);
  param.addcdiv_(exp_avg, denom, -step_size);
  if (!exp_avg.is_same(args.Tensor("exp_avg")))
    args.Tensor("exp_avg").copy_(exp_avg);
  if (!exp_avg_sq.is_same(args.Tensor("exp_avg_sq")))
    args.Tensor("exp_avg_sq").copy_(exp_avg_sq);
  return absl::OkStatus();
}

class KernelStep final : public exec::PreparedStep {
 public:
  KernelStep(std::shared_ptr<Shared> shared, Args args, Kernel kernel)
      : shared_(std::move(shared)), args_(std::move(args)), kernel_(kernel) {}
  absl::Status Execute(const exec::RunContext& context,
                       device::Stream* stream) override {
    return RunScoped(*shared_, learned_, stream, [&](Scope& scope, bool first) {
      absl::Status status = kernel_(args_, context, stream);
      if (first) learned_.workspace_bytes = scope.PeakWithout({});
      return status;
    });
  }

 private:
  std::shared_ptr<Shared> shared_;
  Args args_;
  Kernel kernel_;
  Learned learned_;
};

struct KernelEntry {
  const char* name;
  Kernel kernel;
  std::initializer_list<const char*> required;
  size_t results;
};

class KernelHandler final : public exec::StepHandler {
 public:
  explicit KernelHandler(std::shared_ptr<Shared> shared)
      : shared_(std::move(shared)) {}
  absl::StatusOr<std::unique_ptr<exec::PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section& section,
      const plan::Step& step, const exec::Memory& memory) override {
    static const KernelEntry kKernels[] = {
        {"accumulate", &Accumulate, {"dst", "src", "first"}, 1},
        {"grad_norm", &GradNorm, {"grads"}, 3},
        {"adamw",
         &AdamW,
         {"param", "grad", "exp_avg", "exp_avg_sq", "lr", "step", "beta1",
          "beta2", "eps", "weight_decay"},
         3},
    };
    for (const KernelEntry& entry : kKernels) {
      if (step.name != entry.name) continue;
      absl::StatusOr<Args> args =
          Args::Create(step, shared_->tensors(plan, memory));
      if (!args.ok()) return args.status();
      if (absl::Status status = args->Require(entry.required, entry.results);
          !status.ok())
        return status;
      for (const char* name : entry.required) {
        const plan::Arg& arg =
            *std::find_if(step.args.begin(), step.args.end(),
                          [&](const plan::Arg& a) { return a.name == name; });
        const bool tensor =
            std::string(name) == "param" || std::string(name) == "grad" ||
            std::string(name).rfind("exp_", 0) == 0 ||
            std::string(name) == "dst" || std::string(name) == "src";
        if (tensor && arg.kind != plan::ArgKind::kValue)
          return absl::InvalidArgumentError(
              absl::StrCat("kernel argument '", name, "' must be one value"));
      }
      return std::unique_ptr<exec::PreparedStep>(
          new KernelStep(shared_, *std::move(args), entry.kernel));
    }
    return PrepareRegistryStep(shared_, plan, section, step, memory);
  }

 private:
  std::shared_ptr<Shared> shared_;
};

class CopyStep final : public exec::PreparedStep {
 public:
  CopyStep(std::shared_ptr<Shared> shared, at::Tensor from, at::Tensor to)
      : shared_(std::move(shared)),
        from_(std::move(from)),
        to_(std::move(to)) {}
  absl::Status Execute(const exec::RunContext&,
                       device::Stream* stream) override {
    return RunScoped(*shared_, learned_, stream, [&](Scope& scope, bool first) {
      to_.copy_(from_);
      if (first) learned_.workspace_bytes = scope.PeakWithout({});
      return absl::OkStatus();
    });
  }

 private:
  std::shared_ptr<Shared> shared_;
  at::Tensor from_;
  at::Tensor to_;
  Learned learned_;
};

class CopyHandler final : public exec::StepHandler {
 public:
  explicit CopyHandler(std::shared_ptr<Shared> shared)
      : shared_(std::move(shared)) {}
  absl::StatusOr<std::unique_ptr<exec::PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section&, const plan::Step& step,
      const exec::Memory& memory) override {
    if (step.args.size() != 1 || step.args[0].kind != plan::ArgKind::kValue ||
        step.results.size() != 1 || step.results[0] < 0)
      return absl::InvalidArgumentError("a copy takes one value and gives one");
    TensorTable& tensors = shared_->tensors(plan, memory);
    const at::Tensor& from = tensors.at(static_cast<uint32_t>(step.args[0].i));
    const at::Tensor& to = tensors.at(static_cast<uint32_t>(step.results[0]));
    if (from.sizes() != to.sizes())
      return absl::InvalidArgumentError(
          "a copy's source and destination have different sizes");
    return std::unique_ptr<exec::PreparedStep>(new CopyStep(shared_, from, to));
  }

 private:
  std::shared_ptr<Shared> shared_;
};

}  // namespace

std::shared_ptr<exec::StepHandler> CreateKernelHandler(
    std::shared_ptr<Shared> shared) {
  return std::make_shared<KernelHandler>(std::move(shared));
}
std::shared_ptr<exec::StepHandler> CreateCopyHandler(
    std::shared_ptr<Shared> shared) {
  return std::make_shared<CopyHandler>(std::move(shared));
}

}  // namespace heddle::torch_runtime
