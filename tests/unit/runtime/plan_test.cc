// Reading and writing plans: what is well-formed comes back the same, what is
// not is refused with a name and never crashes.

#include "runtime/plan/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "tests/fixtures/plan_builder.h"

namespace heddle::plan {
namespace {

using heddle::testing::LinearPlan;
using heddle::testing::TrainPlan;
using heddle::testing::ZeroPlan;

absl::Status Parse(const Plan& plan) {
  const std::vector<uint8_t> bytes = Serialize(plan);
  return ParsePlan(bytes.data(), bytes.size()).status();
}

TEST(PlanTest, RoundTrips) {
  const std::vector<uint8_t> bytes = Serialize(TrainPlan(2, 8));
  const absl::StatusOr<Plan> plan = ParsePlan(bytes.data(), bytes.size());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Serialize(*plan), bytes);
}

TEST(PlanTest, RanksRoundTrip) {
  const std::vector<uint8_t> bytes = Serialize(ZeroPlan({5, 3}, 4, 1, true, 1));
  const absl::StatusOr<Plan> plan = ParsePlan(bytes.data(), bytes.size());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Serialize(*plan), bytes);
  EXPECT_EQ(WorldSize(*plan), 4u);
  EXPECT_EQ(AxisSize(*plan, "ep"), 1u);
  const auto moments =
      std::find_if(plan->state.begin(), plan->state.end(),
                   [](const StateEntry& e) { return e.kind == "exp_avg"; });
  ASSERT_NE(moments, plan->state.end());
  EXPECT_EQ((moments + 1)->slot_offset, 8);
  EXPECT_EQ((moments + 1)->sizes, std::vector<int64_t>{3});
  EXPECT_EQ(moments->bounds, (std::vector<int64_t>{0, 3, 6, 9, 12}));
}

TEST(PlanTest, PrintsWhatDiffersBetweenRanks) {
  const Plan plan = ZeroPlan({5, 3}, 4, 1, true, 1);
  const std::string text = PlanText(plan);
  for (const char* part :
       {" mesh=dp:4\n", "collective all_gather stream=compute src=b",
        "[0:24]+rank*24 axis=dp bounds=[0,3,6,9,12] out=b",
        "state exp_avg w.3 f64[3] b", " slot=8 bounds=[0,3,6,9,12]\n"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

TEST(PlanTest, PrintsOneLinePerStep) {
  const Plan plan = LinearPlan(4, 3, 5);
  EXPECT_EQ(StepText(plan, plan.sections[0].steps[0]),
            "aten::mm stream=compute self=b0[0:48] mat2=b1[0:60] out=b2[0:80]  "
            "# model.py:3 linear");
}

TEST(PlanTest, RefusesAnotherVersionByName) {
  Plan plan = LinearPlan(2, 2, 2);
  plan.version = 7;
  EXPECT_EQ(Parse(plan).message(),
            "plan: format version 7 cannot be read, this runtime reads version "
            "1; compile the step again with this Heddle");
}

TEST(PlanTest, NamesEachKindOfNonsense) {
  const std::pair<const char*, std::function<void(Plan&)>> kCases[] = {
      {"buffer", [](Plan& p) { p.values[0].buffer = 99; }},
      {"strides", [](Plan& p) { p.values[0].strides.pop_back(); }},
      {"elements", [](Plan& p) { p.values[0].sizes[0] = 1 << 20; }},
      {"int64", [](Plan& p) { p.values[0].sizes = {INT64_MAX, INT64_MAX}; }},
      {"int64", [](Plan& p) { p.values[0].strides[0] = INT64_MAX; }},
      {"size -1", [](Plan& p) { p.values[0].sizes[0] = -1; }},
      {"negative offset", [](Plan& p) { p.values[0].offset = -4; }},
      {"multiple of 256", [](Plan& p) { p.buffers[2].offset = 4; }},
      {"more than any memory",
       [](Plan& p) { p.buffers[2].bytes = UINT64_MAX; }},
      {"scratch arena", [](Plan& p) { p.sections[0].scratch_bytes = 256; }},
      {"state arena", [](Plan& p) { p.state_bytes = 0; }},
      {"value 77", [](Plan& p) { p.sections[0].steps[0].args[0].i = 77; }},
      {"value -3", [](Plan& p) { p.sections[0].steps[0].results[0] = -3; }},
      {"stream 4", [](Plan& p) { p.sections[0].steps[0].stream = 4; }},
      {"event 5", [](Plan& p) { p.sections[0].steps[0].waits = {5}; }},
      {"event 5", [](Plan& p) { p.sections[0].steps[0].signal = 5; }},
      {"location 9", [](Plan& p) { p.sections[0].steps[0].location = 9; }},
      {"events", [](Plan& p) { p.sections[0].events = 1000000; }},
      {"state arena", [](Plan& p) { p.state[0].value = p.inputs[0].value; }},
      {"input arena", [](Plan& p) { p.inputs[0].value = p.state[0].value; }},
      {"no name", [](Plan& p) { p.state[0].names.clear(); }},
      {"occurs twice", [](Plan& p) { p.sections.push_back(p.sections[0]); }},
      {"no sections", [](Plan& p) { p.sections.clear(); }},
      {"neither cpu nor cuda", [](Plan& p) { p.target = "tpu"; }},
      {"neither replay nor train", [](Plan& p) { p.mode = "dream"; }},
      {"bytes of data",
       [](Plan& p) { p.constants.push_back({"c", p.state[0].value, {1, 2}}); }},
  };
  for (const auto& [text, damage] : kCases) {
    Plan plan = LinearPlan(2, 2, 2);
    damage(plan);
    const absl::Status status = Parse(plan);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(std::string(status.message()).find(text), std::string::npos)
        << "wanted '" << text << "' in: " << status;
  }
}

TEST(PlanTest, NamesEachKindOfNonsenseAboutRanks) {
  const auto moment = [](Plan& p) -> StateEntry& {
    return *std::find_if(p.state.begin(), p.state.end(),
                         [](const auto& e) { return e.kind == "exp_avg"; });
  };
  const auto slice = [](Plan& p) -> Value& {
    return *std::find_if(p.values.begin(), p.values.end(),
                         [](const Value& v) { return v.rank_stride != 0; });
  };
  const std::pair<const char*, std::function<void(Plan&)>> kCases[] = {
      {"occurs twice", [](Plan& p) { p.mesh.push_back(p.mesh[0]); }},
      {"axis 'dp' of size 0", [](Plan& p) { p.mesh[0].size = 0; }},
      {"axis ''", [](Plan& p) { p.mesh.push_back({"", 2}); }},
      {"more than 1048576 ranks",
       [](Plan& p) { p.mesh.push_back({"ep", 1 << 30}); }},
      {"on the last rank", [&](Plan& p) { slice(p).rank_stride += 99; }},
      {"rank stride -1", [&](Plan& p) { slice(p).rank_stride = -1; }},
      {"rank stride", [&](Plan& p) { slice(p).rank_stride = INT64_MAX; }},
      {"rank stride",
       [&](Plan& p) {
         p.mesh.clear();
         slice(p).rank_stride = INT64_MAX / 4;
       }},
      {"differs in place",
       [](Plan& p) {
         p.buffers[p.values[p.inputs[0].value].buffer].bytes = 4096;
         p.values[p.inputs[0].value].rank_stride = 8;
       }},
      {"bounds for 4 ranks", [&](Plan& p) { moment(p).bounds.pop_back(); }},
      {"bounds for 3 ranks", [](Plan& p) { p.mesh[0].size = 3; }},
      {"start at 1", [&](Plan& p) { moment(p).bounds[0] = 1; }},
      {"bounds 6 and then 2", [&](Plan& p) { moment(p).bounds[3] = 2; }},
      {"in a value of 3", [&](Plan& p) { moment(p).bounds[4] = 13; }},
      {"bucket of 12", [&](Plan& p) { moment(p).slot_offset = 8; }},
      {"negative offset -1", [&](Plan& p) { moment(p).slot_offset = -1; }},
      {"sizes and", [&](Plan& p) { moment(p).strides.clear(); }},
      {"no bounds", [&](Plan& p) { moment(p).bounds.clear(); }},
      {"not flat",
       [&](Plan& p) {
         p.values[moment(p).value].sizes = {1, 3};
         p.values[moment(p).value].strides = {3, 1};
       }},
  };
  for (const auto& [text, damage] : kCases) {
    Plan plan = ZeroPlan({5, 3}, 4, 1, true, 1);
    damage(plan);
    const absl::Status status = Parse(plan);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(std::string(status.message()).find(text), std::string::npos)
        << "wanted '" << text << "' in: " << status;
  }
}

TEST(PlanTest, DamagedBytesNeverCrash) {
  const std::vector<uint8_t> plans[] = {
      Serialize(TrainPlan(1, 4)), Serialize(ZeroPlan({5, 3}, 2, 1, true, 1))};
  std::mt19937 random(1);
  for (int i = 0; i < 30000; ++i) {
    std::vector<uint8_t> bytes = plans[i % 3 == 0];
    for (int flips = 1 + static_cast<int>(random() % 4); flips-- > 0;)
      bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
    if (i % 5 == 0) bytes.resize(random() % bytes.size());
    const absl::StatusOr<Plan> plan = ParsePlan(bytes.data(), bytes.size());
    if (plan.ok()) PlanText(*plan);
  }
}

TEST(PlanTest, AMissingFileIsNamed) {
  EXPECT_EQ(ReadPlan("no/such.plan").status().message(),
            "no/such.plan: No such file or directory");
}

}  // namespace
}  // namespace heddle::plan
