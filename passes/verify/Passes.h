// Constructors and registration of the verify passes; Passes.td lists their
// rules.
#ifndef HEDDLE_PASSES_VERIFY_PASSES_H_
#define HEDDLE_PASSES_VERIFY_PASSES_H_

#include <memory>

#include "ir/graph/GraphOps.h"
#include "mlir/Pass/Pass.h"

namespace heddle::graph {

#define GEN_PASS_DECL
#include "passes/verify/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "passes/verify/Passes.h.inc"

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_VERIFY_PASSES_H_
