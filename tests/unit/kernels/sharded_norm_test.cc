// The parts of the norm that ranks hold, added up, against the norm of the
// whole.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "kernels/elements.h"
#include "kernels/registry.h"

namespace heddle::kernels {
namespace {

template <typename T>
Operand Over(std::vector<T>& data, Element element) {
  return {data.data(), element, static_cast<int64_t>(data.size())};
}

absl::Status Finish(std::vector<double> sums, double divisor, double max_norm,
                    bool wide, double* norm, double* factor, bool* finite) {
  float narrow[2] = {};
  uint8_t is_finite = 2;
  const Element element = wide ? Element::kF64 : Element::kF32;
  double values[2] = {};
  Call call;
  call.tensors["sumsq"] = {Over(sums, Element::kF64)};
  call.scalars = {{"divisor", divisor}, {"max_norm", max_norm}, {"wide", wide}};
  for (int i = 0; i < 2; ++i)
    call.results.push_back(
        {wide ? static_cast<void*>(&values[i]) : static_cast<void*>(&narrow[i]),
         element, 1});
  call.results.push_back({&is_finite, Element::kBool, 1});
  const absl::Status status = Find("norm_finish")->host(call);
  *norm = wide ? values[0] : narrow[0];
  *factor = wide ? values[1] : narrow[1];
  *finite = is_finite == 1;
  return status;
}

// A bucket with slots at 0 (5 elements), 8 (1), 12 (20), garbage between them,
// in parts of 10 on 4 ranks; and a gradient that every rank has whole.
TEST(GradSumsqTest, PartsOfAllRanksAddUp) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  std::vector<double> bucket(40, NAN);
  const std::vector<std::pair<int64_t, int64_t>> kSlots = {
      {0, 5}, {8, 1}, {12, 20}};
  std::vector<double> expected;
  for (const auto& [offset, length] : kSlots) {
    double sum = 0;
    for (int64_t i = 0; i < length; ++i) {
      bucket[offset + i] = normal(random);
      sum += bucket[offset + i] * bucket[offset + i];
    }
    expected.push_back(sum);
  }
  std::vector<float> whole = {3, 4};
  std::vector<double> total(4, 0.0);
  for (int rank = 0; rank < 4; ++rank) {
    std::vector<double> part(bucket.begin() + 10 * rank,
                             bucket.begin() + 10 * (rank + 1));
    std::vector<double> sums(4, NAN);
    Call call;
    call.tensors["grads"] = {Over(part, Element::kF64),
                             Over(whole, Element::kF32)};
    call.ints = {{"segments", {3, 0, 5, 8, 1, 12, 20, 1, 0, 2}},
                 {"shard", {10, 0}}};
    call.scalars["rank"] = rank;
    call.results = {Over(sums, Element::kF64)};
    ASSERT_TRUE(Find("grad_sumsq")->host(call).ok());
    for (int p = 0; p < 3; ++p) total[p] += sums[p];
    EXPECT_EQ(sums[3], 25) << "whole gradients are on every rank";
    if (rank == 3) {
      EXPECT_EQ(sums[0], 0) << "a rank without a part has 0";
    }
  }
  for (int p = 0; p < 3; ++p) EXPECT_NEAR(total[p], expected[p], 1e-14);
}

TEST(GradSumsqTest, RefusesListsThatDoNotFit) {
  std::vector<double> grad(10, 1.0), sums(1, 0.0);
  const auto run = [&](std::vector<int64_t> segments,
                       std::vector<int64_t> shard) {
    Call call;
    call.tensors["grads"] = {Over(grad, Element::kF64)};
    call.ints = {{"segments", std::move(segments)},
                 {"shard", std::move(shard)}};
    call.scalars["rank"] = 0;
    call.results = {Over(sums, Element::kF64)};
    return Find("grad_sumsq")->host(call);
  };
  EXPECT_TRUE(run({1, 0, 10}, {10}).ok());
  EXPECT_FALSE(run({1, 0, 11}, {0}).ok());
  EXPECT_FALSE(run({2, 0, 5, 5, 5}, {10}).ok());
  EXPECT_FALSE(run({1, 0}, {10}).ok());
  EXPECT_FALSE(run({1, 0, 10, 3}, {10}).ok());
  EXPECT_FALSE(run({1, -1, 10}, {10}).ok());
  EXPECT_FALSE(run({1, 0, 10}, {11}).ok());
  EXPECT_FALSE(run({1, 0, 10}, {10, 10}).ok());
  EXPECT_FALSE(run({}, {10}).ok());
}

TEST(NormFinishTest, ClipsAsTorchDoes) {
  double norm, factor;
  bool finite;
  for (const bool wide : {false, true}) {
    ASSERT_TRUE(Finish({9, 16, 0}, 2, 1, wide, &norm, &factor, &finite).ok());
    EXPECT_EQ(norm, 2.5);
    EXPECT_NEAR(factor, 1 / (2.5 + 1e-6), wide ? 1e-16 : 1e-7);
    EXPECT_TRUE(finite);
    ASSERT_TRUE(Finish({9, 16}, 1, 6, wide, &norm, &factor, &finite).ok());
    EXPECT_EQ(factor, 1);
    ASSERT_TRUE(Finish({9, 16}, 1, 0, wide, &norm, &factor, &finite).ok());
    EXPECT_EQ(factor, 1) << "0 is no clipping";
    for (const double bad : {std::numeric_limits<double>::infinity(),
                             std::numeric_limits<double>::quiet_NaN()}) {
      ASSERT_TRUE(Finish({9, bad}, 1, 1, wide, &norm, &factor, &finite).ok());
      EXPECT_FALSE(finite);
    }
  }
  // What fits a double and not a float is not finite in float.
  ASSERT_TRUE(Finish({1e100}, 1, 1, false, &norm, &factor, &finite).ok());
  EXPECT_FALSE(finite);
  ASSERT_TRUE(Finish({1e100}, 1, 1, true, &norm, &factor, &finite).ok());
  EXPECT_TRUE(finite);
  EXPECT_EQ(norm, 1e50);
}

}  // namespace
}  // namespace heddle::kernels
