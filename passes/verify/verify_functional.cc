// Checks what graph-functionalize promises and what guards rely on. Reads only.
// Invariant: a step that passes can be evaluated in any order that respects
// operands, but for its random ops.
#include "ir/graph/op_table.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/SetVector.h"
#include "passes/verify/Passes.h"

namespace heddle::graph {
#define GEN_PASS_DEF_VERIFYFUNCTIONAL
#include "passes/verify/Passes.h.inc"

using namespace mlir;

namespace {

bool isRandom(Operation* op) {
  llvm::StringRef name = op->getName().getStringRef();
  const OpRow* row =
      findOpByMlirName(std::string_view(name.data(), name.size()));
  return op->hasAttr(GraphDialect::kRngIdAttr) || (row && row->random);
}

class VerifyFunctional : public impl::VerifyFunctionalBase<VerifyFunctional> {
  void runOnOperation() override {
    StepOp step = getOperation();
    bool ok = verifyNewValues(step);
    for (Operation& op : step.getBody().front()) {
      if (auto call = llvm::dyn_cast<CallOp>(op); call && call.getMutates() &&
                                                  !call.getDps() &&
                                                  !call.getMutates()->empty()) {
        call.emitOpError("writes through operand ")
            << call.getMutates()->front()
            << "; run graph-functionalize first (functional_r1)";
        ok = false;
      }
      if (auto guard = llvm::dyn_cast<GuardOp>(op))
        ok &= verifyGuard(step, guard);
    }
    if (!ok) signalPassFailure();
  }

  static bool verifyNewValues(StepOp step) {
    llvm::DenseSet<Attribute> seen;
    for (Attribute role : step.getResultRoles()) {
      if (!llvm::isa<NewValueAttr, NewStateAttr>(role) ||
          seen.insert(role).second)
        continue;
      step.emitError("returns ") << role << " twice (functional_r2)";
      return false;
    }
    return true;
  }

  static bool verifyGuard(StepOp step, GuardOp guard) {
    llvm::SetVector<Operation*> slice;
    slice.insert(guard);
    for (size_t i = 0; i < slice.size(); ++i) {
      if (isRandom(slice[i])) {
        guard.emitOpError("depends on a random value (functional_r3)")
                .attachNote(slice[i]->getLoc())
            << "drawn here";
        return false;
      }
      for (Value operand : slice[i]->getOperands()) {
        if (Operation* producer = operand.getDefiningOp()) {
          slice.insert(producer);
          continue;
        }
        Attribute role = step.getArgRoles()[llvm::cast<BlockArgument>(operand)
                                                .getArgNumber()];
        bool isInteger = llvm::isa<IntegerType>(
            llvm::cast<RankedTensorType>(operand.getType()).getElementType());
        if (llvm::isa<ConstantAttr>(role) ||
            (llvm::isa<InputAttr, BufferAttr>(role) && isInteger))
          continue;
        guard.emitOpError("depends on ")
            << role << " of type " << operand.getType()
            << ", which no batch of integers determines (functional_r3)";
        return false;
      }
    }
    return true;
  }
};

}  // namespace
}  // namespace heddle::graph
