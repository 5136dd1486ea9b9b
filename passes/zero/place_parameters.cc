// Windows where a bucket is whole, gathers where it is sharded. Invariant: no
// value that looks into a gathered bucket is used in the other pass over the
// layer. What would break it: a use in the backward pass that reaches the
// parameter through a view taken in the forward pass; such views are taken
// again, or the gathered bucket would live from one pass to the other.
#include "passes/zero/place_parameters.h"

#include <functional>

#include "mlir/IR/IRMapping.h"

namespace heddle::zero {

using namespace mlir;

namespace {

Value rootOf(Value value) {
  while (auto view = value.getDefiningOp<graph::ViewLike>())
    value = view.getViewSource();
  return value;
}

bool isBackward(Operation* op) {
  auto phase =
      op->getAttrOfType<graph::PhaseAttr>(graph::GraphDialect::kPhaseAttr);
  return phase && phase.getValue() != graph::Phase::Forward;
}

class Placement {
 public:
  Placement(graph::StepOp step, llvm::ArrayRef<Attribute> argRoles)
      : step(step),
        block(step.getBody().front()),
        argRoles(argRoles),
        builder(step.getContext()) {}

  // The argument of `member` in this step: a second program numbers its
  // arguments differently, and may not use all parameters.
  BlockArgument argumentOf(const Member& member) {
    for (auto [i, role] : llvm::enumerate(argRoles)) {
      auto param = llvm::dyn_cast<graph::ParamAttr>(role);
      if (param && param.getName() == member.role.getName())
        return block.getArgument(i);
    }
    return nullptr;
  }

  LogicalResult windows(const Bucket& bucket, Value parameter) {
    builder.setInsertionPointToStart(&block);
    for (const Member& member : bucket.members) {
      BlockArgument argument = argumentOf(member);
      if (!argument || argument.use_empty()) continue;
      argument.replaceAllUsesWith(window(member, parameter, argument));
    }
    return success();
  }

  Value window(const Member& member, Value bucket, BlockArgument argument) {
    return builder.create<dist::SlotOp>(
        argument.getLoc(), argument.getType(), bucket,
        builder.getI64IntegerAttr(member.offset));
  }

  // Stage 3: gathered before the first use in each pass over the layer.
  LogicalResult gather(const Bucket& bucket, Value shard) {
    llvm::DenseMap<Value, const Member*> members;
    for (const Member& member : bucket.members)
      if (BlockArgument argument = argumentOf(member))
        members[argument] = &member;
    // Ops that read a member's elements, in program order.
    llvm::SmallVector<Operation*> forward, backward;
    for (Operation& op : block) {
      if (llvm::isa<graph::ViewLike>(op)) continue;
      bool reads = llvm::any_of(op.getOperands(), [&](Value operand) {
        return members.count(rootOf(operand)) != 0;
      });
      if (!reads) continue;
      if (&op == block.getTerminator())
        return step.emitError("returns a parameter of ")
               << bucket.members.front().role.getName()
               << "'s bucket, which stage 3 shards; return a clone of it";
      (isBackward(&op) ? backward : forward).push_back(&op);
    }
    for (llvm::ArrayRef<Operation*> users :
         {llvm::ArrayRef(forward), llvm::ArrayRef(backward)})
      if (!users.empty()) gatherFor(users, members, bucket, shard);
    // What is left are views that nothing reads.
    for (auto [argument, member] : members) eraseViews(argument);
    return success();
  }

  void gatherFor(llvm::ArrayRef<Operation*> users,
                 const llvm::DenseMap<Value, const Member*>& members,
                 const Bucket& bucket, Value shard) {
    builder.setInsertionPoint(users.front());
    auto whole = builder.create<dist::AllGatherOp>(
        users.front()->getLoc(),
        RankedTensorType::get({bucket.elements}, bucket.element()), shard,
        kDataAxis, bucket.unevenBounds());
    whole->setDiscardableAttr(
        graph::GraphDialect::kPhaseAttr,
        graph::PhaseAttr::get(step.getContext(), isBackward(users.front())
                                                     ? graph::Phase::Backward
                                                     : graph::Phase::Forward));
    IRMapping taken;
    // The window on a member, or the view of it, taken again.
    std::function<Value(Value)> again = [&](Value value) -> Value {
      if (Value known = taken.lookupOrNull(value)) return known;
      auto member = members.find(value);
      if (member != members.end()) {
        Value slot =
            window(*member->second, whole, llvm::cast<BlockArgument>(value));
        taken.map(value, slot);
        return slot;
      }
      Operation* view = value.getDefiningOp();
      again(llvm::cast<graph::ViewLike>(view).getViewSource());
      builder.clone(*view, taken);
      return taken.lookup(value);
    };
    for (Operation* user : users)
      for (OpOperand& operand : user->getOpOperands())
        if (members.count(rootOf(operand.get())))
          operand.set(again(operand.get()));
  }

  void eraseViews(Value value) {
    for (Operation* user : llvm::to_vector(value.getUsers())) {
      for (Value result : user->getResults()) eraseViews(result);
      if (user->use_empty()) user->erase();
    }
  }

  graph::StepOp step;
  Block& block;
  llvm::ArrayRef<Attribute> argRoles;
  OpBuilder builder;
};

}  // namespace

LogicalResult placeParameters(graph::StepOp step,
                              llvm::ArrayRef<Attribute> argRoles,
                              const Bucket& bucket, Value parameter,
                              bool sharded) {
  Placement placement(step, argRoles);
  return sharded ? placement.gather(bucket, parameter)
                 : placement.windows(bucket, parameter);
}

}  // namespace heddle::zero
