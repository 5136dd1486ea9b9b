// Each function is the device test of PyTorch's composite, made on the target;
// the other branch is PyTorch's own code. What would break it: a torch whose
// composites test something else; heddle.check compares with eager on the
// target.
#include "capture/composites.h"

#include <ATen/ops/_log_softmax.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/dropout_native.h>
#include <ATen/ops/log_softmax_native.h>
#include <ATen/ops/native_dropout.h>
#include <ATen/ops/one_hot_native.h>
#include <ATen/ops/softmax_native.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "capture/session.h"

namespace heddle::capture {
namespace {

bool ForCuda() {
  const Session* session = Session::Current();
  return session != nullptr && session->target() == "cuda";
}

bool WidensInKernel(const at::Tensor& input,
                    std::optional<at::ScalarType> dtype) {
  return ForCuda() && input.scalar_type() == at::kHalf && dtype == at::kFloat;
}

}  // namespace

at::Tensor Dropout(const at::Tensor& input, double p, bool train) {
  if (ForCuda() && train && p > 0 && p < 1 && input.numel() > 0)
    return std::get<0>(at::native_dropout(input, p, train));
  return at::native::dropout(input, p, train);
}

at::Tensor Softmax(const at::Tensor& input, int64_t dim,
                   std::optional<at::ScalarType> dtype) {
  return WidensInKernel(input, dtype) ? at::_softmax(input, dim, true)
                                      : at::native::softmax(input, dim, dtype);
}

at::Tensor LogSoftmax(const at::Tensor& input, int64_t dim,
                      std::optional<at::ScalarType> dtype) {
  return WidensInKernel(input, dtype)
             ? at::_log_softmax(input, dim, true)
             : at::native::log_softmax(input, dim, dtype);
}

at::Tensor OneHot(const at::Tensor& classes, int64_t num_classes) {
  if (num_classes <= 0 || classes.scalar_type() != at::kLong ||
      classes.numel() == 0)
    return at::native::one_hot(classes, num_classes);
  std::vector<int64_t> sizes = classes.sizes().vec();
  sizes.push_back(num_classes);
  return at::zeros(sizes, classes.options())
      .scatter_(-1, classes.unsqueeze(-1), 1);
}

void RmsNorm(const c10::OperatorHandle& op, c10::DispatchKeySet,
             torch::jit::Stack* stack) {
  constexpr auto kDecomposition = c10::DispatchKey::CompositeImplicitAutograd;
  if (ForCuda()) {
    op.callBoxedForDispatchKey(kDecomposition, *stack);
    return;
  }
  // Where the fused operator has no kernel it is this decomposition, whose
  // second result only its own backward wants.
  c10::Dispatcher::singleton()
      .findSchemaOrThrow("aten::_fused_rms_norm", "")
      .callBoxedForDispatchKey(kDecomposition, *stack);
  stack->pop_back();
}

}  // namespace heddle::capture
