// Cross entropy: log_softmax over classes, then the sum or mean of the labels'
// negative log probabilities, and the gradient of the logits.
#include "llvm/ADT/STLExtras.h"
#include "passes/fusion/forms.h"

namespace heddle::graph {

using namespace mlir;

namespace {

// True for a reshape of row-major values that leaves the last dimension alone.
bool keepsRows(Operation* op) {
  if (!llvm::isa<ViewLike>(op) || op->getNumResults() != 1) return false;
  RankedTensorType from = tensorType(op->getOperand(0)),
                   to = tensorType(op->getResult(0));
  return isContiguous(from) && isContiguous(to) && from.getRank() > 0 &&
         to.getRank() > 0 && from.getNumElements() == to.getNumElements() &&
         from.getShape().back() == to.getShape().back();
}

bool isCast(Operation* op, Type element) {
  return op->getName().stripDialect() == "_to_copy" &&
         isContiguous(tensorType(op->getOperand(0))) &&
         isContiguous(tensorType(op->getResult(0))) &&
         tensorType(op->getOperand(0)).getShape() ==
             tensorType(op->getResult(0)).getShape() &&
         elementOf(op->getResult(0)) == element;
}

// The 16-bit logits that f32 `logits` were widened from, or null.
Value narrowLogits(Value logits) {
  for (Operation* op = logits.getDefiningOp(); op;
       op = logits.getDefiningOp()) {
    if (isCast(op, Float32Type::get(op->getContext()))) {
      Value source = op->getOperand(0);
      bool narrow = elementOf(source).isBF16() || elementOf(source).isF16();
      return narrow ? source : Value();
    }
    if (!keepsRows(op)) return nullptr;
    logits = op->getOperand(0);
  }
  return nullptr;
}

// The value of `logits`' type that the f32 gradient is narrowed to and that
// nothing else is made of, or null.
Value narrowGradient(Value gradient, Value logits) {
  while (gradient.hasOneUse()) {
    Operation* op = *gradient.user_begin();
    if (isCast(op, elementOf(logits)))
      return op->getResult(0).getType() == logits.getType() ? op->getResult(0)
                                                            : Value();
    if (!keepsRows(op)) return nullptr;
    gradient = op->getResult(0);
  }
  return nullptr;
}

}  // namespace

std::string crossEntropyForm(Pair& pair) {
  Scope scope(pair.forward, pair.backward);
  Match match;
  Value loss;
  for (OpResult result : pair.forward.getResults())
    if (scope.matches(result,
                      "(nll_loss_forward:nll (_log_softmax:softmax ?logits) "
                      "?labels)",
                      match))
      loss = result;
  if (!loss) return "its operators are not nll_loss(log_softmax(logits))";
  Operation* nll = match.op("nll");
  Operation* softmax = match.op("softmax");
  Value wide = match["logits"], labels = match["labels"];
  int64_t reduction = nll->getAttrOfType<IntegerAttr>("reduction").getInt();
  int64_t dim = softmax->getAttrOfType<IntegerAttr>("dim").getInt();
  if (nll->getNumOperands() != 2) return "it weights its classes";
  if (reduction != 1 && reduction != 2)
    return "it gives a loss per label, not their mean or sum";
  if (tensorType(wide).getRank() != 2 || (dim != 1 && dim != -1) ||
      tensorType(labels).getRank() != 1)
    return "its logits are not rows of classes";
  if (std::string why = checkRows({wide}); !why.empty()) return why;
  if (!isContiguous(tensorType(wide))) return "its logits are not row-major";

  Value gradient, logits = narrowLogits(wide);
  if (!logits) logits = wide;
  if (pair.backward) {
    match.values["total"] = nll->getResult(1);
    if (pair.backward.getNumResults() != 1 ||
        !scope.matches(pair.backward.getResult(0),
                       "(_log_softmax_backward_data:softmax_backward "
                       "(nll_loss_backward:nll_backward ?dloss (_log_softmax "
                       "?logits) ?labels ?total) (_log_softmax ?logits))",
                       match))
      return "its gradient is not computed as expected";
    for (llvm::StringRef name : {"ignore_index", "reduction"})
      if (match.op("nll_backward")->getAttr(name) != nll->getAttr(name))
        return "its gradient is not that of its loss";
    Value dloss = match["dloss"];
    if ((dloss.getDefiningOp() && scope.contains(dloss.getDefiningOp())) ||
        tensorType(dloss).getNumElements() != 1)
      return "its gradient is computed from a value in its midst";
    gradient = pair.backward.getResult(0);
    if (logits != wide) {
      Value narrow = narrowGradient(gradient, logits);
      if (narrow) {
        gradient = narrow;
      } else {
        logits = wide;
      }
    }
    if (gradient.getType() != logits.getType())
      return "its gradient is not of its logits' type";
  }

  MLIRContext* context = loss.getContext();
  Type i64 = IntegerType::get(context, 64);
  llvm::SmallVector<std::pair<std::string, Attribute>> scalars = {
      {"ignore_index", nll->getAttr("ignore_index")},
      {"mean", IntegerAttr::get(i64, reduction == 1)}};
  auto perRow =
      rowMajor({tensorType(wide).getDimSize(0)}, Float32Type::get(context));
  Launch& first = pair.first;
  first.kernel = "cross_entropy";
  // The labels stand where nll_loss_forward has them.
  first.operand("logits", logits);
  first.operand("labels", labels);
  first.scalars = scalars;
  first.replaces.push_back({loss, first.result(loss.getType())});
  first.result(nll->getResult(1).getType());
  first.result(perRow);
  first.result(perRow);
  for (OpResult result : pair.forward.getResults())
    if (scope.origin(result) == nll->getResult(1))
      first.replaces.push_back({result, 1});
  if (!pair.backward) return "";
  Launch& second = pair.second;
  second.kernel = "cross_entropy_backward";
  second.operand("dloss", match["dloss"]);
  second.operand("logits", logits);
  second.operand("labels", labels);
  second.saved("total_weight", 1);
  second.saved("lse", 2);
  second.scalars = scalars;
  second.replaces.push_back(
      {gradient, second.result(logits.getType(), "logits")});
  return "";
}

}  // namespace heddle::graph
