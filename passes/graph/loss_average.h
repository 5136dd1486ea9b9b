// How a step's loss is averaged over micro-batches.
#ifndef HEDDLE_PASSES_GRAPH_LOSS_AVERAGE_H_
#define HEDDLE_PASSES_GRAPH_LOSS_AVERAGE_H_

#include "ir/graph/GraphOps.h"

namespace heddle::graph {

// Prepares the loss for `average`, "tokens", "batches", or empty for tokens
// where the loss allows it, and notes the choice as the step's `loss_average`.
// With tokens the loss result becomes the sum over the micro-batch's labels.
// Returns the divisor of the gradients: label_count or micro_batches.
mlir::FailureOr<llvm::StringRef> averageLoss(StepOp step,
                                             llvm::StringRef average);

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_GRAPH_LOSS_AVERAGE_H_
