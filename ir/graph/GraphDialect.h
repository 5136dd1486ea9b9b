// The graph dialect: a captured training step as one flat block of ATen
// operators. Attributes, interfaces and the ops that are no ATen operators.
// Invariant: ATen ops are reached by interface or op table row; their classes
// are in GraphAtenOps.h, which is long to compile.
#ifndef HEDDLE_IR_GRAPH_GRAPHDIALECT_H_
#define HEDDLE_IR_GRAPH_GRAPHDIALECT_H_

#include <cstdint>
#include <optional>

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/TensorEncoding.h"

// Generated code needs the headers above.
// clang-format off
#include "ir/graph/GraphEnums.h.inc"
// clang-format on

namespace heddle::graph {

// The version of step.mlir that this compiler reads.
inline constexpr int64_t kFormatVersion = 1;

class LayoutAttr;

namespace detail {
std::optional<int64_t> integerAttr(mlir::Operation* op, llvm::StringRef name);
Phase phaseOf(mlir::Operation* op);
int64_t flopsOf(mlir::Operation* op);
int64_t bytesOf(mlir::Operation* op);
mlir::LogicalResult verifyLinked(mlir::Operation* op);
mlir::LogicalResult verifyViewLike(mlir::Operation* op);
}  // namespace detail

// Bytes of one element; 0 for an element type that the dialect does not have.
int64_t elementBytes(mlir::Type elementType);
// Row-major strides of `shape`.
llvm::SmallVector<int64_t> rowMajorStrides(llvm::ArrayRef<int64_t> shape);

// A type's layout with nothing implied: what #graph.layout holds, or its
// row-major default.
struct Geometry {
  llvm::SmallVector<int64_t> strides;
  int64_t offset = 0;
  int64_t storageBytes = 0;
};
Geometry geometryOf(mlir::RankedTensorType type);
// Strides are row-major where they matter (dimensions of size 1 do not).
bool isRowMajor(mlir::RankedTensorType type);
// The type without encoding: row-major in a storage of its own.
mlir::RankedTensorType denseType(mlir::RankedTensorType type);

}  // namespace heddle::graph

#define GET_ATTRDEF_CLASSES
#include "ir/graph/GraphAttrs.h.inc"
#include "ir/graph/GraphDialect.h.inc"
#include "ir/graph/GraphInterfaces.h.inc"

#endif  // HEDDLE_IR_GRAPH_GRAPHDIALECT_H_
