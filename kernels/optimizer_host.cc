// Host references of the optimizer kernels: accumulate, grad_norm, adamw, cast.
// Arithmetic is in the type of the first named tensor, one rounding an
// operation and no fused multiply-add, in the order of
// torch.optim.AdamW(foreach=False). ATen's vector loops fuse some of these, so
// a CPU plan's update goes through ATen (runtime/torch), and these loops are
// what device kernels are compared with.

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/elements.h"
#include "kernels/registry.h"

namespace heddle::kernels {
namespace {

absl::Status Missing(const char* kernel, const char* what) {
  return absl::InvalidArgumentError(
      absl::StrCat("kernel ", kernel, " needs ", what));
}

const Operand* Tensor(const Call& call, const char* name) {
  const auto it = call.tensors.find(name);
  return it == call.tensors.end() || it->second.size() != 1 ? nullptr
                                                            : &it->second[0];
}

double Scalar(const Call& call, const char* name, double otherwise) {
  const auto it = call.scalars.find(name);
  return it == call.scalars.end() ? otherwise : it->second;
}

absl::Status Accumulate(const Call& call) {
  const Operand* dst = Tensor(call, "dst");
  const Operand* src = Tensor(call, "src");
  if (dst == nullptr || src == nullptr || dst->count != src->count)
    return Missing("accumulate", "dst and src of one size");
  const bool first = Scalar(call, "first", 0) != 0;
  for (int64_t i = 0; i < dst->count; ++i) {
    const double value = Load(*src, i);
    if (first) {
      Store(*dst, i, value);
    } else if (dst->element == Element::kF64) {
      Store(*dst, i, Load(*dst, i) + value);
    } else {
      // The source is rounded to the accumulator's type, then the sum is.
      Store(*dst, i,
            static_cast<double>(static_cast<float>(Load(*dst, i)) +
                                static_cast<float>(value)));
    }
  }
  return absl::OkStatus();
}

absl::Status Cast(const Call& call) {
  const Operand* src = Tensor(call, "src");
  if (src == nullptr || call.results.size() != 1 ||
      call.results[0].count != src->count)
    return Missing("cast", "src and one result of its size");
  for (int64_t i = 0; i < src->count; ++i)
    Store(call.results[0], i, Load(*src, i));
  return absl::OkStatus();
}

absl::Status GradNorm(const Call& call) {
  const auto grads = call.tensors.find("grads");
  if (grads == call.tensors.end() || grads->second.empty() ||
      call.results.size() != 3)
    return Missing("grad_norm", "grads and three results");
  // Sums in double whatever the type: the reference has no rounding of its own
  // to speak of.
  double total = 0;
  for (const Operand& grad : grads->second) {
    double sum = 0;
    for (int64_t i = 0; i < grad.count; ++i)
      sum += Load(grad, i) * Load(grad, i);
    total += sum;
  }
  const double norm = std::sqrt(total) / Scalar(call, "divisor", 1);
  const double max_norm = Scalar(call, "max_norm", 0);
  Store(call.results[0], 0, norm);
  Store(call.results[1], 0,
        max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0);
  Store(call.results[2], 0, std::isfinite(norm));
  return absl::OkStatus();
}

template <typename T>
void AdamWLoop(const Call& call, const Operand& param, const Operand& grad,
               const Operand& exp_avg, const Operand& exp_avg_sq,
               double factor) {
  const double lr = Scalar(call, "lr", 0) * Scalar(call, "lr_scale", 1);
  const double beta1 = Scalar(call, "beta1", 0.9),
               beta2 = Scalar(call, "beta2", 0.999);
  const double weight_decay = Scalar(call, "weight_decay", 0),
               step = Scalar(call, "step", 1),
               divisor = Scalar(call, "divisor", 1);
  const T decay = static_cast<T>(1 - lr * weight_decay),
          weight = static_cast<T>(1 - beta1), b2 = static_cast<T>(beta2),
          one_b2 = static_cast<T>(1 - beta2);
  const T eps = static_cast<T>(Scalar(call, "eps", 1e-8));
  const T root = static_cast<T>(std::sqrt(1 - std::pow(beta2, step)));
  const T size = static_cast<T>(-(lr / (1 - std::pow(beta1, step))));
  for (int64_t i = 0; i < param.count; ++i) {
    T p = static_cast<T>(Load(param, i));
    T g = static_cast<T>(Load(grad, i));
    T m = static_cast<T>(Load(exp_avg, i));
    T v = static_cast<T>(Load(exp_avg_sq, i));
    if (divisor != 1) g = g / static_cast<T>(divisor);
    if (factor != 1) g = g * static_cast<T>(factor);
    if (weight_decay != 0) p = p * decay;
    m = std::abs(weight) < T(0.5) ? m + weight * (g - m)
                                  : g - (g - m) * (1 - weight);
    v = v * b2;
    v = v + one_b2 * g * g;
    const T denom = std::sqrt(v) / root + eps;
    p = p + size * (m / denom);
    Store(param, i, p);
    Store(exp_avg, i, m);
    Store(exp_avg_sq, i, v);
  }
}

absl::Status AdamW(const Call& call) {
  const Operand* param = Tensor(call, "param");
  const Operand* grad = Tensor(call, "grad");
  const Operand* exp_avg = Tensor(call, "exp_avg");
  const Operand* exp_avg_sq = Tensor(call, "exp_avg_sq");
  if (param == nullptr || grad == nullptr || exp_avg == nullptr ||
      exp_avg_sq == nullptr)
    return Missing("adamw", "param, grad, exp_avg and exp_avg_sq");
  if (grad->count != param->count || exp_avg->count != param->count ||
      exp_avg_sq->count != param->count)
    return Missing("adamw", "tensors of one size");
  if (const Operand* finite = Tensor(call, "finite");
      finite != nullptr && Load(*finite, 0) == 0)
    return absl::OkStatus();
  const Operand* factor = Tensor(call, "factor");
  const double f = factor == nullptr ? 1 : Load(*factor, 0);
  if (param->element == Element::kF64) {
    AdamWLoop<double>(call, *param, *grad, *exp_avg, *exp_avg_sq, f);
  } else {
    AdamWLoop<float>(call, *param, *grad, *exp_avg, *exp_avg_sq, f);
  }
  return absl::OkStatus();
}

const Registration kAccumulate("accumulate", &Accumulate, nullptr);
const Registration kCast("cast", &Cast, nullptr);
const Registration kGradNorm("grad_norm", &GradNorm, nullptr);
const Registration kAdamW("adamw", &AdamW, nullptr);

}  // namespace
}  // namespace heddle::kernels
