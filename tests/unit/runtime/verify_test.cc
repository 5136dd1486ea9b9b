// The checker finds every planted fault and accepts every plan without one.
// A fault counts only if it is real: where that is not plain from the
// construction, the plan's meaning (tests/fixtures/meaning.h, which orders
// steps by graph search, not by the checker's vector clocks) says so.

#include "runtime/plan/verify.h"

#include <gtest/gtest.h>

#include "runtime/plan/access.h"
#include "tests/fixtures/faults.h"
#include "tests/fixtures/meaning.h"
#include "tests/fixtures/plan_builder.h"

namespace heddle::plan {
namespace {

using heddle::testing::AnyFaults;
using heddle::testing::Fault;
using heddle::testing::MeaningOf;
using heddle::testing::Random;
using heddle::testing::RandomPlan;
using heddle::testing::RankFaults;
using heddle::testing::TrainPlan;
using heddle::testing::ZeroPlan;

// A plan of several ranks: sizes, ranks, stage and bounds from the seed.
Plan RanksPlan(uint32_t seed) {
  const uint32_t ranks = 1 + seed % 4;
  return ZeroPlan({1 + seed % 13, 15, 14}, ranks, seed % 2 == 0 ? 1 : 3,
                  seed % 3 == 0, 1);
}

TEST(VerifyTest, AcceptsPlansOfSeveralRanks) {
  for (uint32_t seed = 0; seed < 48; ++seed) {
    const std::vector<uint8_t> bytes = Serialize(RanksPlan(seed));
    const absl::StatusOr<Plan> plan = ParsePlan(bytes.data(), bytes.size());
    ASSERT_TRUE(plan.ok()) << seed << " " << plan.status();
    const absl::Status status = Verify(*plan);
    EXPECT_TRUE(status.ok()) << seed << " " << status << PlanText(*plan);
  }
}

// The checker refuses the plan.
bool Finds(const Plan& plan, const char* fault) {
  const std::vector<uint8_t> bytes = Serialize(plan);
  const absl::StatusOr<Plan> parsed = ParsePlan(bytes.data(), bytes.size());
  EXPECT_TRUE(parsed.ok()) << fault << " " << parsed.status();
  return parsed.ok() && !Verify(*parsed).ok();
}

TEST(VerifyTest, FindsEveryFaultOfSeveralRanks) {
  for (const Fault& fault : RankFaults()) {
    int planted = 0;
    for (uint32_t seed = 0; seed < 2000 && planted < 40; ++seed) {
      Random random(seed);
      Plan plan = RanksPlan(seed);
      if (!fault.plant(plan, random)) continue;
      ++planted;
      EXPECT_TRUE(Finds(plan, fault.name))
          << fault.name << " was not found, seed " << seed << "\n"
          << PlanText(plan);
    }
    EXPECT_GE(planted, 30) << fault.name;
  }
}

TEST(VerifyTest, AcceptsValidPlans) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const absl::Status status =
        Verify(RandomPlan(seed, 1 + static_cast<int>(seed % 5), 40));
    EXPECT_TRUE(status.ok()) << seed << " " << status;
  }
  for (int layers : {1, 2, 5})
    EXPECT_TRUE(Verify(TrainPlan(layers, 8)).ok())
        << Verify(TrainPlan(layers, 8));
}

TEST(VerifyTest, FindsEveryPlantedFault) {
  int total = 0;
  for (const Fault& fault : AnyFaults()) {
    int planted = 0;
    for (uint32_t seed = 0; seed < 4000 && planted < 60; ++seed) {
      Random random(seed);
      Plan plan =
          seed % 3 == 0
              ? TrainPlan(1 + static_cast<int>(seed % 4), 8)
              : RandomPlan(seed % 97, 2 + static_cast<int>(seed % 4), 24);
      if (!fault.plant(plan, random)) continue;
      if (!fault.certain && MeaningOf(plan).race.empty()) continue;
      ++planted;
      EXPECT_TRUE(Finds(plan, fault.name))
          << fault.name << " was not found, seed " << seed << "\n"
          << PlanText(plan);
    }
    EXPECT_GE(planted, 40) << fault.name;
    total += planted;
  }
  EXPECT_GE(total, 500);
  RecordProperty("planted", total);
  std::printf("%d faults planted, all found unless reported above\n", total);
}

TEST(ByteSetTest, MergesAndAnswers) {
  ByteSet set;
  set.Add({0, 4});
  set.Add({8, 12});
  EXPECT_TRUE(set.Covers({1, 4}));
  EXPECT_FALSE(set.Covers({0, 5}));
  EXPECT_FALSE(set.Meets({4, 8}));
  EXPECT_TRUE(set.Meets({3, 8}));
  set.Add({4, 8});
  EXPECT_TRUE(set.Covers({0, 12}));
}

TEST(PiecesTest, StridedValuesAreListedByPiece) {
  Value value;
  value.sizes = {3, 2};
  value.strides = {4, 1};
  value.offset = 1;
  const std::vector<ByteRange> pieces = PiecesOf(value);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[1].begin, 20u);
  EXPECT_EQ(pieces[1].end, 28u);
}

}  // namespace
}  // namespace heddle::plan
