// One section: graph ops in a fixed order -> steps over scratch buffers.
// Invariant: every graph value that a step touches has exactly one ref; views
// are refs on their root's buffer; a step writes over an operand's bytes only
// where the operand is dead afterwards and its kernel allows it. What would
// break it: emitting steps in another order than the one liveness was computed
// for.
#ifndef HEDDLE_PASSES_SCHEDULE_SECTION_LOWERING_H_
#define HEDDLE_PASSES_SCHEDULE_SECTION_LOWERING_H_

#include "ir/graph/GraphOps.h"
#include "ir/graph/aten_call.h"
#include "ir/optim/OptimDialect.h"
#include "ir/sched/Sched.h"
#include "llvm/ADT/DenseMap.h"
#include "mlir/IR/Builders.h"
#include "passes/analysis/storage.h"

namespace heddle {

using RefMap = llvm::DenseMap<mlir::Value, mlir::Value>;

// The ops of `block` that `roots` and `effects` (ops kept for what they do)
// depend on, in program order; `stops` are values that are given, not computed.
llvm::SmallVector<mlir::Operation*> sliceFor(
    mlir::Block& block, llvm::ArrayRef<mlir::Value> roots,
    llvm::ArrayRef<mlir::Operation*> effects, const RefMap& stops);

// A new buffer of `type`'s storage and the ref over all of it.
mlir::Value makeBuffer(mlir::OpBuilder& builder, mlir::Location loc,
                       mlir::RankedTensorType type, sched::Arena arena,
                       sched::Category category, llvm::StringRef label);

class SectionLowering {
 public:
  // `given` maps step arguments (and values of other sections) to refs of the
  // plan. `results` are the graph values the caller reads.
  SectionLowering(sched::SectionOp section,
                  llvm::ArrayRef<mlir::Operation*> order,
                  llvm::ArrayRef<mlir::Value> results, const RefMap& given);

  // Emits every op of the order. Stops at the first op it cannot lower, with an
  // error there.
  mlir::LogicalResult run();

  // The ref of a value of this section, made on first use for a view; null
  // (with an error) for a value that is not available here.
  mlir::Value refOf(mlir::Value value);

  // `kind`: loss, gradient, output, new_value.
  mlir::LogicalResult addResult(llvm::StringRef kind, llvm::StringRef name,
                                mlir::Value value);

  mlir::OpBuilder& getBuilder() { return builder; }
  sched::KernelOp kernel(
      mlir::Operation* origin, llvm::StringRef name,
      llvm::ArrayRef<std::pair<llvm::StringRef, mlir::Attribute>> args,
      mlir::ValueRange reads, mlir::ValueRange writes);
  void copy(mlir::Operation* origin, mlir::Value from, mlir::Value to);

 private:
  // Optimizer ops (optim_lowering.cc).
  mlir::LogicalResult lowerOptim(mlir::Operation* op);
  mlir::LogicalResult lowerMultiAdamW(optim::MultiAdamWOp adamw);
  mlir::Value normPartials(mlir::Operation* op, optim::GradNormOp norm);

  mlir::LogicalResult lowerOp(mlir::Operation* op);
  mlir::LogicalResult lowerCall(mlir::Operation* op);
  mlir::LogicalResult lowerGuard(graph::GuardOp op);
  mlir::LogicalResult lowerViewUpdate(graph::ViewUpdateOp op);
  mlir::LogicalResult lowerCopy(mlir::Operation* op);
  mlir::LogicalResult lowerKernel(graph::KernelOp op);

  // True if `value`'s bytes are scratch and nobody reads them after the op
  // being lowered.
  bool diesHere(mlir::Value value);
  mlir::Value newResult(mlir::Value value, mlir::Operation* origin);
  sched::Category categoryOf(mlir::Value value);
  mlir::FailureOr<mlir::Attribute> argAttr(
      mlir::Operation* op, const graph::AtenArg& arg,
      llvm::SmallVectorImpl<mlir::Value>& reads);

  template <typename Step>
  void annotate(Step step, mlir::Operation* origin);

  sched::SectionOp section;
  llvm::ArrayRef<mlir::Operation*> order;
  llvm::DenseSet<mlir::Operation*> inSection;
  llvm::DenseMap<mlir::Value, sched::Category> resultCategory;
  RefMap refs;
  mlir::OpBuilder builder;
  Liveness liveness;
  int64_t position = 0;
};

}  // namespace heddle

#endif  // HEDDLE_PASSES_SCHEDULE_SECTION_LOWERING_H_
