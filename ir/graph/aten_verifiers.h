// Shape rules shared by the generated classes of one kind of operator.
#ifndef HEDDLE_IR_GRAPH_ATEN_VERIFIERS_H_
#define HEDDLE_IR_GRAPH_ATEN_VERIFIERS_H_

#include "mlir/IR/Operation.h"

namespace heddle::graph::detail {

mlir::LogicalResult verifyMatmul(mlir::Operation* op);
mlir::LogicalResult verifyAttention(mlir::Operation* op);

}  // namespace heddle::graph::detail

#endif  // HEDDLE_IR_GRAPH_ATEN_VERIFIERS_H_
