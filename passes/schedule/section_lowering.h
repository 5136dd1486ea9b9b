// One section: graph ops in a fixed order -> steps over scratch buffers.
// Invariant: every graph value that a step touches has exactly one ref; views
// are refs on their root's buffer; a step writes over an operand's bytes only
// where the operand is dead afterwards and its kernel allows it. What would
// break it: emitting steps in another order than the one liveness was computed
// for.
#ifndef HEDDLE_PASSES_SCHEDULE_SECTION_LOWERING_H_
#define HEDDLE_PASSES_SCHEDULE_SECTION_LOWERING_H_

#include <map>
#include <string>

#include "ir/dist/DistDialect.h"
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

// Where a window lies in what it looks into: elements behind its start, the
// same or by rank.
struct Window {
  int64_t offset = 0;
  int64_t rankStride = 0;
  llvm::SmallVector<int64_t> rankOffsets = {};
  llvm::SmallVector<int64_t> rankSizes = {};
};

// The window that rank r's part of [bounds[r], bounds[r + 1]) is; of `length`
// elements each where bounds are absent.
Window partOf(std::optional<llvm::ArrayRef<int64_t>> bounds, int64_t length);

// A ref of `type` into the bytes that `source` looks into.
mlir::Value refInto(mlir::OpBuilder& builder, mlir::Location loc,
                    mlir::RankedTensorType type, mlir::Value source,
                    const Window& window = {});

// The accumulation that takes a pack as its only reader: its slots are written
// through the pack.
optim::AccumulateOp accumulationOf(dist::PackOp pack);

// How a section's gradients come into their buckets.
struct Placements {
  int64_t inPlace = 0;
  struct Copies {
    int64_t count = 0;
    int64_t bytes = 0;
  };
  // By the operator that makes the gradient and why it is copied.
  std::map<std::pair<std::string, std::string>, Copies> copied;
};

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

  // `value` is computed into `ref`, where the op that makes it can.
  void placeInto(mlir::Value value, mlir::Value ref) { wanted[value] = ref; }

  // Bytes of matrices that Muon orthogonalises at a time.
  void setMuonStack(int64_t bytes) { muonStack = bytes; }

  const Placements& getPlacements() const { return placements; }

  mlir::OpBuilder& getBuilder() { return builder; }
  sched::KernelOp kernel(
      mlir::Operation* origin, llvm::StringRef name,
      llvm::ArrayRef<std::pair<llvm::StringRef, mlir::Attribute>> args,
      mlir::ValueRange reads, mlir::ValueRange writes);
  void copy(mlir::Operation* origin, mlir::Value from, mlir::Value to);

 private:
  // Matrix products (gemm_lowering.cc): `out` is lhs · rhs, added to what it
  // holds if `adds`.
  mlir::LogicalResult lowerAccumulateProduct(mlir::Operation* op);
  mlir::LogicalResult lowerProduct(mlir::Operation* op);
  void gemm(mlir::Operation* op, mlir::Value lhs, mlir::Value rhs,
            mlir::Value out, bool transposed, bool adds);

  // Optimizer ops (optim_lowering.cc).
  mlir::LogicalResult lowerOptim(mlir::Operation* op);
  mlir::LogicalResult lowerNorm(
      mlir::Operation* op, llvm::StringRef name,
      llvm::SmallVector<std::pair<llvm::StringRef, mlir::Attribute>> args,
      mlir::ValueRange reads, mlir::Value partials = nullptr);

  // Windows, packs and collectives (dist_lowering.cc).
  mlir::LogicalResult lowerDist(mlir::Operation* op);
  // The stream that a collective, or the sum of what one brought, runs on.
  uint64_t streamFor(mlir::Operation* op);
  void planDeliveries();
  // Why operand `number` of `pack` cannot be computed where the bucket has it;
  // empty if it can.
  std::string whyCopied(dist::PackOp pack, unsigned number);
  mlir::LogicalResult deliverAfter(mlir::Operation* op);
  mlir::LogicalResult deliver(dist::PackOp pack, unsigned number);
  mlir::Value packTarget(dist::PackOp pack);
  void clearGaps(dist::PackOp pack, mlir::Value bucket);
  mlir::Value collectiveTarget(mlir::Operation* op);
  mlir::Value firstSum(dist::ReduceScatterOp scatter);
  mlir::Value gatheredPart(mlir::Value value);
  // Muon (muon_lowering.cc).
  mlir::LogicalResult lowerMuon(optim::MuonOp op);
  mlir::Value muonCopyTarget(mlir::Value copy);
  mlir::LogicalResult lowerMultiAdamW(optim::MultiAdamWOp adamw);
  template <typename Op>
  mlir::LogicalResult adamWArgs(
      Op adamw, mlir::StringAttr divisor,
      llvm::SmallVectorImpl<std::pair<llvm::StringRef, mlir::Attribute>>& args,
      llvm::SmallVectorImpl<mlir::Value>& reads);
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
  RefMap wanted;
  // Packs and the operands of theirs that an op computes.
  llvm::DenseMap<mlir::Operation*,
                 llvm::SmallVector<std::pair<dist::PackOp, unsigned>, 1>>
      deliveries;
  // Values that are computed in their slot: the pack and its operand.
  llvm::DenseMap<mlir::Value, std::pair<dist::PackOp, unsigned>> slotOf;
  int64_t muonStack = 0;
  Placements placements;
  mlir::OpBuilder builder;
  Liveness liveness;
  int64_t position = 0;
};

template <typename Step>
void SectionLowering::annotate(Step step, mlir::Operation* origin) {
  if (auto rng = origin->getAttrOfType<mlir::IntegerAttr>(
          graph::GraphDialect::kRngIdAttr))
    step.setRngId(rng.getInt());
  if (auto phase = origin->getAttrOfType<graph::PhaseAttr>(
          graph::GraphDialect::kPhaseAttr))
    step.setPhase(static_cast<uint64_t>(phase.getValue()));
  if (auto costed = mlir::dyn_cast<graph::Costed>(origin))
    step.setFlops(costed.getFlops());
}

}  // namespace heddle

#endif  // HEDDLE_PASSES_SCHEDULE_SECTION_LOWERING_H_
