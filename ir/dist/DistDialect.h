// The dist dialect: what a rank runs of a step, with collectives between ranks.
#ifndef HEDDLE_IR_DIST_DISTDIALECT_H_
#define HEDDLE_IR_DIST_DISTDIALECT_H_

#include <cstdint>

#include "ir/graph/GraphDialect.h"
#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

// Generated code needs the headers above.
// clang-format off
#include "ir/dist/DistDialect.h.inc"
#define GET_ATTRDEF_CLASSES
#include "ir/dist/DistAttrs.h.inc"
#define GET_OP_CLASSES
#include "ir/dist/DistOps.h.inc"
// clang-format on

namespace heddle::dist {

// Slots of a bucket start at multiples of this many elements.
inline constexpr int64_t kSlotAlignment = 128;

// Ranks along `axis` of the module's mesh; 1 where it has no such axis.
int64_t axisSize(mlir::ModuleOp module, llvm::StringRef axis);

// A value that is a window into another's bytes: the bucket of dist.slot and
// dist.shard; null for every other op.
mlir::Value windowSource(mlir::Operation* op);

}  // namespace heddle::dist

#endif  // HEDDLE_IR_DIST_DISTDIALECT_H_
