// The part of the static checker that looks at all ranks at once. It runs every
// section on what the bytes are instead of on numbers: whether they are the
// same on every rank, this rank's part of something the ranks agree on, or this
// rank's own, and of which tensor they are which elements.
//   plan_agree     what is replicated (state without bounds, what an update
//                  returns) is the same on every rank when a section ends, a
//                  shard is a part of something all ranks agree on and nothing
//                  is summed over the ranks twice; buffers are rank 0's, what
//                  is trained comes from all ranks
//   plan_parts     parts that meet in one step or collective are the same part
//                  on every rank, and land where the tensor has them

#ifndef HEDDLE_RUNTIME_PLAN_VERIFY_RANKS_H_
#define HEDDLE_RUNTIME_PLAN_VERIFY_RANKS_H_

#include "absl/status/status.h"
#include "runtime/plan/plan.h"

namespace heddle::plan {

// FailedPrecondition, naming rule, section and step, if a rule does not hold.
// The plan has passed every other rule of Verify. Says nothing of a plan of one
// rank, and of one with ranks along several axes.
[[nodiscard]] absl::Status VerifyRanksAgree(const Plan& plan);

}  // namespace heddle::plan

#endif  // HEDDLE_RUNTIME_PLAN_VERIFY_RANKS_H_
