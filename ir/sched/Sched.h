// C++ face of the sched dialect: generated classes plus the one piece of
// arithmetic that everybody needs, the geometry of a ref. Invariant:
// `geometryOf` is the only reader of a layout in the lower half of the
// compiler. What would break it: reading strides from a tensor type without its
// encoding.
#ifndef HEDDLE_IR_SCHED_SCHED_H_
#define HEDDLE_IR_SCHED_SCHED_H_

#include <cstdint>
#include <optional>

#include "llvm/ADT/SmallVector.h"
#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

// Generated code needs the headers above.
// clang-format off
#include "ir/sched/SchedDialect.h.inc"
#include "ir/sched/SchedEnums.h.inc"
#include "ir/sched/SchedInterfaces.h.inc"

#define GET_TYPEDEF_CLASSES
#include "ir/sched/SchedTypes.h.inc"

#define GET_ATTRDEF_CLASSES
#include "ir/sched/SchedAttrs.h.inc"

#define GET_OP_CLASSES
#include "ir/sched/SchedOps.h.inc"
// clang-format on

namespace heddle::sched {

// Every buffer starts at a multiple of this, relative to its arena and (the
// runtime's part) absolutely.
inline constexpr int64_t kAlignment = 256;

inline int64_t alignUp(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Where a tensor's elements lie in its storage. Strides and offset count
// elements.
struct Geometry {
  llvm::SmallVector<int64_t, 6> sizes;
  llvm::SmallVector<int64_t, 6> strides;
  int64_t offset = 0;
  int64_t elementBytes = 0;
  int64_t storageBytes = 0;

  int64_t elements() const;
  // One past the last element reached, counted in elements from the storage's
  // start; the offset where there are no elements.
  int64_t end() const;
  // No two indices reach the same element, no element between the first and the
  // last is left out.
  bool dense() const;
};

Geometry geometryOf(mlir::RankedTensorType type);
inline Geometry geometryOf(RefType ref) { return geometryOf(ref.getTensor()); }

// Two dimensions, stride 1 along one of them and at least that one's size along
// the other: what matrix multiplications take.
bool isMatrix(const Geometry& g);

// The buffer under a ref.
BufferOp bufferOf(mlir::Value ref);

// Bytes of its buffer that a ref reaches, on any rank: [begin, end).
struct Extent {
  int64_t begin = 0;
  int64_t end = 0;
};
Extent extentOf(mlir::Value ref);

}  // namespace heddle::sched

#endif  // HEDDLE_IR_SCHED_SCHED_H_
