// The static checker: proves that a plan's steps cannot disturb each other, on
// any rank, from the steps alone. Rules, each the prefix of its error:
//   plan_event        an event is signalled once, and before (in the global
//                     order) anything waits for it
//   plan_order        two uses of the same bytes, one of them a write, are
//                     ordered by streams and events
//   plan_overlap      buffers that share scratch bytes have lifetimes that do
//                     not meet; state, constants and inputs never share
//   plan_initialised  a step and a result read only bytes that were written
//                     before, in an order that streams and events guarantee
//   plan_section      a section writes only the arenas and the kinds of state
//                     that are its business
//   plan_once         a section writes a byte of the state once
//   plan_complete   a micro-batch writes every accumulator, the boundary every
//                  tensor that has one and what belongs to it
//   plan_unused     a step of a training plan writes something that is read
//   plan_collective   a collective is one that the format has, along an axis of
//                     the mesh; its parts fit; src and result are apart, or one
//                     is the other or its slice of the rank
//   plan_gemm         matrices of a gemm fit together, and it does not write
//                     over what it multiplies
//   plan_agree, plan_parts   see verify_ranks.h
// What it cannot see: whether a step computes the right thing.

#ifndef HEDDLE_RUNTIME_PLAN_VERIFY_H_
#define HEDDLE_RUNTIME_PLAN_VERIFY_H_

#include "absl/status/status.h"
#include "runtime/plan/plan.h"

namespace heddle::plan {

// FailedPrecondition, naming rule, section, steps and buffers, if a rule does
// not hold. `plan` must come from ParsePlan.
[[nodiscard]] absl::Status Verify(const Plan& plan);

}  // namespace heddle::plan

#endif  // HEDDLE_RUNTIME_PLAN_VERIFY_H_
