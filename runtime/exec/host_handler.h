// Host steps: what the CPU checks or decides between other steps.

#ifndef HEDDLE_RUNTIME_EXEC_HOST_HANDLER_H_
#define HEDDLE_RUNTIME_EXEC_HOST_HANDLER_H_

#include <memory>

#include "runtime/exec/handler.h"

namespace heddle::exec {

// "guard": args value, expected. FailedPrecondition if the value's elements are
// not the expected ones.
std::shared_ptr<StepHandler> CreateHostHandler();

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_HOST_HANDLER_H_
