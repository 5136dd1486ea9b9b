// Constructors and registration of the passes that write kernels; Passes.td
// says what each does.
#ifndef HEDDLE_PASSES_FUSION_PASSES_H_
#define HEDDLE_PASSES_FUSION_PASSES_H_

#include <memory>

#include "ir/graph/GraphOps.h"
#include "ir/optim/OptimDialect.h"
#include "mlir/Pass/Pass.h"

namespace heddle::graph {

#define GEN_PASS_DECL
#include "passes/fusion/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#define GEN_PASS_REGISTRATION_FUSION
#include "passes/fusion/Passes.h.inc"

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_FUSION_PASSES_H_
