// graph.step, graph.return, graph.guard, graph.call, graph.view_update.
#ifndef HEDDLE_IR_GRAPH_GRAPHOPS_H_
#define HEDDLE_IR_GRAPH_GRAPHOPS_H_

#include "ir/graph/GraphDialect.h"
#include "mlir/IR/Builders.h"

#define GET_OP_CLASSES
#include "ir/graph/GraphOps.h.inc"

#endif  // HEDDLE_IR_GRAPH_GRAPHOPS_H_
