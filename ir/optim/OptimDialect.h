// The optim dialect: accumulation over micro-batches, clipping and parameter
// updates as pure ops on whole tensors.
#ifndef HEDDLE_IR_OPTIM_OPTIMDIALECT_H_
#define HEDDLE_IR_OPTIM_OPTIMDIALECT_H_

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/TypeUtilities.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

// Generated code needs the headers above.
// clang-format off
#include "ir/optim/OptimDialect.h.inc"
// clang-format on

#define GET_OP_CLASSES
#include "ir/optim/OptimOps.h.inc"

namespace heddle::optim {

// What an op that sums over micro-batches adds to; null for any other op.
mlir::Value accumulatorOf(mlir::Operation* op);

}  // namespace heddle::optim

#endif  // HEDDLE_IR_OPTIM_OPTIMDIALECT_H_
