// Plan arguments -> the boxed arguments of an ATen operator, checked against
// its schema.

#ifndef HEDDLE_RUNTIME_TORCH_ATEN_ARGS_H_
#define HEDDLE_RUNTIME_TORCH_ATEN_ARGS_H_

#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/plan/plan.h"
#include "runtime/torch/tensors.h"

namespace heddle::torch_runtime {

// An argument that the caller sets per run.
struct RuntimeArg {
  size_t index = 0;
  std::string scalar;
  // True if the schema wants an integer.
  bool integer = false;
};

struct BoxedArgs {
  std::vector<c10::IValue> stack;
  std::vector<RuntimeArg> runtime;
};

// InvalidArgument names the argument whose kind the schema does not take.
absl::StatusOr<BoxedArgs> BoxArgs(const c10::FunctionSchema& schema,
                                  const plan::Step& step, TensorTable& tensors,
                                  c10::Device device);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_ATEN_ARGS_H_
