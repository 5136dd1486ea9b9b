// The classes of all ATen ops with an ODS definition. Costs seconds to include:
// prefer interfaces and op_table.h.
#ifndef HEDDLE_IR_GRAPH_GRAPHATENOPS_H_
#define HEDDLE_IR_GRAPH_GRAPHATENOPS_H_

#include "ir/graph/GraphDialect.h"
#include "mlir/IR/Builders.h"

#define GET_OP_CLASSES
#include "ir/graph/GraphAtenOps.h.inc"

#endif  // HEDDLE_IR_GRAPH_GRAPHATENOPS_H_
