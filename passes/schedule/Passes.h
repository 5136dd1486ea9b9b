// Declarations of the scheduling passes. Generated from Passes.td; options and
// prose are there.
#ifndef HEDDLE_PASSES_SCHEDULE_PASSES_H_
#define HEDDLE_PASSES_SCHEDULE_PASSES_H_

#include <limits>
#include <memory>

#include "ir/graph/GraphOps.h"
#include "ir/optim/OptimDialect.h"
#include "ir/sched/Sched.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace heddle {

#define GEN_PASS_DECL
#define GEN_PASS_REGISTRATION
#include "passes/schedule/Passes.h.inc"

}  // namespace heddle

#endif  // HEDDLE_PASSES_SCHEDULE_PASSES_H_
