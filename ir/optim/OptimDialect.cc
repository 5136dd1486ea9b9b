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

static LogicalResult verifyDivisor(Operation* op, llvm::StringRef divisor,
                                   llvm::StringRef rule) {
  if (divisor == "micro_batches" || divisor == "label_count") return success();
  return op->emitOpError("divides by \"")
         << divisor << "\", which is neither micro_batches nor label_count ("
         << rule << ")";
}

static bool isProduct(Value left, Value right, bool transposed, Value out) {
  llvm::ArrayRef<int64_t> lhs = shapeOf(left), rhs = shapeOf(right),
                          result = shapeOf(out);
  return lhs.size() == 2 && rhs.size() == 2 && result.size() == 2 &&
         lhs[1] == rhs[0] && result[transposed ? 1 : 0] == lhs[0] &&
         result[transposed ? 0 : 1] == rhs[1];
}

LogicalResult AccumulateProductOp::verify() {
  if (isProduct(getLhs(), getRhs(), getTransposed(), getAccumulator()))
    return success();
  return emitOpError("adds the ")
         << (getTransposed() ? "transposed " : "") << "product of "
         << getLhs().getType() << " and " << getRhs().getType() << " to "
         << getAccumulator().getType() << " (optim_accumulate_product_r1)";
}

LogicalResult ProductOp::verify() {
  if (isProduct(getLhs(), getRhs(), getTransposed(), getResult()))
    return success();
  return emitOpError("makes ") << getResult().getType() << " of the "
                               << (getTransposed() ? "transposed " : "")
                               << "product of " << getLhs().getType() << " and "
                               << getRhs().getType() << " (optim_product_r1)";
}

Value accumulatorOf(Operation* op) {
  if (auto sum = llvm::dyn_cast<AccumulateOp>(op)) return sum.getAccumulator();
  if (auto sum = llvm::dyn_cast<AccumulateProductOp>(op))
    return sum.getAccumulator();
  return {};
}

LogicalResult AverageOp::verify() {
  return verifyDivisor(*this, getDivisor(), "optim_average_r1");
}

LogicalResult NormOp::verify() {
  return verifyDivisor(*this, getDivisor(), "optim_norm_r1");
}

LogicalResult SquareSumsOp::verify() {
  llvm::ArrayRef<int64_t> segments = getSegments();
  int64_t parameters = 0;
  size_t at = 0, gradients = 0;
  while (at < segments.size() && segments[at] >= 0 &&
         segments[at] <= static_cast<int64_t>(segments.size())) {
    parameters += segments[at];
    at += 1 + 2 * segments[at];
    ++gradients;
  }
  if (at == segments.size() && gradients == getGradients().size() &&
      getShard().size() == gradients &&
      shapeOf(getResult()) == llvm::ArrayRef<int64_t>{parameters})
    return success();
  return emitOpError("has ")
         << getGradients().size() << " gradients, segments of " << gradients
         << ", " << getShard().size() << " shard lengths and a result of "
         << getResult().getType() << " for " << parameters
         << " parameters (optim_square_sums_r1)";
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

LogicalResult LossScaleOp::verify() {
  Builder builder(getContext());
  const Type expected[] = {
      RankedTensorType::get({}, builder.getF32Type()),
      RankedTensorType::get({}, builder.getI64Type()),
      RankedTensorType::get({}, builder.getI64Type()),
  };
  TypeRange state = getState().getTypes();
  if (getNewState().getTypes() != state ||
      (!state.empty() && state != TypeRange(expected)))
    return emitOpError("has a state of ")
           << state << " and a new one of " << getNewState().getTypes()
           << " (optim_loss_scale_r1)";
  bool inRange = getWindow() >= 1 && getHysteresis() >= 1;
  for (const llvm::APFloat& number :
       {getInitial(), getSeed(), getMinScale(),
        getMaxNorm().value_or(llvm::APFloat(1.0))}) {
    double value = number.convertToDouble();
    inRange &= std::isfinite(value) && value > 0;
  }
  if (inRange) return success();
  return emitOpError(
      "has a setting that is not positive and finite (optim_loss_scale_r2)");
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

llvm::SmallVector<MuonOp::Matrix> MuonOp::getMatrixRows() {
  llvm::SmallVector<Matrix> rows;
  llvm::ArrayRef<int64_t> flat = getMatrices();
  for (size_t i = 0; i + 6 <= flat.size(); i += 6)
    rows.push_back({flat[i], flat[i + 1], flat[i + 2], flat[i + 3], flat[i + 4],
                    flat[i + 5]});
  return rows;
}

LogicalResult MuonOp::verify() {
  size_t count = getParams().size();
  auto length = [](Value value) {
    return llvm::cast<RankedTensorType>(value.getType()).getNumElements();
  };
  bool agree = getGrads().size() == count && getMomenta().size() == count &&
               getNewParams().size() == count &&
               getNewMomenta().size() == count &&
               (getCopies().empty() || getCopies().size() == count);
  for (size_t i = 0; agree && i < count; ++i)
    agree = getNewParams()[i].getType() == getParams()[i].getType() &&
            getNewMomenta()[i].getType() == getMomenta()[i].getType() &&
            length(getGrads()[i]) == length(getParams()[i]) &&
            length(getMomenta()[i]) == length(getParams()[i]);
  if (!agree)
    return emitOpError("has ")
           << count << " params, " << getGrads().size() << " grads, "
           << getMomenta().size() << " momenta and " << getCopies().size()
           << " copies that do not go together (optim_muon_r1)";
  if (getMatrices().size() % 6 != 0)
    return emitOpError("has ")
           << getMatrices().size()
           << " numbers in matrices, six each are expected (optim_muon_r2)";
  for (const Matrix& matrix : getMatrixRows()) {
    bool inside = matrix.operand >= 0 &&
                  matrix.operand < static_cast<int64_t>(count) &&
                  matrix.rank >= 0 && matrix.inBucket >= matrix.inShard &&
                  matrix.inShard >= 0 && matrix.rows > 0 && matrix.columns > 0;
    if (!inside || matrix.inShard + matrix.rows * matrix.columns >
                       length(getParams()[matrix.operand]))
      return emitOpError("has a matrix of ")
             << matrix.rows << " x " << matrix.columns << " at element "
             << matrix.inShard << " of operand " << matrix.operand
             << ", which lies outside of it (optim_muon_r2)";
  }
  constexpr llvm::StringLiteral kSettings[] = {
      "coefficients", "dtype",    "eps", "form",  "lr_scale", "momentum",
      "nesterov",     "norm_eps", "ns",  "scale", "steps",    "weight_decay"};
  for (llvm::StringRef name : kSettings)
    if (!getSettings().get(name))
      return emitOpError("has no setting '") << name << "' (optim_muon_r3)";
  if (getSettings().size() != std::size(kSettings))
    return emitOpError("has ") << getSettings().size() << " settings, expected "
                               << std::size(kSettings) << " (optim_muon_r3)";
  return success();
}

}  // namespace heddle::optim
