// Removes what nothing reads and merges what is computed twice. Walks the one
// block of a step, backwards and forwards. Invariant: an op with `graph.rng_id`
// draws from a generator, so it is neither removed nor merged.
#include "ir/graph/GraphOps.h"
#include "ir/graph/op_table.h"
#include "llvm/ADT/DenseMap.h"
#include "mlir/IR/Builders.h"
#include "passes/graph/Passes.h"

namespace heddle::graph {
#define GEN_PASS_DEF_DEADCODE
#define GEN_PASS_DEF_COMMONSUBEXPRESSIONS
#include "passes/graph/Passes.h.inc"

using namespace mlir;

namespace {

bool writes(Operation& op) {
  auto call = llvm::dyn_cast<CallOp>(op);
  return call && call.getMutates() && !call.getDps();
}

bool draws(Operation& op) {
  if (op.hasAttr(GraphDialect::kRngIdAttr)) return true;
  llvm::StringRef name = op.getName().getStringRef();
  const OpRow* row =
      findOpByMlirName(std::string_view(name.data(), name.size()));
  return row && row->random;
}

class DeadCode : public impl::DeadCodeBase<DeadCode> {
  void runOnOperation() override {
    for (Operation& op : llvm::make_early_inc_range(
             llvm::reverse(getOperation().getBody().front()))) {
      if (op.use_empty() && !llvm::isa<GuardOp, ReturnOp>(op) && !writes(op) &&
          !draws(op))
        op.erase();
    }
  }
};

// What must agree for two ops to be one, as one uniqued attribute.
DictionaryAttr meaning(Operation& op) {
  bool anyPhase = llvm::isa<ViewLike>(op);
  llvm::SmallVector<NamedAttribute> kept;
  for (NamedAttribute attribute : op.getAttrDictionary()) {
    if (attribute.getName() == GraphDialect::kNodeAttr ||
        (anyPhase && attribute.getName() == GraphDialect::kPhaseAttr))
      continue;
    kept.push_back(attribute);
  }
  return DictionaryAttr::get(op.getContext(), kept);
}

class CommonSubexpressions
    : public impl::CommonSubexpressionsBase<CommonSubexpressions> {
  void runOnOperation() override {
    llvm::DenseMap<std::pair<size_t, Attribute>,
                   llvm::SmallVector<Operation*, 1>>
        seen;
    Block& body = getOperation().getBody().front();
    for (Operation& op : body) {
      if (writes(op)) {
        op.emitOpError(
            "writes through a handle; run graph-functionalize before "
            "graph-cse");
        return signalPassFailure();
      }
    }
    for (Operation& op : llvm::make_early_inc_range(body)) {
      if (op.getNumResults() == 0 || op.getNumRegions() != 0 || draws(op))
        continue;
      size_t hash = llvm::hash_combine(
          op.getName(),
          llvm::hash_combine_range(op.operand_begin(), op.operand_end()),
          llvm::hash_combine_range(op.result_type_begin(),
                                   op.result_type_end()));
      auto& candidates = seen[{hash, meaning(op)}];
      auto same = llvm::find_if(candidates, [&](Operation* other) {
        return other->getName() == op.getName() &&
               other->getOperands() == op.getOperands() &&
               other->getResultTypes() == op.getResultTypes();
      });
      if (same == candidates.end()) {
        candidates.push_back(&op);
        continue;
      }
      op.replaceAllUsesWith(*same);
      op.erase();
    }
  }
};

}  // namespace
}  // namespace heddle::graph
