// Constructors and registration of the passes over the graph dialect; Passes.td
// says what each does.
#ifndef HEDDLE_PASSES_GRAPH_PASSES_H_
#define HEDDLE_PASSES_GRAPH_PASSES_H_

#include <memory>

#include "ir/graph/GraphOps.h"
#include "mlir/Pass/Pass.h"

namespace heddle::graph {

#define GEN_PASS_DECL
#include "passes/graph/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#define GEN_PASS_REGISTRATION_GRAPH
#include "passes/graph/Passes.h.inc"

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_GRAPH_PASSES_H_
