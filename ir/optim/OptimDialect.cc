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

template <typename Op>
static LogicalResult verifyHyperparameters(Op op, llvm::StringRef betaRule,
                                           llvm::StringRef otherRule) {
  for (double beta :
       {op.getBeta1().convertToDouble(), op.getBeta2().convertToDouble()}) {
    if (!(beta >= 0 && beta < 1))
      return op.emitOpError("has a beta of ")
             << beta << ", which is not in [0, 1) (" << betaRule << ")";
  }
  if (!(op.getEps().convertToDouble() >= 0 &&
        op.getWeightDecay().convertToDouble() >= 0 &&
        op.getLrScale().convertToDouble() >= 0)) {
    return op.emitOpError("has a negative eps, weight_decay or lr_scale (")
           << otherRule << ")";
  }
  return success();
}

LogicalResult AdamWOp::verify() {
  for (Value value : {getGrad(), getExpAvg(), getExpAvgSq()}) {
    if (shapeOf(value) != shapeOf(getParam()))
      return emitOpError("updates ") << getParam().getType() << " with "
                                     << value.getType() << " (optim_adamw_r1)";
  }
  return verifyHyperparameters(*this, "optim_adamw_r2", "optim_adamw_r3");
}

LogicalResult MultiAdamWOp::verify() {
  size_t count = getParams().size();
  llvm::SmallVector<OperandRange> lists = {getGrads(), getExpAvgs(),
                                           getExpAvgSqs()};
  if (!getCopies().empty()) lists.push_back(getCopies());
  for (OperandRange list : lists) {
    if (list.size() != count)
      return emitOpError("updates ")
             << count << " parameters with " << list.size()
             << " values (optim_multi_adamw_r1)";
    for (auto [param, value] : llvm::zip(getParams(), list)) {
      if (shapeOf(value) != shapeOf(param))
        return emitOpError("updates ")
               << param.getType() << " with " << value.getType()
               << " (optim_multi_adamw_r1)";
    }
  }
  if (getNewParams().getTypes() != getParams().getTypes() ||
      getNewExpAvgs().getTypes() != getExpAvgs().getTypes() ||
      getNewExpAvgSqs().getTypes() != getExpAvgSqs().getTypes() ||
      getNewCopies().getTypes() != getCopies().getTypes())
    return emitOpError(
        "has results of other types than its operands (optim_multi_adamw_r2)");
  return verifyHyperparameters(*this, "optim_multi_adamw_r3",
                               "optim_multi_adamw_r3");
}

}  // namespace heddle::optim
