// Gemm steps: the host engine against ATen's product in float64, for every
// layout of the three matrices, and what the checker refuses.
// They bite: with row_major and column-major swapped in IndexOf every layout
// but the symmetric ones fails; without the addition the second run does.

#include "runtime/plan/gemm.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>

#include "runtime/plan/verify.h"
#include "runtime/torch/session.h"
#include "tests/fixtures/plan_builder.h"

namespace heddle::torch_runtime {
namespace {

using heddle::testing::GemmPlan;

std::unique_ptr<Session> Load(const plan::Plan& plan) {
  const std::vector<uint8_t> bytes = plan::Serialize(plan);
  absl::StatusOr<plan::Plan> parsed =
      plan::ParsePlan(bytes.data(), bytes.size());
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Load(*std::move(parsed), 0);
  EXPECT_TRUE(session.ok()) << session.status();
  return session.ok() ? *std::move(session) : nullptr;
}

TEST(GemmTest, AddsProductsOfEveryLayoutLikeFloat64) {
  for (const auto& [dtype, type] :
       {std::pair{plan::DType::kBF16, at::kBFloat16},
        std::pair{plan::DType::kF16, at::kHalf},
        std::pair{plan::DType::kF32, at::kFloat}}) {
    for (int layout = 0; layout < 8; ++layout) {
      auto session = Load(GemmPlan(5, 7, 3, dtype, layout));
      ASSERT_NE(session, nullptr);
      at::Tensor expected = at::zeros({5, 3}, at::kDouble);
      for (const char* section : {"micro_first", "micro_next", "micro_next"}) {
        const at::Tensor a = at::randn({5, 7}).to(type);
        const at::Tensor b = at::randn({7, 3}).to(type);
        expected += a.to(at::kDouble).mm(b.to(at::kDouble));
        const auto stored = [](const at::Tensor& matrix, bool columns) {
          return columns ? matrix.t().contiguous() : matrix;
        };
        ASSERT_TRUE(session
                        ->Run(section, {{"a", stored(a, layout & 1)},
                                        {"b", stored(b, layout & 2)}})
                        .ok());
      }
      at::Tensor found = *session->GetState("accumulator", "w");
      if (layout & 4) found = found.t();
      EXPECT_TRUE(at::allclose(found.to(at::kDouble), expected, 1e-6, 1e-6))
          << "layout " << layout << "\n"
          << found << "\n"
          << expected;
    }
  }
}

// The first micro-batch does not read the accumulator, which holds the last
// step's sum.
TEST(GemmTest, TheFirstMicroBatchForgets) {
  auto session = Load(GemmPlan(2, 2, 2, plan::DType::kF32, 0));
  const TensorMap inputs = {{"a", at::ones({2, 2})}, {"b", at::ones({2, 2})}};
  for (const char* section : {"micro_first", "micro_next", "micro_first"})
    ASSERT_TRUE(session->Run(section, inputs).ok());
  EXPECT_TRUE(at::equal(*session->GetState("accumulator", "w"),
                        at::full({2, 2}, 2.0f)));
}

void ExpectIn(const std::string& part, const std::string& whole) {
  EXPECT_NE(whole.find(part), std::string::npos) << whole;
}

TEST(GemmTest, TheCheckerNamesWhatDoesNotFit) {
  const auto refused = [](const std::function<void(plan::Plan&)>& change) {
    plan::Plan plan = GemmPlan(5, 7, 3, plan::DType::kBF16, 0);
    EXPECT_TRUE(plan::Verify(plan).ok()) << plan::Verify(plan);
    change(plan);
    return std::string(plan::Verify(plan).message());
  };
  const auto step = [](plan::Plan& plan) -> plan::Step& {
    return plan.sections[1].steps[0];
  };
  const auto value = [&](plan::Plan& plan, size_t arg) -> plan::Value& {
    return plan.values[static_cast<size_t>(step(plan).args[arg].i)];
  };
  ExpectIn("a is 5x7, b 3x7, the result 5x3", refused([&](plan::Plan& p) {
             value(p, 1).sizes = {3, 7}, value(p, 1).strides = {7, 1};
           }));
  ExpectIn("no matrix with elements side by side",
           refused([&](plan::Plan& p) { value(p, 0).strides = {2, 2}; }));
  ExpectIn("a is f16, b bf16, the result f32", refused([&](plan::Plan& p) {
             value(p, 0).dtype = plan::DType::kF16;
           }));
  ExpectIn("c is not what the gemm writes", refused([&](plan::Plan& p) {
             step(p).args[2].i = step(p).args[0].i;
           }));
  ExpectIn("the arguments a, b and c or no c", refused([&](plan::Plan& p) {
             step(p).args.pop_back(), step(p).args.pop_back();
           }));
}

}  // namespace
}  // namespace heddle::torch_runtime
