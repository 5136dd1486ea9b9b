// Composites whose decomposition PyTorch chooses by device: above autograd they
// ask the captured step's target instead of the tensor's device.
#ifndef HEDDLE_CAPTURE_COMPOSITES_H_
#define HEDDLE_CAPTURE_COMPOSITES_H_

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <optional>

namespace heddle::capture {

// aten::dropout: one fused operator with a mask on cuda, a Bernoulli draw and a
// multiplication on cpu.
at::Tensor Dropout(const at::Tensor& input, double p, bool train);

// aten::softmax.int and aten::log_softmax.int: cuda widens fp16 inside the
// kernel, everything else before it.
at::Tensor Softmax(const at::Tensor& input, int64_t dim,
                   std::optional<at::ScalarType> dtype);
at::Tensor LogSoftmax(const at::Tensor& input, int64_t dim,
                      std::optional<at::ScalarType> dtype);

// aten::one_hot: PyTorch looks at the values on cpu only to check them; an
// index outside is an error of the scatter too.
at::Tensor OneHot(const at::Tensor& classes, int64_t num_classes);

// aten::rms_norm: one fused operator on cuda, its decomposition on cpu.
void RmsNorm(const c10::OperatorHandle& op, c10::DispatchKeySet,
             torch::jit::Stack* stack);

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_COMPOSITES_H_
