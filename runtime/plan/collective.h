// A collective step, its arguments taken apart: one reading of them for the
// checker, the runtime and the reports.

#ifndef HEDDLE_RUNTIME_PLAN_COLLECTIVE_H_
#define HEDDLE_RUNTIME_PLAN_COLLECTIVE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/plan/plan.h"

namespace heddle::plan {

enum class CollectiveKind : int8_t {
  kAllGather,
  kReduceScatter,
  kAllReduce,
  kBroadcast
};

struct Collective {
  CollectiveKind kind = CollectiveKind::kAllReduce;
  uint32_t src = 0;
  uint32_t dst = 0;
  std::string axis;
  int64_t ranks = 1;
  int64_t root = 0;
  // Elements of the bucket where the ranks' parts begin, and its end: ranks + 1
  // of them. Empty for the kinds without parts.
  std::vector<int64_t> bounds;
  // True where the plan gave the bounds: parts may differ in size.
  bool uneven = false;
};

// FailedPrecondition (plan_collective), naming what is wrong, if the step is
// not a collective that the format has or if a rank's part does not fit.
absl::StatusOr<Collective> ReadCollective(const Plan& plan, const Step& step);

// The bytes of src that the rank gives and of dst that it takes, both counted
// from the buffer's start.
ByteRange GivenBytes(const Plan& plan, const Collective& collective,
                     int64_t coordinate);
ByteRange TakenBytes(const Plan& plan, const Collective& collective,
                     int64_t coordinate);

// True if src and dst share bytes as they may on this rank: one is the other,
// or the rank's own slice of it.
bool InPlace(const Plan& plan, const Collective& collective,
             int64_t coordinate);

// Bytes that reach the rank from others, each way of a ring: (W-1)/W of the
// whole for a gather, W-1 parts for a scatter, both for an all_reduce.
uint64_t WireBytes(const Plan& plan, const Collective& collective,
                   int64_t coordinate);

const char* CollectiveName(CollectiveKind kind);

}  // namespace heddle::plan

#endif  // HEDDLE_RUNTIME_PLAN_COLLECTIVE_H_
