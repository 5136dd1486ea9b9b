// The optim dialect's registration and labelled rules.
#include "ir/optim/OptimDialect.h"

#include <cmath>

using namespace mlir;

#include "ir/optim/OptimDialect.cc.inc"
#define GET_OP_CLASSES
#include "ir/optim/OptimOps.cc.inc"

namespace heddle::optim {

void OptimDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "ir/optim/OptimOps.cc.inc"
      >();
}

static llvm::ArrayRef<int64_t> shapeOf(Value value) {
  return llvm::cast<RankedTensorType>(value.getType()).getShape();
}

LogicalResult AccumulateOp::verify() {
  if (shapeOf(getAccumulator()) == shapeOf(getValue())) return success();
  return emitOpError("adds ")
         << getValue().getType() << " to " << getAccumulator().getType()
         << " (optim_accumulate_r1)";
}

LogicalResult AccumulateProductOp::verify() {
  llvm::ArrayRef<int64_t> lhs = shapeOf(getLhs()), rhs = shapeOf(getRhs()),
                          sum = shapeOf(getAccumulator());
  if (lhs.size() == 2 && rhs.size() == 2 && sum.size() == 2 &&
      lhs[1] == rhs[0] && sum[getTransposed() ? 1 : 0] == lhs[0] &&
      sum[getTransposed() ? 0 : 1] == rhs[1])
    return success();
  return emitOpError("adds the ")
         << (getTransposed() ? "transposed " : "") << "product of "
         << getLhs().getType() << " and " << getRhs().getType() << " to "
         << getAccumulator().getType() << " (optim_accumulate_product_r1)";
}

Value accumulatorOf(Operation* op) {
  if (auto sum = llvm::dyn_cast<AccumulateOp>(op)) return sum.getAccumulator();
  if (auto sum = llvm::dyn_cast<AccumulateProductOp>(op))
    return sum.getAccumulator();
  return {};
}

LogicalResult AverageOp::verify() {
  if (getDivisor() == "micro_batches" || getDivisor() == "label_count")
    return success();
  return emitOpError("divides by \"") << getDivisor()
                                      << "\", which is neither micro_batches "
                                         "nor label_count (optim_average_r1)";
}

LogicalResult GradNormOp::verify() {
  return getGradients().empty()
             ? emitOpError("has no gradient (optim_grad_norm_r1)")
             : success();
}

LogicalResult ClipFactorOp::verify() {
  double norm = getMaxNorm().convertToDouble();
  if (std::isfinite(norm) && norm > 0) return success();
  return emitOpError("limits the norm to ")
         << norm << ", which is not a positive number (optim_clip_factor_r1)";
}

LogicalResult AdamWOp::verify() {
  for (Value value : {getGrad(), getExpAvg(), getExpAvgSq()}) {
    if (shapeOf(value) != shapeOf(getParam()))
      return emitOpError("updates ") << getParam().getType() << " with "
                                     << value.getType() << " (optim_adamw_r1)";
  }
  for (double beta :
       {getBeta1().convertToDouble(), getBeta2().convertToDouble()}) {
    if (!(beta >= 0 && beta < 1))
      return emitOpError("has a beta of ")
             << beta << ", which is not in [0, 1) (optim_adamw_r2)";
  }
  if (!(getEps().convertToDouble() >= 0 &&
        getWeightDecay().convertToDouble() >= 0 &&
        getLrScale().convertToDouble() >= 0)) {
    return emitOpError(
        "has a negative eps, weight_decay or lr_scale (optim_adamw_r3)");
  }
  return success();
}

}  // namespace heddle::optim
