// What passes decided -> the plan's configuration, where reports look for it.
// Invariant: the configuration stays one JSON object; a key is written once.
#ifndef HEDDLE_PASSES_SCHEDULE_PLAN_CONFIG_H_
#define HEDDLE_PASSES_SCHEDULE_PLAN_CONFIG_H_

#include "ir/sched/Sched.h"
#include "llvm/Support/JSON.h"

namespace heddle {

// Sets `key` of the plan's configuration.
void recordInConfig(sched::PlanOp plan, llvm::StringRef key,
                    llvm::json::Value value);

}  // namespace heddle

#endif  // HEDDLE_PASSES_SCHEDULE_PLAN_CONFIG_H_
