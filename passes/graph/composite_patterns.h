// What RMSNorm, rotary embedding, SwiGLU and cross entropy look like in a
// captured step.
#ifndef HEDDLE_PASSES_GRAPH_COMPOSITE_PATTERNS_H_
#define HEDDLE_PASSES_GRAPH_COMPOSITE_PATTERNS_H_

#include "ir/graph/GraphOps.h"
#include "llvm/ADT/SetVector.h"

namespace heddle::graph {

// Ops that together are one function.
struct Composite {
  std::string kind;
  llvm::SetVector<mlir::Operation*> ops;
  // Gives the function its result, and the composite its location and node.
  mlir::Operation* anchor = nullptr;
};

// The forward functions of a step, recomputed ones included, in program order.
// No op is in two of them.
std::vector<Composite> findForwardComposites(mlir::Block& body);

// The backward functions of `forward`, each at its forward function's index;
// empty `ops` where there is none.
std::vector<Composite> findBackwardComposites(
    mlir::Block& body, llvm::ArrayRef<Composite> forward);

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_GRAPH_COMPOSITE_PATTERNS_H_
