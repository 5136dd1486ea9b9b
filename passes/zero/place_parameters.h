// The parameters of a step -> windows into their buckets.
#ifndef HEDDLE_PASSES_ZERO_PLACE_PARAMETERS_H_
#define HEDDLE_PASSES_ZERO_PLACE_PARAMETERS_H_

#include "passes/zero/buckets.h"

namespace heddle::zero {

// The axis that data-parallel ranks lie along.
inline constexpr llvm::StringLiteral kDataAxis = "dp";

// Replaces every use of the bucket's members, arguments of `step` with the
// roles `argRoles`, by windows on `parameter`: the bucket itself, or with
// `sharded` this rank's part of it, which is gathered before the first use in
// the forward and in the backward pass. Fails where the step returns a member
// that is sharded.
mlir::LogicalResult placeParameters(graph::StepOp step,
                                    llvm::ArrayRef<mlir::Attribute> argRoles,
                                    const Bucket& bucket, mlir::Value parameter,
                                    bool sharded);

}  // namespace heddle::zero

#endif  // HEDDLE_PASSES_ZERO_PLACE_PARAMETERS_H_
