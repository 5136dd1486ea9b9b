// Shapes, strides and aliasing of one operator's results, from meta tensors.
#ifndef HEDDLE_CAPTURE_INFER_H_
#define HEDDLE_CAPTURE_INFER_H_

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <vector>

namespace heddle::capture {

// Replaces the arguments on `stack` (tensors on meta) by the results of `op`.
// Functions of our own come first, for operators that have a meta kernel only
// in Python; then the operator's meta or fake kernel. Raises c10::Error where
// there is none. `cpu`: the target, whose kernels decide dtypes and strides of
// some results.
void InferOnMeta(const c10::OperatorHandle& op, bool cpu,
                 torch::jit::Stack* stack);

// Positions of the results in which a fused CUDA attention keeps its
// generator's state; without dropout InferOnMeta gives nothing for them,
// because the kernels leave them unset there, on the host or in a type of its
// own. Empty for every other operator.
std::vector<size_t> GeneratorStateResults(const c10::OperatorName& name);

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_INFER_H_
