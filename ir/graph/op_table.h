// The ODS operators of the graph dialect as plain data, generated from
// GraphAtenOps.td, for readers that must not link MLIR (capture prints from
// it). Invariant: a row's `args` are the ATen schema's arguments in schema
// order; operators without a row are written as `graph.call`. What would break
// it: editing op_table.inc by hand, or an operator whose .td order differs from
// its schema's (tests/ir/graph compares both with torch).
#ifndef HEDDLE_IR_GRAPH_OP_TABLE_H_
#define HEDDLE_IR_GRAPH_OP_TABLE_H_

#include <cstdint>
#include <string_view>

namespace heddle::graph {

// How a schema argument is written. Tensor kinds are operands, the rest are
// inherent attributes under the argument's name.
enum class ArgKind : uint8_t {
  kTensor,
  kTensorList,
  // Tensor?[]: the present tensors are operands; the attribute `<name>_present
  // = array<i1: ...>` says which list entries they are.
  kOptionalTensorList,
  kInt,
  kFloat,
  kBool,
  kScalar,
  kIntList,
  kFloatList,
  kBoolList,
  kString,
  kScalarType,
  kDevice,
  kLayout,
  kMemoryFormat,
  // Never written, neither as operand nor as attribute.
  kGenerator,
};

struct ArgRow {
  const char* name;
  ArgKind kind;
  // The argument may be absent. Besides `Tensor?` this covers the plain
  // `Tensor` arguments for which ATen takes an undefined tensor.
  bool nullable;
};

struct OpRow {
  const char* mlirName;  // "graph.add.Tensor"
  const char* atenName;  // "aten::add.Tensor"; without a dot for the default
                         // overload: "aten::mm"
  const ArgRow* args;
  int numArgs;
  // Tensor results, in schema order; results of other types (SymInt) are not
  // written. -1: the schema returns Tensor[], one result per element. A result
  // that ATen leaves undefined is written with type `none`.
  int numResults;
  bool isView;
  bool pointwise;
  bool random;
  // The op carries `operandSegmentSizes`, one i32 per tensor argument (any
  // kind) in schema order: true where more than one of them is optional or a
  // list (with one, the number of operands tells).
  bool segmented;
};

// All rows, sorted by atenName.
const OpRow* opTableBegin();
const OpRow* opTableEnd();

// The row of "ns::name.overload", or null where the operator is written as
// `graph.call`.
const OpRow* findOp(std::string_view atenName);
// The row of "graph.name.overload", or null.
const OpRow* findOpByMlirName(std::string_view mlirName);

}  // namespace heddle::graph

#endif  // HEDDLE_IR_GRAPH_OP_TABLE_H_
