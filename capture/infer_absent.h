// Shape functions for operators that have a meta kernel only in Python, or a
// wrong one there, so that a process without Python can capture them.
#ifndef HEDDLE_CAPTURE_INFER_ABSENT_H_
#define HEDDLE_CAPTURE_INFER_ABSENT_H_

#include <ATen/core/operator_name.h>
#include <ATen/core/stack.h>

namespace heddle::capture {

// Replaces the arguments on `stack` (tensors on meta) by results with the
// geometry that the target's kernel gives them. False, and the stack untouched,
// where `name` is not known here.
bool InferAbsent(const c10::OperatorName& name, bool cpu,
                 torch::jit::Stack* stack);

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_INFER_ABSENT_H_
