// optim.accumulate_product -> a gemm step on the accumulator's own bytes.
// Invariant: the first micro-batch does not read what it writes.
#include "ir/optim/OptimDialect.h"
#include "passes/schedule/section_lowering.h"

namespace heddle {

using mlir::failure;
using mlir::LogicalResult;
using mlir::success;
using mlir::Value;

LogicalResult SectionLowering::lowerAccumulateProduct(mlir::Operation* op) {
  auto sum = mlir::cast<optim::AccumulateProductOp>(op);
  Value a = refOf(sum.getLhs()), b = refOf(sum.getRhs()),
        out = refOf(sum.getAccumulator());
  if (!a || !b || !out) return failure();
  refs[sum.getResult()] = out;
  if (sum.getTransposed()) {
    sched::Geometry g =
        sched::geometryOf(mlir::cast<sched::RefType>(out.getType()));
    auto layout =
        graph::LayoutAttr::get(op->getContext(), {g.strides[1], g.strides[0]},
                               g.offset, g.storageBytes);
    auto seen = mlir::RankedTensorType::get(
        {g.sizes[1], g.sizes[0]},
        mlir::cast<sched::RefType>(out.getType()).getTensor().getElementType(),
        layout);
    out = builder.create<sched::ValueOp>(
        op->getLoc(), sched::RefType::get(op->getContext(), seen),
        out.getDefiningOp<sched::ValueOp>().getBuffer());
  }
  llvm::SmallVector<Value> reads = {a, b};
  if (section.getName() != "micro_first") reads.push_back(out);
  auto lhs = mlir::cast<mlir::RankedTensorType>(sum.getLhs().getType());
  auto rhs = mlir::cast<mlir::RankedTensorType>(sum.getRhs().getType());
  auto step = builder.create<sched::GemmOp>(
      op->getLoc(), reads, out,
      2 * lhs.getDimSize(0) * lhs.getDimSize(1) * rhs.getDimSize(1));
  if (auto phase =
          op->getAttrOfType<graph::PhaseAttr>(graph::GraphDialect::kPhaseAttr))
    step.setPhase(static_cast<uint64_t>(phase.getValue()));
  return success();
}

}  // namespace heddle
