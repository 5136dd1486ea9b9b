// A plan's kernel step -> a Call of the registry: the same for every target.
// What an operand is (memory's address, a tensor) is the caller's to say.

#ifndef HEDDLE_RUNTIME_EXEC_KERNEL_CALL_H_
#define HEDDLE_RUNTIME_EXEC_KERNEL_CALL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/registry.h"
#include "runtime/exec/handler.h"
#include "runtime/plan/plan.h"

namespace heddle::exec {

struct KernelCall {
  kernels::Call call;
  // Argument -> the run-time scalar that it is.
  std::map<std::string, std::string> runtime;
};

// The operand that value `value` of the plan is; `name` says which argument or
// result, for messages.
using OperandReader = std::function<absl::StatusOr<kernels::Operand>(
    const std::string& name, uint32_t value)>;

// A result that nobody reads is an operand without data.
absl::StatusOr<KernelCall> ReadKernelCall(const plan::Step& step,
                                          const OperandReader& operand);

// The scalars of one run.
absl::Status SetRuntimeScalars(const RunContext& context, KernelCall& call);

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_KERNEL_CALL_H_
