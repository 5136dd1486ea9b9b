// Arguments are a, b and, where the step adds, c, which is its result.

#include "runtime/plan/gemm.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace heddle::plan {
namespace {

absl::Status Violation(const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat("plan_gemm: ", what));
}

absl::StatusOr<Matrix> MatrixOf(const Plan& plan, int64_t index,
                                const char* name) {
  const Value& value = plan.values[static_cast<size_t>(index)];
  Matrix matrix;
  matrix.value = static_cast<uint32_t>(index);
  if (value.sizes.size() == 2 && ElementCount(value) > 0) {
    matrix.rows = value.sizes[0];
    matrix.columns = value.sizes[1];
    for (bool row_major : {true, false}) {
      const size_t inner = row_major ? 1 : 0;
      const size_t outer = 1 - inner;
      if (value.sizes[inner] != 1 && value.strides[inner] != 1) continue;
      if (value.sizes[outer] != 1 && value.strides[outer] < value.sizes[inner])
        continue;
      matrix.row_major = row_major;
      matrix.leading =
          value.sizes[outer] == 1 ? value.sizes[inner] : value.strides[outer];
      return matrix;
    }
  }
  return Violation(absl::StrCat(
      name, " of sizes [", absl::StrJoin(value.sizes, ", "), "] and strides [",
      absl::StrJoin(value.strides, ", "),
      "] is no matrix with elements side by side along one dimension"));
}

}  // namespace

absl::StatusOr<Gemm> GemmOf(const Plan& plan, const Step& step) {
  Gemm gemm;
  const char* const kNames[] = {"a", "b", "c"};
  if (step.args.size() < 2 || step.args.size() > 3 ||
      step.results.size() != 1 || step.results[0] < 0)
    return Violation(
        "a gemm has the arguments a, b and c or no c, and one "
        "result");
  for (size_t i = 0; i < step.args.size(); ++i) {
    if (step.args[i].kind != ArgKind::kValue || step.args[i].name != kNames[i])
      return Violation(
          absl::StrCat("argument ", i, " of a gemm is a value ", kNames[i]));
  }
  gemm.accumulate = step.args.size() == 3;
  if (gemm.accumulate && step.args[2].i != step.results[0])
    return Violation("c is not what the gemm writes");
  absl::StatusOr<Matrix> a = MatrixOf(plan, step.args[0].i, "a");
  if (!a.ok()) return a.status();
  absl::StatusOr<Matrix> b = MatrixOf(plan, step.args[1].i, "b");
  if (!b.ok()) return b.status();
  absl::StatusOr<Matrix> out = MatrixOf(plan, step.results[0], "the result");
  if (!out.ok()) return out.status();
  gemm.a = *a;
  gemm.b = *b;
  gemm.out = *out;
  if (a->columns != b->rows || out->rows != a->rows ||
      out->columns != b->columns)
    return Violation(absl::StrCat("a is ", a->rows, "x", a->columns, ", b ",
                                  b->rows, "x", b->columns, ", the result ",
                                  out->rows, "x", out->columns));
  gemm.input = plan.values[a->value].dtype;
  gemm.output = plan.values[out->value].dtype;
  const DType other = plan.values[b->value].dtype;
  const bool known = gemm.input == DType::kBF16 || gemm.input == DType::kF16 ||
                     gemm.input == DType::kF32;
  if (!known || other != gemm.input || gemm.output != DType::kF32)
    return Violation(absl::StrCat(
        "a is ", DTypeName(gemm.input), ", b ", DTypeName(other),
        ", the result ", DTypeName(gemm.output),
        "; a and b are both bf16, f16 or f32 and the result is f32"));
  return gemm;
}

}  // namespace heddle::plan
