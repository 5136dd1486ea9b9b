// Any bytes as a plan: parsed, printed, checked and written again without a
// crash.

#include <cstddef>
#include <cstdint>

#include "runtime/plan/plan.h"
#include "runtime/plan/verify.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::StatusOr<heddle::plan::Plan> plan =
      heddle::plan::ParsePlan(data, size);
  if (!plan.ok()) return 0;
  heddle::plan::PlanText(*plan);
  heddle::plan::Verify(*plan).IgnoreError();
  const std::vector<uint8_t> bytes = heddle::plan::Serialize(*plan);
  if (!heddle::plan::ParsePlan(bytes.data(), bytes.size()).ok())
    __builtin_trap();
  return 0;
}
