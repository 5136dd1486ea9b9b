// Shapes, strides and aliasing of one operator's results, from meta tensors.
#ifndef HEDDLE_CAPTURE_INFER_H_
#define HEDDLE_CAPTURE_INFER_H_

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace heddle::capture {

// Replaces the arguments on `stack` (tensors on meta) by the results of `op`. Functions of our own come first, for operators that have a meta kernel
// only in Python; then the operator's meta or fake kernel. Raises c10::Error where there is none.
// `cpu`: the target, whose kernels decide dtypes and strides of some results.
void InferOnMeta(const c10::OperatorHandle& op, bool cpu, torch::jit::Stack* stack);

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_INFER_H_
