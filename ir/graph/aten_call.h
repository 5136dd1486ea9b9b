// Reads any operator of the graph dialect that stands for an ATen (or custom)
// operator as a call in schema order. Invariant: `args` has one entry per
// schema argument, absent ones included, so its index is the schema's position;
// results of the op are the schema's tensor results. What would break it: an
// ODS op whose .td order is not its schema's.
#ifndef HEDDLE_IR_GRAPH_ATEN_CALL_H_
#define HEDDLE_IR_GRAPH_ATEN_CALL_H_

#include <optional>
#include <string>

#include "ir/graph/op_table.h"
#include "llvm/ADT/SmallVector.h"
#include "mlir/IR/Attributes.h"
#include "mlir/IR/Operation.h"
#include "mlir/IR/Value.h"

namespace heddle::graph {

struct AtenArg {
  enum class Kind { kNone, kOperand, kOperandList, kConstant };
  Kind kind = Kind::kNone;
  mlir::Value value;  // kOperand
  llvm::SmallVector<mlir::Value, 2>
      list;                  // kOperandList; a null Value is an absent entry
  mlir::Attribute constant;  // kConstant, as docs/formats.md writes it
  // From the op table; absent for graph.call, whose schema only the runtime
  // knows.
  std::optional<ArgKind> schemaKind;
  std::string name;
};

struct AtenCall {
  std::string name;  // "aten::add.Tensor", "aten::mm", "mylib::op"
  llvm::SmallVector<AtenArg, 8> args;
  // Operands that the call writes through (graph.call only), as operand
  // numbers; empty after graph-functionalize unless the call is `dps`.
  llvm::SmallVector<int64_t, 1> mutates;
  // graph.call after graph-functionalize: result i is the new value of operand
  // mutates[i]; the kernel writes it in place, so the executor gives it a copy
  // or a dead operand.
  bool dps = false;
};

// True for graph.call and every op with a row in the op table.
bool isAtenCall(mlir::Operation* op);

// `op` must satisfy isAtenCall and have been verified.
AtenCall decodeAtenCall(mlir::Operation* op);

}  // namespace heddle::graph

#endif  // HEDDLE_IR_GRAPH_ATEN_CALL_H_
