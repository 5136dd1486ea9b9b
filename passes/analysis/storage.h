// Which values of a functional graph step share a storage, and until when that
// storage is needed in a given order of ops. Invariant: a value's root is the
// value that a non-view op (or an argument) made; aliases are reached through
// ViewLike ops and dist windows only. What would break it: an op that returns a
// view without the interface.
#ifndef HEDDLE_PASSES_ANALYSIS_STORAGE_H_
#define HEDDLE_PASSES_ANALYSIS_STORAGE_H_

#include <cstdint>
#include <limits>

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/DenseMap.h"
#include "mlir/IR/Operation.h"
#include "mlir/IR/Value.h"

namespace heddle {

// What `op` looks into, where it only renames (a part of) a storage: no step
// is made for it. Null for every other op and for null.
mlir::Value viewSource(mlir::Operation* op);
bool isView(mlir::Operation* op);

// The value that owns the storage `value` looks into.
mlir::Value rootOf(mlir::Value value);

// Last uses of storages in one order of ops.
class Liveness {
 public:
  static constexpr int64_t kForever = std::numeric_limits<int64_t>::max();

  // Views in `order` are not uses. The roots of `kept` live forever.
  Liveness(llvm::ArrayRef<mlir::Operation*> order,
           llvm::ArrayRef<mlir::Value> kept);

  // Position in `order` of the last op that reads `value`'s storage; -1 if none
  // does.
  int64_t lastUse(mlir::Value value) const;

 private:
  llvm::DenseMap<mlir::Value, int64_t> last;
};

// True if the out-of-place kernel of `op` may write result 0 to the address of
// operand `operand`: it reads an element of each operand for the last time
// before it writes the result's element at the same place, and both have one
// geometry and bits that do not depend on it. Says nothing about whether the
// operand is dead.
bool mayWriteOver(mlir::Operation* op, unsigned operand);

}  // namespace heddle

#endif  // HEDDLE_PASSES_ANALYSIS_STORAGE_H_
