// What a gemm step multiplies: one reading of it for the static checker and for
// the runtime.

#ifndef HEDDLE_RUNTIME_PLAN_GEMM_H_
#define HEDDLE_RUNTIME_PLAN_GEMM_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "runtime/plan/plan.h"

namespace heddle::plan {

// A dense run of rows (or columns) that lie `leading` elements apart.
struct Matrix {
  uint32_t value = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t leading = 0;
  bool row_major = true;
};

// out = a · b, plus out where `accumulate`.
struct Gemm {
  Matrix a;
  Matrix b;
  Matrix out;
  DType input = DType::kBF16;
  DType output = DType::kF32;
  bool accumulate = false;
};

// FailedPrecondition (rule plan_gemm) names what is wrong with the step.
absl::StatusOr<Gemm> GemmOf(const Plan& plan, const Step& step);

}  // namespace heddle::plan

#endif  // HEDDLE_RUNTIME_PLAN_GEMM_H_
