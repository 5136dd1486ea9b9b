// fp16's loss scale: the backward pass begins with the scale in place of 1, and
// optim.loss_scale takes it out of norm and gradients again.
#ifndef HEDDLE_PASSES_GRAPH_LOSS_SCALE_H_
#define HEDDLE_PASSES_GRAPH_LOSS_SCALE_H_

#include "ir/graph/GraphOps.h"
#include "ir/optim/OptimDialect.h"
#include "passes/graph/optimizer_config.h"

namespace heddle::graph {

// The kind of state that the scale and its counters are.
inline constexpr llvm::StringLiteral kScalerKind = "scaler";

class LossScale {
 public:
  // Multiplies the seed of `step`'s backward pass. A loss that is a sum over
  // labels (`divisor` is label_count) is scaled as if it were a micro-batch's
  // mean, but for a power of two. Appends the state's roles to `argRoles`.
  static mlir::FailureOr<LossScale> apply(
      StepOp step, const LossScaleSettings& settings, llvm::StringRef divisor,
      llvm::SmallVectorImpl<mlir::Attribute>& argRoles);

  // The op that unscales; hands new state to `giveBack`.
  optim::LossScaleOp unscale(
      mlir::OpBuilder& builder, mlir::Value norm, std::optional<double> maxNorm,
      llvm::function_ref<void(mlir::Attribute, mlir::Value)> giveBack) const;

 private:
  LossScaleSettings settings;
  double seed = 1;
  llvm::SmallVector<mlir::Value, 3> state;
};

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_GRAPH_LOSS_SCALE_H_
