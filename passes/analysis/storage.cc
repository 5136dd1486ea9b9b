// Aliases through ViewLike and dist windows, last uses, and where in-place
// writing is safe. Invariant: every answer errs towards "alive" and "not safe".
// A Pointwise op whose kernel makes two passes over its operands belongs in the
// list of mayWriteOver's exceptions, or values are overwritten while needed.
#include "passes/analysis/storage.h"

#include "ir/dist/DistDialect.h"
#include "ir/graph/GraphDialect.h"
#include "ir/graph/aten_call.h"
#include "ir/sched/Sched.h"
#include "llvm/ADT/StringSet.h"

namespace heddle {

mlir::Value viewSource(mlir::Operation* op) {
  if (auto view = mlir::dyn_cast_or_null<graph::ViewLike>(op))
    return view.getViewSource();
  return dist::windowSource(op);
}

bool isView(mlir::Operation* op) { return viewSource(op) != nullptr; }

mlir::Value rootOf(mlir::Value value) {
  while (mlir::Value source = viewSource(value.getDefiningOp())) value = source;
  return value;
}

Liveness::Liveness(llvm::ArrayRef<mlir::Operation*> order,
                   llvm::ArrayRef<mlir::Value> kept) {
  for (auto [i, op] : llvm::enumerate(order)) {
    if (isView(op)) continue;
    for (mlir::Value operand : op->getOperands()) last[rootOf(operand)] = i;
  }
  for (mlir::Value value : kept) last[rootOf(value)] = kForever;
}

int64_t Liveness::lastUse(mlir::Value value) const {
  auto it = last.find(rootOf(value));
  return it == last.end() ? -1 : it->second;
}

bool mayWriteOver(mlir::Operation* op, unsigned operand) {
  if (!mlir::isa<graph::Pointwise>(op) || op->getNumResults() != 1)
    return false;
  mlir::Value source = op->getOperand(operand);
  auto type =
      mlir::dyn_cast<mlir::RankedTensorType>(op->getResult(0).getType());
  if (!type || source.getType() != type || !sched::geometryOf(type).dense())
    return false;
  // Loops over complex numbers round otherwise where they write over what they
  // read: compilers keep two versions of them.
  if (mlir::isa<mlir::ComplexType>(type.getElementType())) return false;
  // Another operand in the same storage but elsewhere in it would be
  // overwritten before it is read.
  for (mlir::Value other : op->getOperands())
    if (rootOf(other) == rootOf(source) && other.getType() != type)
      return false;
  if (operand == 0) return true;
  // Out-of-place kernels of one loop over all operands. Others (masked_fill,
  // where with scalars) first copy operand 0 to the result and then look at the
  // rest.
  static const llvm::StringSet<> oneLoop = {
      "graph.add.Tensor",        "graph.sub.Tensor",
      "graph.mul.Tensor",        "graph.div.Tensor",
      "graph.maximum",           "graph.minimum",
      "graph.silu_backward",     "graph.gelu_backward",
      "graph.tanh_backward",     "graph.sigmoid_backward",
      "graph.threshold_backward"};
  return oneLoop.contains(op->getName().getStringRef());
}

}  // namespace heddle
