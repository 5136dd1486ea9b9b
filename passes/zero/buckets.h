// A step's parameters -> the flat buckets they lie in. Decides, changes
// nothing. Invariant: the plan depends on the training step alone and in
// program order, so that training, evaluation and every rank agree on it. What
// would break it: a key that depends on the order of a hash map.
#ifndef HEDDLE_PASSES_ZERO_BUCKETS_H_
#define HEDDLE_PASSES_ZERO_BUCKETS_H_

#include <string>
#include <vector>

#include "ir/dist/DistDialect.h"
#include "ir/graph/GraphOps.h"
#include "ir/optim/OptimDialect.h"

namespace heddle::zero {

// One parameter and, where it is trained, the ops of its update.
struct Member {
  graph::ParamAttr role;
  unsigned argument = 0;  // of the training step
  mlir::RankedTensorType type;
  int64_t offset = 0;  // elements from the bucket's start
  int64_t elements = 0;
  optim::AccumulateOp accumulate;
  optim::AdamWOp adamw;
};

struct Bucket {
  std::string name;
  std::vector<Member> members;
  // A multiple of ranks * dist::kSlotAlignment.
  int64_t elements = 0;
  bool trained = false;

  mlir::Type element() const { return members.front().type.getElementType(); }
};

// Trained parameters, and with `frozen` the others too, bucket by bucket in
// order of their first parameter.
mlir::FailureOr<std::vector<Bucket>> planBuckets(graph::StepOp step,
                                                 int64_t ranks, bool frozen);

// The members as the roles of bucket arguments hold them, with `element` in
// place of the parameters' dtype.
mlir::ArrayAttr membersOf(const Bucket& bucket, mlir::Type element);

// `type` with another element type, layout kept.
mlir::RankedTensorType withElement(mlir::RankedTensorType type,
                                   mlir::Type element);

}  // namespace heddle::zero

#endif  // HEDDLE_PASSES_ZERO_BUCKETS_H_
