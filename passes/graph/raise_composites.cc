// Wraps matched ops in graph.composite and, the other way, puts bodies back.
// Finds everything first, rewrites afterwards. Invariant: no op's operands or
// attributes change, only where ops stand; an op with a random draw never moves
// past another.
#include "llvm/ADT/DenseSet.h"
#include "mlir/IR/Builders.h"
#include "passes/graph/Passes.h"
#include "passes/graph/composite_patterns.h"

namespace heddle::graph {
#define GEN_PASS_DEF_RAISECOMPOSITES
#define GEN_PASS_DEF_INLINECOMPOSITES
#include "passes/graph/Passes.h.inc"

using namespace mlir;

namespace {

// The ops between the first and the last of a composite that read its results,
// in program order; they will stand after it. Fails where one of them feeds the
// composite or may not move.
FailureOr<llvm::SmallVector<Operation*>> opsToMoveBehind(
    llvm::ArrayRef<Operation*> ops, const llvm::DenseSet<Operation*>& inside) {
  llvm::SmallVector<Operation*> behind;
  llvm::DenseSet<Operation*> late;
  for (Operation* op = ops.front(); op != ops.back()->getNextNode();
       op = op->getNextNode()) {
    bool isInside = inside.contains(op);
    bool readsLate = llvm::any_of(op->getOperands(), [&](Value v) {
      return v.getDefiningOp() && late.contains(v.getDefiningOp());
    });
    bool readsInside = llvm::any_of(op->getOperands(), [&](Value v) {
      return v.getDefiningOp() && inside.contains(v.getDefiningOp());
    });
    if (isInside && readsLate) return failure();
    if (isInside || !(readsLate || readsInside)) continue;
    if (op->hasAttr(GraphDialect::kRngIdAttr) || llvm::isa<GuardOp>(op))
      return failure();
    late.insert(op);
    behind.push_back(op);
  }
  return behind;
}

llvm::SmallVector<Operation*> inProgramOrder(const Composite& composite) {
  llvm::SmallVector<Operation*> ops(composite.ops.begin(), composite.ops.end());
  llvm::sort(ops,
             [](Operation* a, Operation* b) { return a->isBeforeInBlock(b); });
  return ops;
}

class RaiseComposites : public impl::RaiseCompositesBase<RaiseComposites> {
  void runOnOperation() override {
    Block& body = getOperation().getBody().front();
    std::vector<Composite> composites = findForwardComposites(body);
    std::vector<Composite> backward = findBackwardComposites(body, composites);
    llvm::append_range(composites, backward);
    for (Composite& composite : composites) {
      if (composite.ops.empty()) continue;
      Location loc = composite.ops.front()->getLoc();
      if (failed(wrap(composite)))
        mlir::emitRemark(loc)
            << "left alone: the ops of this " << composite.kind
            << " are not one region of the program";
    }
  }

  static LogicalResult wrap(const Composite& composite) {
    llvm::SmallVector<Operation*> ops = inProgramOrder(composite);
    llvm::DenseSet<Operation*> inside(ops.begin(), ops.end());
    FailureOr<llvm::SmallVector<Operation*>> behind =
        opsToMoveBehind(ops, inside);
    if (failed(behind)) return failure();
    if (llvm::any_of(ops, [](Operation* op) {
          return op->hasAttr(GraphDialect::kRngIdAttr);
        }))
      return failure();

    llvm::SetVector<Value> inputs;
    llvm::SmallVector<Value> outputs;
    for (Operation* op : ops) {
      for (Value operand : op->getOperands()) {
        if (!operand.getDefiningOp() ||
            !inside.contains(operand.getDefiningOp()))
          inputs.insert(operand);
      }
      for (Value result : op->getResults()) {
        if (llvm::any_of(result.getUsers(), [&](Operation* user) {
              return !inside.contains(user);
            }))
          outputs.push_back(result);
      }
    }
    if (outputs.empty()) return failure();

    OpBuilder builder(ops.back());
    builder.setInsertionPointAfter(ops.back());
    auto wrapped = builder.create<CompositeOp>(
        ops.back()->getLoc(), TypeRange(ValueRange(outputs)),
        inputs.getArrayRef(), builder.getStringAttr(composite.kind));
    if (Attribute node = nodeOf(composite.anchor))
      wrapped->setDiscardableAttr(GraphDialect::kNodeAttr, node);
    for (llvm::StringRef name :
         {llvm::StringRef(GraphDialect::kPhaseAttr),
          llvm::StringRef(GraphDialect::kRecomputeOfAttr)}) {
      if (Attribute value = ops.back()->getDiscardableAttr(name))
        wrapped->setDiscardableAttr(name, value);
    }
    for (Operation* op : llvm::reverse(*behind)) op->moveAfter(wrapped);

    Block& body = wrapped.getBody().emplaceBlock();
    for (Operation* op : ops) op->moveBefore(&body, body.end());
    for (Value input : inputs) {
      BlockArgument argument =
          body.addArgument(input.getType(), input.getLoc());
      input.replaceUsesWithIf(argument, [&](OpOperand& use) {
        return use.getOwner()->getBlock() == &body;
      });
    }
    for (auto [output, result] : llvm::zip(outputs, wrapped.getResults())) {
      output.replaceUsesWithIf(result, [&](OpOperand& use) {
        return use.getOwner()->getBlock() != &body;
      });
    }
    builder.setInsertionPointToEnd(&body);
    builder.create<YieldOp>(wrapped.getLoc(), outputs);
    return success();
  }

  // The forward anchor may already stand in its composite, which carries the
  // same node.
  static Attribute nodeOf(Operation* anchor) {
    return anchor->getDiscardableAttr(GraphDialect::kNodeAttr);
  }
};

class InlineComposites : public impl::InlineCompositesBase<InlineComposites> {
  void runOnOperation() override {
    for (auto composite : llvm::make_early_inc_range(
             getOperation().getBody().front().getOps<CompositeOp>())) {
      Block& body = composite.getBody().front();
      for (auto [argument, input] :
           llvm::zip(body.getArguments(), composite.getInputs()))
        argument.replaceAllUsesWith(input);
      Operation* yield = body.getTerminator();
      composite->replaceAllUsesWith(yield->getOperands());
      yield->erase();
      composite->getBlock()->getOperations().splice(Block::iterator(composite),
                                                    body.getOperations());
      composite.erase();
    }
  }
};

}  // namespace
}  // namespace heddle::graph
