// Prices operators from their types: floating-point operations and bytes moved.
// Invariant: a count depends on shapes only, never on layout, so passes that
// change layouts leave costs alone. A multiply-add is two operations.
#include <numeric>

#include "ir/graph/GraphDialect.h"

using namespace mlir;

namespace heddle::graph::detail {
namespace {

RankedTensorType tensorAt(Operation* op, unsigned operand) {
  return llvm::cast<RankedTensorType>(op->getOperand(operand).getType());
}

int64_t product(llvm::ArrayRef<int64_t> sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1},
                         std::multiplies<>());
}

int64_t resultElements(Operation* op) {
  int64_t elements = 0;
  for (Type type : op->getResultTypes()) {
    if (auto tensor = llvm::dyn_cast<RankedTensorType>(type))
      elements += tensor.getNumElements();
  }
  return elements;
}

// Two matrix products over batch and heads: queries with keys, weights with
// values.
int64_t attentionForward(RankedTensorType query, RankedTensorType key,
                         RankedTensorType value) {
  if (query.getRank() != 4 || key.getRank() != 4 || value.getRank() != 4)
    return 0;
  int64_t pairs = query.getDimSize(0) * query.getDimSize(1) *
                  query.getDimSize(2) * key.getDimSize(2);
  return 2 * pairs * (query.getDimSize(3) + value.getDimSize(3));
}

int64_t attention(Operation* op, llvm::StringRef name) {
  if (!name.ends_with("_backward"))
    return attentionForward(tensorAt(op, 0), tensorAt(op, 1), tensorAt(op, 2));
  // Five products: the scores again, and gradients of value, weights, query,
  // key.
  int64_t forward =
      attentionForward(tensorAt(op, 1), tensorAt(op, 2), tensorAt(op, 3));
  return forward / 2 * 5;
}

// Every output position takes one filter; a backward op computes the gradients
// that its mask asks for, each as costly as the forward product.
int64_t convolution(Operation* op, llvm::StringRef name) {
  bool backward = name.ends_with("_backward");
  RankedTensorType output =
      backward ? tensorAt(op, 0)
               : llvm::cast<RankedTensorType>(op->getResult(0).getType());
  RankedTensorType weight = tensorAt(op, backward ? 2 : 1);
  if (weight.getRank() < 2) return 0;
  bool transposed = op->getAttrOfType<BoolAttr>("transposed").getValue();
  RankedTensorType positions =
      transposed ? tensorAt(op, backward ? 1 : 0) : output;
  int64_t filters = weight.getDimSize(0);
  int64_t forward = filters == 0 ? 0
                                 : 2 * positions.getNumElements() *
                                       (product(weight.getShape()) / filters);
  if (!backward) return forward;
  int64_t products = 0;
  if (auto mask = op->getAttrOfType<DenseBoolArrayAttr>("output_mask")) {
    for (bool wanted : mask.asArrayRef().take_front(2)) products += wanted;
  }
  return products * forward;
}

}  // namespace

int64_t flopsOf(Operation* op) {
  if (op->getNumRegions() != 0) {
    int64_t flops = 0;
    for (Operation& inner : op->getRegion(0).front()) {
      if (auto costed = llvm::dyn_cast<Costed>(inner))
        flops += costed.getFlops();
    }
    return flops;
  }
  llvm::StringRef name = op->getName().stripDialect();
  if (op->getNumResults() == 0 || name == "call" || name == "view_update" ||
      llvm::isa<ViewLike>(op))
    return 0;
  if (name == "mm" || name == "bmm" || name == "mv" || name == "dot")
    return 2 * resultElements(op) * tensorAt(op, 0).getShape().back();
  if (name == "addmm" || name == "baddbmm" || name == "addmv")
    return 2 * resultElements(op) * tensorAt(op, 1).getShape().back();
  if (name == "_grouped_mm") {
    RankedTensorType left = tensorAt(op, 0);
    RankedTensorType right = tensorAt(op, 1);
    // A rank 2 side next to a stack is split among the groups: all groups
    // together read it once.
    bool splitRight = left.getRank() == 3 && right.getRank() == 2;
    int64_t perColumn = splitRight ? product(left.getShape().drop_front())
                                   : left.getNumElements();
    return 2 * perColumn * right.getShape().back();
  }
  if (name.starts_with("_scaled_dot_product")) return attention(op, name);
  if (name.starts_with("convolution")) return convolution(op, name);
  int64_t elements = resultElements(op);
  // Reductions work on what they read.
  for (Value operand : op->getOperands())
    elements = std::max(
        elements,
        llvm::cast<RankedTensorType>(operand.getType()).getNumElements());
  return elements;
}

int64_t bytesOf(Operation* op) {
  if (llvm::isa<ViewLike>(op)) return 0;
  int64_t bytes = 0;
  auto add = [&](Type type) {
    if (auto tensor = llvm::dyn_cast<RankedTensorType>(type))
      bytes += tensor.getNumElements() * elementBytes(tensor.getElementType());
  };
  llvm::for_each(op->getOperandTypes(), add);
  llvm::for_each(op->getResultTypes(), add);
  return bytes;
}

}  // namespace heddle::graph::detail
