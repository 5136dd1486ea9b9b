// Matrix products -> gemm steps on an accumulator's or a bucket's own bytes.
// Invariant: the first micro-batch does not read what it writes. What would
// break it: a slot that a later step overwrites before the bucket is sent.
#include "ir/dist/DistDialect.h"
#include "ir/optim/OptimDialect.h"
#include "passes/schedule/section_lowering.h"

namespace heddle {

using mlir::failure;
using mlir::LogicalResult;
using mlir::success;
using mlir::Value;

namespace {

// The same matrix with rows for columns.
Value transposedRef(mlir::OpBuilder& builder, mlir::Location loc, Value ref) {
  auto type = mlir::cast<sched::RefType>(ref.getType()).getTensor();
  sched::Geometry g = sched::geometryOf(type);
  auto layout =
      graph::LayoutAttr::get(type.getContext(), {g.strides[1], g.strides[0]},
                             g.offset, g.storageBytes);
  return refInto(builder, loc,
                 mlir::RankedTensorType::get({g.sizes[1], g.sizes[0]},
                                             type.getElementType(), layout),
                 ref);
}

}  // namespace

void SectionLowering::gemm(mlir::Operation* op, Value lhs, Value rhs, Value out,
                           bool transposed, bool adds) {
  if (transposed) out = transposedRef(builder, op->getLoc(), out);
  llvm::SmallVector<Value> reads = {lhs, rhs};
  if (adds) reads.push_back(out);
  auto sizes = [](Value ref) {
    return mlir::cast<sched::RefType>(ref.getType()).getTensor().getShape();
  };
  auto step = builder.create<sched::GemmOp>(
      op->getLoc(), reads, out,
      2 * sizes(lhs)[0] * sizes(lhs)[1] * sizes(rhs)[1]);
  if (auto phase =
          op->getAttrOfType<graph::PhaseAttr>(graph::GraphDialect::kPhaseAttr))
    step.setPhase(static_cast<uint64_t>(phase.getValue()));
}

LogicalResult SectionLowering::lowerAccumulateProduct(mlir::Operation* op) {
  auto sum = mlir::cast<optim::AccumulateProductOp>(op);
  Value a = refOf(sum.getLhs()), b = refOf(sum.getRhs()),
        out = refOf(sum.getAccumulator());
  if (!a || !b || !out) return failure();
  refs[sum.getResult()] = out;
  gemm(op, a, b, out, sum.getTransposed(), section.getName() != "micro_first");
  return success();
}

// Into its slot where it has one; a slot of an accumulator is added to.
LogicalResult SectionLowering::lowerProduct(mlir::Operation* op) {
  auto product = mlir::cast<optim::ProductOp>(op);
  Value a = refOf(product.getLhs()), b = refOf(product.getRhs());
  if (!a || !b) return failure();
  dist::PackOp pack = slotOf.lookup(product.getResult()).first;
  Value out = newResult(product.getResult(), op);
  if (!out) return failure();
  gemm(op, a, b, out, product.getTransposed(),
       pack && accumulationOf(pack) && section.getName() != "micro_first");
  return success();
}

}  // namespace heddle
