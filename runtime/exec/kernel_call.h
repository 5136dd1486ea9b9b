// A plan's kernel step -> a Call of the registry. Invariant: the kernel sees
// exactly the addresses, sizes and strides of the plan's values. A result that
// a kernel updates in place must lie where its argument lies, or the old value
// would be taken for the new one.

#ifndef HEDDLE_RUNTIME_EXEC_KERNEL_CALL_H_
#define HEDDLE_RUNTIME_EXEC_KERNEL_CALL_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/registry.h"
#include "runtime/exec/handler.h"
#include "runtime/exec/memory.h"
#include "runtime/plan/plan.h"

namespace heddle::exec {

struct KernelCall {
  kernels::Call call;
  // Argument -> the run-time scalar that it is.
  std::map<std::string, std::string> runtime;

  // Writes the run's scalars into the call.
  [[nodiscard]] absl::Status FillIn(const RunContext& context);
};

enum class Gaps { kAllowed, kRefused };

// Names, addresses and constants of `step`; a result that nobody reads has no
// address. `gaps`: whether tensors may leave elements of their storage out.
absl::StatusOr<KernelCall> ReadKernelCall(const plan::Plan& plan,
                                          const plan::Step& step,
                                          const Memory& memory, Gaps gaps);

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_KERNEL_CALL_H_
