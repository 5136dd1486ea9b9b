// A step's parameters -> the flat buckets they lie in, and which rank owns what
// of them. Decides, changes nothing. Invariant: the plan depends on the
// training step alone and in program order, so that training, evaluation and
// every rank agree on it. What would break it: a key that depends on the order
// of a hash map.
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
  optim::AverageOp average;
  optim::AdamWOp adamw;
  optim::MuonOp muon;

  // The value that is updated: the parameter or its master. Null if frozen.
  mlir::Value updated() const;
};

// Where a bucket of one kind of state lies in the range of bytes that it shares
// with the others of its update.
struct Place {
  std::string arena;  // empty: a range of its own
  int64_t whole = 0;
  llvm::SmallVector<int64_t> shards;  // per rank
};

struct Bucket {
  std::string name;
  std::vector<Member> members;
  int64_t elements = 0;
  // Rank r's part is [bounds[r], bounds[r + 1]).
  llvm::SmallVector<int64_t> bounds;
  // Parts of one length. What is updated matrix by matrix is cut between
  // matrices instead.
  bool even = true;
  Place place;

  bool trained() const { return members.front().accumulate != nullptr; }
  bool isMuon() const { return members.front().muon != nullptr; }
  mlir::Type element() const { return members.front().type.getElementType(); }
  // Length of the longest part.
  int64_t shard() const;
  // What an op on parts that differ in length says; empty where they do not.
  llvm::ArrayRef<int64_t> unevenBounds() const {
    return even ? llvm::ArrayRef<int64_t>() : llvm::ArrayRef<int64_t>(bounds);
  }
};

// Trained parameters, and with `frozen` the others too, bucket by bucket in
// order of their first parameter.
mlir::FailureOr<std::vector<Bucket>> planBuckets(graph::StepOp step,
                                                 int64_t ranks, bool frozen);

// Gives every matrix of the Muon buckets an owner, balanced by what its
// Newton-Schulz costs, and cuts the buckets accordingly (owners.cc).
void assignOwners(std::vector<Bucket>& buckets, int64_t ranks);

// The members as the roles of bucket arguments hold them, with `element` in
// place of the parameters' dtype.
mlir::ArrayAttr membersOf(const Bucket& bucket, mlir::Type element);

// `type` with another element type, layout kept.
mlir::RankedTensorType withElement(mlir::RankedTensorType type,
                                   mlir::Type element);

inline int64_t alignUp(int64_t value, int64_t to) {
  return (value + to - 1) / to * to;
}

}  // namespace heddle::zero

#endif  // HEDDLE_PASSES_ZERO_BUCKETS_H_
