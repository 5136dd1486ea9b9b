// Text or bytecode of a captured step -> a verified module. The door for bytes
// from outside. Invariant: whatever the bytes, the answer is a module or a
// diagnostic; MLIR's own parser recurses on nesting and has no limit.
#ifndef HEDDLE_IR_GRAPH_IMPORT_H_
#define HEDDLE_IR_GRAPH_IMPORT_H_

#include "llvm/ADT/StringRef.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"

namespace heddle::graph {

// Brackets of any kind that may be open at once in text; a captured step has
// about ten.
inline constexpr int kMaxNesting = 128;

// The line on which more brackets than that are open, or 0.
unsigned nestedTooDeepAt(llvm::StringRef text);

// Null after a diagnostic. `name` stands for the file in locations.
mlir::OwningOpRef<mlir::ModuleOp> importStep(mlir::MLIRContext* context,
                                             llvm::StringRef bytes,
                                             llvm::StringRef name);

}  // namespace heddle::graph

#endif  // HEDDLE_IR_GRAPH_IMPORT_H_
