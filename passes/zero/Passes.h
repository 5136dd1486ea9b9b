// Constructors and registration of the data-parallel passes; Passes.td says
// what each does.
#ifndef HEDDLE_PASSES_ZERO_PASSES_H_
#define HEDDLE_PASSES_ZERO_PASSES_H_

#include <memory>

#include "ir/dist/DistDialect.h"
#include "ir/graph/GraphOps.h"
#include "ir/optim/OptimDialect.h"
#include "mlir/Pass/Pass.h"

namespace heddle::zero {

#define GEN_PASS_DECL
#include "passes/zero/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#define GEN_PASS_REGISTRATION_ZERO
#include "passes/zero/Passes.h.inc"

}  // namespace heddle::zero

#endif  // HEDDLE_PASSES_ZERO_PASSES_H_
