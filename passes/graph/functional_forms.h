// The pure op that computes what an in-place call writes. Decides per call;
// graph-functionalize applies it.
#ifndef HEDDLE_PASSES_GRAPH_FUNCTIONAL_FORMS_H_
#define HEDDLE_PASSES_GRAPH_FUNCTIONAL_FORMS_H_

#include "ir/graph/GraphOps.h"

namespace heddle::graph {

// Builds before `call`, whose operands already are current values, the ops that
// compute what it writes. Returns the new values of the operands in `mutates`,
// in that order, with the operands' shapes and element types; their layouts may
// differ. Fails after an error was emitted.
mlir::FailureOr<llvm::SmallVector<mlir::Value>> functionalForm(
    CallOp call, mlir::OpBuilder& builder,
    llvm::SmallVectorImpl<mlir::Value>& freshResults);

// Builds an op of the table by name. `arguments` has one entry per schema
// argument: what AtenCall holds.
mlir::Operation* createAten(mlir::OpBuilder& builder, mlir::Location loc,
                            llvm::StringRef mlirName, mlir::TypeRange results,
                            mlir::ValueRange operands,
                            llvm::ArrayRef<mlir::NamedAttribute> attributes,
                            mlir::Operation* linkedTo);

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_GRAPH_FUNCTIONAL_FORMS_H_
