// A matrix product that only an accumulation reads -> one op that adds the
// product to the accumulator; one that only a bucket reads -> a product in the
// bucket's dtype. Finds the products first, rewrites them second. Invariant:
// what was added or packed, up to rounding the product to its operands' dtype,
// which no longer happens. A second reader of the product would lose it, so
// such a product stays.
#include "ir/dist/DistDialect.h"
#include "ir/optim/OptimDialect.h"
#include "passes/analysis/storage.h"
#include "passes/schedule/Passes.h"

namespace heddle {

#define GEN_PASS_DEF_ACCUMULATEINGEMM
#include "passes/schedule/Passes.h.inc"

namespace {

using mlir::Value;

// `reader` takes the product, or a wider or transposed view of it, as its
// operand `operand`.
struct Found {
  mlir::Operation* reader = nullptr;
  unsigned operand = 0;
  mlir::Operation* product = nullptr;
  bool transposed = false;
};

mlir::RankedTensorType typeOf(Value value) {
  return mlir::cast<mlir::RankedTensorType>(value.getType());
}

bool isNarrow(mlir::Type type) { return type.isBF16() || type.isF16(); }

// Whether the elements of `view` are those of the dense matrix `whole` that it
// looks into, in the same places or transposed.
std::optional<bool> transposition(Value view, Value whole) {
  sched::Geometry all = sched::geometryOf(typeOf(whole)),
                  seen = sched::geometryOf(typeOf(view));
  if (all.sizes.size() != 2 || seen.sizes.size() != 2 || !all.dense() ||
      all.offset != seen.offset)
    return std::nullopt;
  for (bool transposed : {false, true}) {
    int rows = transposed ? 1 : 0, columns = transposed ? 0 : 1;
    if (seen.sizes[0] == all.sizes[rows] &&
        seen.sizes[1] == all.sizes[columns] &&
        seen.strides[0] == all.strides[rows] &&
        seen.strides[1] == all.strides[columns])
      return transposed;
  }
  return std::nullopt;
}

// The value that `view` looks into, if nobody else reads what lies between.
Value onlyRootOf(Value view) {
  while (auto op = view.getDefiningOp<graph::ViewLike>()) {
    if (!view.hasOneUse()) return nullptr;
    view = op.getViewSource();
  }
  return view;
}

std::optional<Found> find(mlir::Operation* reader, unsigned operand) {
  Found found{reader, operand};
  Value value = reader->getOperand(operand);
  for (;;) {
    mlir::Operation* op = value.getDefiningOp();
    if (!op || !value.hasOneUse()) return std::nullopt;
    if (isView(op)) {
      Value root = onlyRootOf(value);
      std::optional<bool> transposed =
          root ? transposition(value, root) : std::nullopt;
      if (!transposed) return std::nullopt;
      found.transposed ^= *transposed;
      value = root;
    } else if (op->getName().getStringRef() == "graph._to_copy" &&
               typeOf(value).getElementType().isF32()) {
      value = op->getOperand(0);
    } else if (op->getName().getStringRef() == "graph.mm") {
      found.product = op;
      break;
    } else {
      return std::nullopt;
    }
  }
  for (Value operand : found.product->getOperands())
    if (!isNarrow(typeOf(operand).getElementType()) ||
        !sched::isMatrix(sched::geometryOf(typeOf(operand))))
      return std::nullopt;
  return found;
}

struct AccumulateInGemmPass : impl::AccumulateInGemmBase<AccumulateInGemmPass> {
  void runOnOperation() final {
    graph::StepOp step = getOperation();
    // The CPU's training steps keep ATen's kernels and their bits.
    if (step.getTarget() != "cuda") return markAllAnalysesPreserved();
    llvm::SmallVector<Found> all;
    auto look = [&](mlir::Operation* reader, unsigned operand) {
      if (auto found = find(reader, operand)) all.push_back(*found);
    };
    for (mlir::Operation& op : step.getBody().front()) {
      if (auto sum = mlir::dyn_cast<optim::AccumulateOp>(op)) {
        if (typeOf(sum.getAccumulator()).getElementType().isF32()) look(&op, 1);
      } else if (auto pack = mlir::dyn_cast<dist::PackOp>(op)) {
        if (!typeOf(pack.getResult()).getElementType().isF32()) continue;
        for (unsigned i = 0; i < pack.getValues().size(); ++i) look(&op, i);
      }
    }
    for (Found& found : all) rewrite(found);
  }

  // Where the product stood, so that its operands die as early as before.
  static void rewrite(Found& found) {
    mlir::OpBuilder builder(found.product);
    mlir::Location loc = found.product->getLoc();
    Value lhs = found.product->getOperand(0),
          rhs = found.product->getOperand(1);
    Value value = found.reader->getOperand(found.operand);
    mlir::Operation* fused;
    if (auto sum = mlir::dyn_cast<optim::AccumulateOp>(found.reader)) {
      fused = builder.create<optim::AccumulateProductOp>(
          loc, sum.getResult().getType(), sum.getAccumulator(), lhs, rhs,
          found.transposed);
      sum.getResult().replaceAllUsesWith(fused->getResult(0));
      sum.erase();
    } else {
      auto pack = mlir::cast<dist::PackOp>(found.reader);
      fused = builder.create<optim::ProductOp>(
          loc,
          mlir::cast<mlir::TypeAttr>(pack.getTypes()[found.operand]).getValue(),
          lhs, rhs, found.transposed);
      pack->setOperand(found.operand, fused->getResult(0));
    }
    fused->setDiscardableAttrs(found.product->getDiscardableAttrDictionary());
    while (mlir::Operation* op = value.getDefiningOp()) {
      if (!op->use_empty()) break;
      bool last = op == found.product;
      value = op->getOperand(0);
      op->erase();
      if (last) break;
    }
  }
};

}  // namespace
}  // namespace heddle
