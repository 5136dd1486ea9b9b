// Shape rules of the operators that carry nearly all the arithmetic: matrix
// products and attention. Other operators' shapes are what ATen's meta kernels
// said at capture.
#include "ir/graph/aten_verifiers.h"

#include "ir/graph/GraphDialect.h"

using namespace mlir;

namespace heddle::graph::detail {
namespace {

RankedTensorType tensorAt(Operation* op, unsigned operand) {
  return llvm::cast<RankedTensorType>(op->getOperand(operand).getType());
}

LogicalResult verifyProduct(Operation* op, unsigned left, int64_t leftRank,
                            int64_t rightRank) {
  RankedTensorType a = tensorAt(op, left);
  RankedTensorType b = tensorAt(op, left + 1);
  if (a.getRank() != leftRank || b.getRank() != rightRank) {
    return op->emitOpError("multiplies tensors of rank ")
           << a.getRank() << " and " << b.getRank() << ", not " << leftRank
           << " and " << rightRank << " (graph_matmul_r1)";
  }
  int64_t inner = a.getShape().back();
  int64_t rows = rightRank == 1 ? b.getDimSize(0) : b.getDimSize(rightRank - 2);
  if (inner != rows)
    return op->emitOpError("sums over ")
           << inner << " columns and " << rows << " rows (graph_matmul_r2)";
  llvm::SmallVector<int64_t> outer(a.getShape().drop_back());
  if (rightRank > 1) outer.push_back(b.getShape().back());
  auto result = llvm::dyn_cast<RankedTensorType>(op->getResult(0).getType());
  if ((leftRank == 3 && a.getDimSize(0) != b.getDimSize(0)) || !result ||
      result.getShape() != llvm::ArrayRef(outer)) {
    return op->emitOpError("multiplies ")
           << a << " and " << b << " to " << op->getResult(0).getType()
           << " (graph_matmul_r3)";
  }
  return success();
}

}  // namespace

LogicalResult verifyMatmul(Operation* op) {
  llvm::StringRef name = op->getName().stripDialect();
  if (name == "mm") return verifyProduct(op, 0, 2, 2);
  if (name == "bmm") return verifyProduct(op, 0, 3, 3);
  if (name == "mv") return verifyProduct(op, 0, 2, 1);
  if (name == "dot") return verifyProduct(op, 0, 1, 1);
  if (name == "addmm") return verifyProduct(op, 1, 2, 2);
  if (name == "addmv") return verifyProduct(op, 1, 2, 1);
  if (name == "baddbmm") return verifyProduct(op, 1, 3, 3);
  // _grouped_mm: the groups are data, so only ranks and the summed dimension of
  // ungrouped operands are known.
  RankedTensorType a = tensorAt(op, 0);
  RankedTensorType b = tensorAt(op, 1);
  if (a.getRank() < 2 || a.getRank() > 3 || b.getRank() < 2 ||
      b.getRank() > 3) {
    return op->emitOpError("multiplies tensors of rank ")
           << a.getRank() << " and " << b.getRank()
           << ", not 2 or 3 (graph_matmul_r1)";
  }
  if (a.getShape().back() != b.getDimSize(b.getRank() - 2)) {
    return op->emitOpError("sums over ")
           << a.getShape().back() << " columns and "
           << b.getDimSize(b.getRank() - 2) << " rows (graph_matmul_r2)";
  }
  return success();
}

LogicalResult verifyAttention(Operation* op) {
  unsigned first = op->getName().stripDialect().ends_with("_backward") ? 1 : 0;
  RankedTensorType query = tensorAt(op, first);
  RankedTensorType key = tensorAt(op, first + 1);
  RankedTensorType value = tensorAt(op, first + 2);
  if (query.getRank() != 4 || key.getRank() != 4 || value.getRank() != 4 ||
      query.getDimSize(0) != key.getDimSize(0) ||
      query.getDimSize(0) != value.getDimSize(0) ||
      query.getDimSize(3) != key.getDimSize(3) ||
      key.getDimSize(2) != value.getDimSize(2)) {
    return op->emitOpError("attends from ") << query << " to " << key << " and "
                                            << value << " (graph_attention_r1)";
  }
  return success();
}

}  // namespace heddle::graph::detail
