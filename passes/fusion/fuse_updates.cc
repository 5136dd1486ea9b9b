// Joins optim.adamw ops into optim.multi_adamw. Groups first, writes second.
// Invariant: every joined update's operands exist before the last of its group,
// where the new op stands, and its results leave the step and are read by
// nothing else.
#include <map>

#include "mlir/IR/Builders.h"
#include "passes/fusion/Passes.h"

namespace heddle::graph {
#define GEN_PASS_DEF_FUSEUPDATES
#include "passes/fusion/Passes.h.inc"

using namespace mlir;

namespace {

// One update, the cast of its new parameter (or null) and the parameter that
// the cast's result replaces.
struct Update {
  optim::AdamWOp adamw;
  Operation* cast = nullptr;
  Value copy;
};

Type elementOf(Value value) {
  return llvm::cast<RankedTensorType>(value.getType()).getElementType();
}

bool isReturnOnly(Value value) {
  return llvm::all_of(value.getUsers(), [](Operation* user) {
    return llvm::isa<ReturnOp>(user);
  });
}

// What updates of one group have in common.
std::string keyOf(const Update& update) {
  optim::AdamWOp op = update.adamw;
  std::string key;
  llvm::raw_string_ostream stream(key);
  llvm::SmallVector<Value> values = {op.getParam(), op.getGrad(),
                                     op.getExpAvg(), op.getExpAvgSq(),
                                     update.copy};
  for (Value value : values)
    if (value) stream << elementOf(value) << ' ';
  for (Value scalar : {op.getFactor(), op.getFinite()})
    stream << scalar.getAsOpaquePointer() << ' ';
  for (Attribute number :
       {op.getBeta1Attr(), op.getBeta2Attr(), op.getEpsAttr(),
        op.getWeightDecayAttr(), op.getLrScaleAttr()})
    stream << number << ' ';
  if (auto average = op.getGrad().getDefiningOp<optim::AverageOp>())
    stream << average.getDivisor();
  return key;
}

class FuseUpdates : public impl::FuseUpdatesBase<FuseUpdates> {
  void runOnOperation() override {
    StepOp step = getOperation();
    Block& body = step.getBody().front();
    collectParameters(step);
    // Groups in the order of their first update, so that equal programs give
    // equal plans.
    llvm::SmallVector<llvm::SmallVector<Update>> groups;
    std::map<std::string, size_t> numberOf;
    for (auto adamw : body.getOps<optim::AdamWOp>()) {
      Update update{adamw, nullptr, {}};
      if (!joinable(update)) continue;
      auto [at, fresh] = numberOf.try_emplace(keyOf(update), groups.size());
      if (fresh) groups.emplace_back();
      groups[at->second].push_back(update);
    }
    for (llvm::ArrayRef<Update> group : groups) join(group);
    for (auto norm : body.getOps<optim::GradNormOp>()) {
      if (!elementOf(norm.getResult()).isF64()) norm.setFused(true);
    }
  }

  // Which argument each returned new value replaces.
  void collectParameters(StepOp step) {
    llvm::DenseMap<Attribute, Value> arguments;
    for (auto [role, argument] :
         llvm::zip(step.getArgRoles(), step.getBody().front().getArguments()))
      if (auto param = llvm::dyn_cast<ParamAttr>(role))
        arguments[param.getName()] = argument;
    replacedBy.clear();
    for (auto [role, value] :
         llvm::zip(step.getResultRoles(),
                   step.getBody().front().getTerminator()->getOperands()))
      if (auto fresh = llvm::dyn_cast<NewValueAttr>(role))
        replacedBy[value] = arguments.lookup(fresh.getName());
  }

  bool joinable(Update& update) const {
    optim::AdamWOp op = update.adamw;
    if (elementOf(op.getParam()).isF64()) return false;
    for (Value value :
         {op.getParam(), op.getGrad(), op.getExpAvg(), op.getExpAvgSq()})
      if (llvm::cast<RankedTensorType>(value.getType()).getEncoding())
        return false;
    if (!isReturnOnly(op.getNewExpAvg()) || !isReturnOnly(op.getNewExpAvgSq()))
      return false;
    for (Operation* user : op.getNewParam().getUsers()) {
      if (llvm::isa<ReturnOp>(user)) continue;
      if (user->getName().stripDialect() != "_to_copy" || update.cast ||
          !isReturnOnly(user->getResult(0)))
        return false;
      update.cast = user;
      update.copy = replacedBy.lookup(user->getResult(0));
      if (!update.copy ||
          update.copy.getType() != user->getResult(0).getType() ||
          elementOf(update.copy).isF64())
        return false;
    }
    return true;
  }

  static void join(llvm::ArrayRef<Update> group) {
    optim::AdamWOp last = group.back().adamw;
    llvm::SmallVector<Value> params, grads, averages, squares, copies;
    for (const Update& update : group) {
      optim::AdamWOp op = update.adamw;
      params.push_back(op.getParam());
      grads.push_back(op.getGrad());
      averages.push_back(op.getExpAvg());
      squares.push_back(op.getExpAvgSq());
      if (update.copy) copies.push_back(update.copy);
    }
    OpBuilder builder(last);
    auto multi = builder.create<optim::MultiAdamWOp>(
        last.getLoc(), TypeRange(ValueRange(params)),
        TypeRange(ValueRange(averages)), TypeRange(ValueRange(squares)),
        TypeRange(ValueRange(copies)), params, grads, averages, squares, copies,
        last.getFactor(), last.getFinite(), last.getBeta1Attr(),
        last.getBeta2Attr(), last.getEpsAttr(), last.getWeightDecayAttr(),
        last.getLrScaleAttr(), last.getGroupAttr());
    if (Attribute phase = last->getDiscardableAttr(GraphDialect::kPhaseAttr))
      multi->setDiscardableAttr(GraphDialect::kPhaseAttr, phase);
    for (auto [i, update] : llvm::enumerate(group)) {
      optim::AdamWOp op = update.adamw;
      if (update.cast) {
        update.cast->getResult(0).replaceAllUsesWith(multi.getNewCopies()[i]);
        update.cast->erase();
      }
      op.getNewParam().replaceAllUsesWith(multi.getNewParams()[i]);
      op.getNewExpAvg().replaceAllUsesWith(multi.getNewExpAvgs()[i]);
      op.getNewExpAvgSq().replaceAllUsesWith(multi.getNewExpAvgSqs()[i]);
      op.erase();
    }
  }

  llvm::DenseMap<Value, Value> replacedBy;
};

}  // namespace
}  // namespace heddle::graph
