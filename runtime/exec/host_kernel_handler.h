// Kernel steps on host memory through the registry's host references. A CPU
// plan takes most of its arithmetic from ATen instead (runtime/torch); here are
// the kernels that ATen has no counterpart of, and, for tests without LibTorch,
// all of them.

#ifndef HEDDLE_RUNTIME_EXEC_HOST_KERNEL_HANDLER_H_
#define HEDDLE_RUNTIME_EXEC_HOST_KERNEL_HANDLER_H_

#include <memory>

#include "runtime/exec/handler.h"

namespace heddle::exec {

std::shared_ptr<StepHandler> CreateHostKernelHandler();

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_HOST_KERNEL_HANDLER_H_
