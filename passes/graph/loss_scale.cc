// Invariant: every gradient of the step is a product of the seed, so scaling
// the seed scales them all, and the loss that is reported stays what it was.
// What would break it: a backward pass that does not begin with ones_like of
// the loss, which is refused.
#include "passes/graph/loss_scale.h"

#include "llvm/ADT/SmallPtrSet.h"
#include "llvm/ADT/bit.h"
#include "passes/graph/functional_forms.h"

namespace heddle::graph {

using namespace mlir;

namespace {

constexpr llvm::StringLiteral kStateNames[] = {"loss_scale", "good_steps",
                                               "hysteresis"};

Value withoutViews(Value value) {
  while (auto view = value.getDefiningOp<ViewLike>())
    value = view.getViewSource();
  return value;
}

// What the backward pass begins with.
llvm::SmallVector<Operation*> seedsOf(StepOp step) {
  llvm::SmallVector<Value, 1> losses;
  for (auto [role, value] :
       llvm::zip(step.getResultRoles(),
                 step.getBody().front().getTerminator()->getOperands()))
    if (llvm::isa<LossAttr>(role)) losses.push_back(withoutViews(value));
  llvm::SmallVector<Operation*> seeds;
  for (Operation& op : step.getBody().front()) {
    auto phase = op.getAttrOfType<PhaseAttr>(GraphDialect::kPhaseAttr);
    if (op.getName().getStringRef() == "graph.ones_like" && phase &&
        phase.getValue() == Phase::Backward &&
        llvm::is_contained(losses, withoutViews(op.getOperand(0))))
      seeds.push_back(&op);
  }
  return seeds;
}

// How many labels a micro-batch has room for; 1 where that is not known.
int64_t labelsOf(StepOp step) {
  for (Operation& op : step.getBody().front())
    if (op.getName().getStringRef() == "graph.nll_loss_forward")
      return llvm::cast<RankedTensorType>(op.getOperand(1).getType())
          .getNumElements();
  return 1;
}

Value casted(OpBuilder& builder, Value value, Type element, Operation* like) {
  auto type = llvm::cast<RankedTensorType>(value.getType());
  if (type.getElementType() == element) return value;
  return createAten(
             builder, like->getLoc(), "graph._to_copy",
             RankedTensorType::get(type.getShape(), element), value,
             {builder.getNamedAttr("dtype", TypeAttr::get(element)),
              builder.getNamedAttr("non_blocking", builder.getBoolAttr(false))},
             like)
      ->getResult(0);
}

}  // namespace

FailureOr<LossScale> LossScale::apply(
    StepOp step, const LossScaleSettings& settings, llvm::StringRef divisor,
    llvm::SmallVectorImpl<Attribute>& argRoles) {
  LossScale scale;
  scale.settings = settings;
  if (divisor == "label_count")
    scale.seed = 1.0 / static_cast<double>(llvm::bit_floor<uint64_t>(
                           std::max<int64_t>(labelsOf(step), 1)));
  llvm::SmallVector<Operation*> seeds = seedsOf(step);
  if (seeds.empty())
    return step.emitError(
               "cannot scale its loss: its backward pass does not begin with "
               "ones_like of the loss; use bf16 or fp32"),
           failure();
  OpBuilder builder(step.getContext());
  if (settings.dynamic) {
    const Type elements[] = {builder.getF32Type(), builder.getI64Type(),
                             builder.getI64Type()};
    for (auto [name, element] : llvm::zip(kStateNames, elements)) {
      argRoles.push_back(StateAttr::get(builder.getContext(),
                                        builder.getStringAttr(name),
                                        builder.getStringAttr(kScalerKind)));
      scale.state.push_back(step.getBody().front().addArgument(
          RankedTensorType::get({}, element), step.getLoc()));
    }
  }
  for (Operation* op : seeds) {
    Value ones = op->getResult(0);
    auto type = llvm::cast<RankedTensorType>(ones.getType());
    builder.setInsertionPointAfter(op);
    llvm::SmallPtrSet<Operation*, 4> own;
    // In f32: scale and seed together may fit a narrower loss where the scale
    // does not.
    Value value = casted(builder, ones, builder.getF32Type(), op);
    own.insert(value.getDefiningOp());
    double constant = scale.seed * (settings.dynamic ? 1.0 : settings.initial);
    if (constant != 1) {
      value = createAten(builder, op->getLoc(), "graph.fill.Scalar",
                         value.getType(), value,
                         {builder.getNamedAttr(
                             "value", builder.getF64FloatAttr(constant))},
                         op)
                  ->getResult(0);
      own.insert(value.getDefiningOp());
    }
    if (settings.dynamic) {
      value = createAten(builder, op->getLoc(), "graph.mul.Tensor",
                         value.getType(), {value, scale.state[0]}, {}, op)
                  ->getResult(0);
      own.insert(value.getDefiningOp());
    }
    value = casted(builder, value, type.getElementType(), op);
    own.insert(value.getDefiningOp());
    ones.replaceAllUsesExcept(value, own);
  }
  return scale;
}

optim::LossScaleOp LossScale::unscale(
    OpBuilder& builder, Value norm, std::optional<double> maxNorm,
    llvm::function_ref<void(Attribute, Value)> giveBack) const {
  auto scalar = [](Type element) { return RankedTensorType::get({}, element); };
  auto real = [&](double value) { return builder.getF64FloatAttr(value); };
  llvm::SmallVector<Type> results = {norm.getType(),
                                     norm.getType(),
                                     scalar(builder.getF32Type()),
                                     scalar(builder.getI1Type()),
                                     scalar(builder.getF32Type()),
                                     scalar(builder.getI1Type())};
  llvm::append_range(results, ValueRange(state).getTypes());
  auto op = builder.create<optim::LossScaleOp>(
      norm.getLoc(), results, norm, state, real(settings.initial), real(seed),
      maxNorm ? real(*maxNorm) : FloatAttr(),
      builder.getI64IntegerAttr(settings.window),
      builder.getI64IntegerAttr(settings.hysteresis),
      settings.consecutiveHysteresis ? builder.getUnitAttr() : UnitAttr(),
      real(settings.minimum));
  for (auto [name, value] : llvm::zip(kStateNames, op.getNewState()))
    giveBack(
        NewStateAttr::get(builder.getContext(), builder.getStringAttr(name),
                          builder.getStringAttr(kScalerKind)),
        value);
  return op;
}

}  // namespace heddle::graph
