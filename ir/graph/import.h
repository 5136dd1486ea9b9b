// Text or bytecode of a captured step -> a verified module. The door for bytes
// from outside. Invariant: whatever the text, the answer is a module or a
// diagnostic, which MLIR's own parser does not promise.
#ifndef HEDDLE_IR_GRAPH_IMPORT_H_
#define HEDDLE_IR_GRAPH_IMPORT_H_

#include <string>

#include "llvm/ADT/StringRef.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"

namespace heddle::graph {

// Brackets of any kind that may be open at once in text; a captured step has
// about ten.
inline constexpr int kMaxNesting = 128;

// What in a text MLIR's parser must not see, and on which line.
struct Hazard {
  unsigned line = 0;
  std::string what;
  explicit operator bool() const { return line != 0; }
};

// For whoever hands text to MLIR by another way than importStep. Bytecode has
// none.
Hazard hazardIn(llvm::StringRef bytes);

// Null after a diagnostic. `name` stands for the file in locations.
mlir::OwningOpRef<mlir::ModuleOp> importStep(mlir::MLIRContext* context,
                                             llvm::StringRef bytes,
                                             llvm::StringRef name);

}  // namespace heddle::graph

#endif  // HEDDLE_IR_GRAPH_IMPORT_H_
