// Turns a masked cross-entropy mean into a sum where the mean is to be taken
// over the labels of all micro-batches and not of each. Invariant: forward and
// backward change together; their quotient by the label count is the mean one
// large batch would have. What would break it: a loss of which the cross
// entropy is a part only, which is therefore left to an average over batches.
#include "passes/graph/loss_average.h"

#include "mlir/IR/Builders.h"

namespace heddle::graph {

using namespace mlir;

namespace {

// at::Reduction
constexpr int64_t kMean = 1;
constexpr int64_t kSum = 2;

bool named(Operation* op, llvm::StringRef name) {
  return op && op->getName().getStringRef() == name;
}

bool isMean(Operation* op) {
  auto reduction = op->getAttrOfType<IntegerAttr>("reduction");
  return reduction && reduction.getInt() == kMean;
}

// The unweighted mean that is the loss, and its backward ops.
struct MaskedMean {
  Operation* forward = nullptr;
  llvm::SmallVector<Operation*, 1> backward;
};

MaskedMean findMaskedMean(StepOp step) {
  Value loss;
  for (auto [role, value] :
       llvm::zip(step.getResultRoles(),
                 step.getBody().front().getTerminator()->getOperands())) {
    if (!llvm::isa<LossAttr>(role)) continue;
    if (loss) return {};
    loss = value;
  }
  while (loss && loss.getDefiningOp<ViewLike>())
    loss = loss.getDefiningOp<ViewLike>().getViewSource();
  Operation* forward = loss ? loss.getDefiningOp() : nullptr;
  // Input and target are operands 0 and 1; a third would be class weights.
  if (!named(forward, "graph.nll_loss_forward") ||
      forward->getNumOperands() != 2 || !isMean(forward) ||
      loss != forward->getResult(0))
    return {};
  MaskedMean found{forward, {}};
  for (Operation* user : forward->getResult(1).getUsers()) {
    // total_weight is the last operand; three before it means that there are no
    // class weights.
    if (!named(user, "graph.nll_loss_backward") ||
        user->getNumOperands() != 4 || !isMean(user) ||
        user->getOperand(2) != forward->getOperand(1))
      return {};
    found.backward.push_back(user);
  }
  // The mean itself may only leave the step or be handed to views of it and to
  // the seed of the backward pass, which does not read its value.
  llvm::SmallVector<Value> values{loss};
  while (!values.empty()) {
    Value value = values.pop_back_val();
    for (Operation* user : value.getUsers()) {
      if (llvm::isa<ViewLike>(user)) {
        llvm::append_range(values, user->getResults());
      } else if (!llvm::isa<ReturnOp>(user) &&
                 !named(user, "graph.ones_like")) {
        return {};
      }
    }
  }
  return found.backward.empty() ? MaskedMean{} : found;
}

}  // namespace

FailureOr<llvm::StringRef> averageLoss(StepOp step, llvm::StringRef average) {
  OpBuilder builder(step.getContext());
  MaskedMean mean = average == "batches" ? MaskedMean{} : findMaskedMean(step);
  if (!mean.forward) {
    if (average == "tokens") {
      return step.emitError(
                 "loss_average=\"tokens\" needs a loss that is an unweighted "
                 "cross-entropy mean; use \"batches\""),
             failure();
    }
    step.setLossAverageAttr(builder.getStringAttr("batches"));
    return llvm::StringRef("micro_batches");
  }
  mean.forward->setAttr("reduction", builder.getI64IntegerAttr(kSum));
  for (Operation* op : mean.backward)
    op->setAttr("reduction", builder.getI64IntegerAttr(kSum));
  step.setLossAverageAttr(builder.getStringAttr("tokens"));
  return llvm::StringRef("label_count");
}

}  // namespace heddle::graph
