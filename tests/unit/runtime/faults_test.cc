// Faults planted in plans as the compiler makes them, for three ranks at every
// stage with collectives beside computation. Each one the checker refuses, or
// the plan means what it meant (tests/fixtures/meaning.h): then it was no
// fault. With a rule of the checker taken out, faults that change what a plan
// means go through: without plan_agree "dropped collective" and "another root",
// without plan_parts "shifted slot" and "fewer bytes", without plan_complete
// and without plan_unused "dropped step".

#include "tests/fixtures/faults.h"

#include <gtest/gtest.h>

#include <sstream>

#include "runtime/plan/verify.h"
#include "tests/fixtures/compiled_plan.h"
#include "tests/fixtures/meaning.h"

namespace heddle::plan {
namespace {

using heddle::testing::AnyFaults;
using heddle::testing::Compiled;
using heddle::testing::CompilePlan;
using heddle::testing::Describe;
using heddle::testing::Fault;
using heddle::testing::Meaning;
using heddle::testing::MeaningOf;
using heddle::testing::OrderFaults;
using heddle::testing::Random;
using heddle::testing::RankFaults;

constexpr int kTries = 10;

struct Tally {
  int planted = 0;
  int refused = 0;
  int harmless = 0;
};

// The first line in which two plans differ.
std::string Difference(const Plan& a, const Plan& b) {
  std::istringstream x(PlanText(a)), y(PlanText(b));
  std::string before, after;
  while (std::getline(x, before) && std::getline(y, after)) {
    if (before != after) return before + "\n  now " + after;
  }
  return "";
}

class FaultsTest : public ::testing::TestWithParam<Compiled> {};

TEST_P(FaultsTest, AreRefusedOrHarmless) {
  SCOPED_TRACE(Describe(GetParam()));
  const absl::StatusOr<Plan> plan = CompilePlan(GetParam());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const absl::Status intact = Verify(*plan);
  ASSERT_TRUE(intact.ok()) << intact;
  const Meaning meaning = MeaningOf(*plan);
  ASSERT_EQ(meaning.race, "");
  Tally total;
  for (const auto* faults : {&AnyFaults(), &RankFaults(), &OrderFaults()}) {
    for (const Fault& fault : *faults) {
      Tally tally;
      for (uint32_t seed = 0; seed < 400 && tally.planted < kTries; ++seed) {
        Random random(seed);
        Plan broken = *plan;
        if (!fault.plant(broken, random)) continue;
        ++tally.planted;
        const std::vector<uint8_t> bytes = Serialize(broken);
        const absl::StatusOr<Plan> parsed =
            ParsePlan(bytes.data(), bytes.size());
        if (!parsed.ok() || !Verify(*parsed).ok()) {
          ++tally.refused;
          continue;
        }
        ++tally.harmless;
        const Meaning now = MeaningOf(*parsed);
        EXPECT_TRUE(now == meaning)
            << fault.name << ", seed " << seed << ": not found"
            << (now.race.empty() ? "" : ", race of ") << now.race << "\n"
            << Difference(*plan, *parsed);
      }
      total.planted += tally.planted;
      total.refused += tally.refused;
      total.harmless += tally.harmless;
      if (tally.harmless > 0)
        std::printf("%s: %d planted, %d of them without effect\n", fault.name,
                    tally.planted, tally.harmless);
    }
  }
  std::printf("%s: %d faults planted, %d refused, %d without effect\n",
              Describe(GetParam()).c_str(), total.planted, total.refused,
              total.harmless);
  EXPECT_GE(total.refused, 200);
}

// An event is refused exactly where its loss is a race.
TEST_P(FaultsTest, EveryEventIsNeeded) {
  SCOPED_TRACE(Describe(GetParam()));
  const absl::StatusOr<Plan> plan = CompilePlan(GetParam());
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (size_t s = 0; s < plan->sections.size(); ++s) {
    for (size_t i = 0; i < plan->sections[s].steps.size(); ++i) {
      const size_t waits = plan->sections[s].steps[i].waits.size();
      for (size_t w = 0; w < waits; ++w) {
        Plan broken = *plan;
        std::vector<uint32_t>& list = broken.sections[s].steps[i].waits;
        list.erase(list.begin() + static_cast<long>(w));
        EXPECT_EQ(Verify(broken).ok(), MeaningOf(broken).race.empty())
            << plan->sections[s].name << " step " << i << " wait " << w;
      }
    }
  }
}

std::vector<Compiled> Plans() {
  std::vector<Compiled> plans;
  for (int zero = 0; zero <= 3; ++zero) {
    for (bool muon : {false, true}) plans.push_back({zero, 3, muon, true});
  }
  return plans;
}

INSTANTIATE_TEST_SUITE_P(Stages, FaultsTest, ::testing::ValuesIn(Plans()),
                         [](const auto& info) {
                           return std::string("Stage") +
                                  std::to_string(info.param.zero) +
                                  (info.param.muon ? "Muon" : "AdamW");
                         });

}  // namespace
}  // namespace heddle::plan
