// Registers the device code of adamw. Constants that torch computes in double
// on the host are computed so here.

#ifdef HEDDLE_HAVE_CUDA

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/adamw_cuda.h"
#include "kernels/device_element_of.h"
#include "kernels/registry.h"

namespace heddle::kernels {
namespace {

double Scalar(const Call& call, const char* name, double otherwise) {
  const auto it = call.scalars.find(name);
  return it == call.scalars.end() ? otherwise : it->second;
}

absl::Status AdamW(const Call& call) {
  const Operand* operands[4];
  const char* const kNames[] = {"param", "grad", "exp_avg", "exp_avg_sq"};
  for (int i = 0; i < 4; ++i) {
    const auto it = call.tensors.find(kNames[i]);
    if (it == call.tensors.end() || it->second.size() != 1 ||
        DeviceElementOf(it->second[0].element) < 0)
      return absl::InvalidArgumentError(
          absl::StrCat("kernel adamw needs a floating tensor ", kNames[i]));
    operands[i] = &it->second[0];
    if (operands[i]->count != operands[0]->count)
      return absl::InvalidArgumentError(
          "kernel adamw needs tensors of one size");
  }
  AdamWDevice a{};
  a.param = operands[0]->data;
  a.grad = operands[1]->data;
  a.exp_avg = operands[2]->data;
  a.exp_avg_sq = operands[3]->data;
  a.param_element = DeviceElementOf(operands[0]->element);
  a.grad_element = DeviceElementOf(operands[1]->element);
  a.exp_avg_element = DeviceElementOf(operands[2]->element);
  a.exp_avg_sq_element = DeviceElementOf(operands[3]->element);
  if (const auto it = call.tensors.find("factor"); it != call.tensors.end()) {
    a.factor = it->second[0].data;
    a.factor_element = DeviceElementOf(it->second[0].element);
  }
  if (const auto it = call.tensors.find("finite"); it != call.tensors.end())
    a.finite = static_cast<const unsigned char*>(it->second[0].data);
  a.count = operands[0]->count;
  const double lr = Scalar(call, "lr", 0) * Scalar(call, "lr_scale", 1),
               step = Scalar(call, "step", 1);
  const double beta1 = Scalar(call, "beta1", 0.9),
               beta2 = Scalar(call, "beta2", 0.999),
               weight_decay = Scalar(call, "weight_decay", 0);
  a.has_decay = weight_decay != 0;
  a.decay = 1 - lr * weight_decay;
  a.weight1 = 1 - beta1;
  a.beta2 = beta2;
  a.weight2 = 1 - beta2;
  a.eps = Scalar(call, "eps", 1e-8);
  a.root = std::pow(1 - std::pow(beta2, step), 0.5);
  a.negative_step = -(lr / (1 - std::pow(beta1, step)));
  a.divisor = Scalar(call, "divisor", 1);
  const char* error =
      LaunchAdamW(a, operands[0]->element == Element::kF64, call.stream);
  return error == nullptr
             ? absl::OkStatus()
             : absl::InternalError(absl::StrCat("kernel adamw: ", error));
}

const DeviceRegistration kAdamW("adamw", &AdamW);

}  // namespace
}  // namespace heddle::kernels

#endif
