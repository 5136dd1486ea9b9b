// sched.plan -> plan data and bytes.
// Invariant: what is emitted parses: emitPlan reads its own bytes back before
// it returns them.
#ifndef HEDDLE_PASSES_EMIT_EMIT_H_
#define HEDDLE_PASSES_EMIT_EMIT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ir/sched/Sched.h"

namespace heddle {

// The bytes of the plan file; an error on the op that cannot be written. Every
// buffer must have been placed.
mlir::FailureOr<std::vector<uint8_t>> emitPlan(sched::PlanOp plan);

// What plan::SignatureText will say of the step; "" where a dtype is none of a
// plan's.
std::string signatureOf(sched::StepInterface step);

}  // namespace heddle

#endif  // HEDDLE_PASSES_EMIT_EMIT_H_
