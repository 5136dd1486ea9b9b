// The checker finds every planted fault and accepts every plan without one.
// A fault counts only if it is real: where that is not plain from the
// construction, an order computed by graph search (not by the checker's vector
// clocks) says so.

#include "runtime/plan/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "runtime/plan/access.h"
#include "tests/fixtures/plan_builder.h"

namespace heddle::plan {
namespace {

using heddle::testing::PlanBuilder;
using heddle::testing::RandomPlan;
using heddle::testing::TrainPlan;
using heddle::testing::ZeroPlan;

// Reachability between steps by search over stream and event edges.
std::vector<std::vector<bool>> Reachable(const Section& section) {
  const size_t n = section.steps.size();
  std::vector<std::vector<size_t>> edges(n);
  std::map<uint16_t, size_t> last;
  std::map<uint32_t, size_t> signaller;
  for (size_t i = 0; i < n; ++i) {
    const Step& step = section.steps[i];
    if (const auto it = last.find(step.stream); it != last.end())
      edges[it->second].push_back(i);
    for (uint32_t event : step.waits) {
      if (const auto it = signaller.find(event); it != signaller.end())
        edges[it->second].push_back(i);
    }
    if (step.signal >= 0) signaller[static_cast<uint32_t>(step.signal)] = i;
    last[step.stream] = i;
  }
  std::vector<std::vector<bool>> reach(n, std::vector<bool>(n, false));
  for (size_t i = n; i-- > 0;) {
    for (size_t next : edges[i]) {
      reach[i][next] = true;
      for (size_t k = 0; k < n; ++k) {
        if (reach[next][k]) reach[i][k] = true;
      }
    }
  }
  return reach;
}

// True if two steps touch the same buffer, one of them writing, and nothing
// orders them.
bool HasRace(const Plan& plan, const Section& section) {
  const auto reach = Reachable(section);
  for (const auto& [buffer, uses] : CollectAccesses(plan, section)) {
    for (const Access& a : uses) {
      for (const Access& b : uses) {
        if (a.step >= b.step || b.step >= section.steps.size() ||
            (!a.write && !b.write))
          continue;
        if (!reach[a.step][b.step]) return true;
      }
    }
  }
  return false;
}

using Random = std::mt19937;
// Plants one fault; false if this plan offers no place for it.
using Fault = std::function<bool(Plan&, Random&)>;

size_t Pick(Random& random, size_t count) { return random() % count; }

std::vector<uint32_t> ScratchBuffers(const Plan& plan, const Step& step) {
  std::set<uint32_t> buffers;
  const auto add = [&](int64_t value) {
    const uint32_t buffer = plan.values[static_cast<size_t>(value)].buffer;
    if (plan.buffers[buffer].arena == Arena::kScratch) buffers.insert(buffer);
  };
  for (const Arg& arg : step.args) {
    if (arg.kind == ArgKind::kValue) add(arg.i);
  }
  for (int32_t value : step.results) add(value);
  return {buffers.begin(), buffers.end()};
}

void GrowScratch(Plan& plan) {
  uint64_t end = 0;
  for (const Buffer& buffer : plan.buffers) {
    if (buffer.arena == Arena::kScratch)
      end = std::max(end, buffer.offset + buffer.bytes);
  }
  for (Section& section : plan.sections) section.scratch_bytes = end;
}

bool DropWait(Plan& plan, Random& random) {
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  Step& step = section.steps[Pick(random, section.steps.size())];
  if (step.waits.empty()) return false;
  step.waits.erase(step.waits.begin() +
                   static_cast<long>(Pick(random, step.waits.size())));
  return HasRace(plan, section);
}

bool DropSignal(Plan& plan, Random& random) {
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  Step& step = section.steps[Pick(random, section.steps.size())];
  if (step.signal < 0) return false;
  step.signal = -1;
  return true;  // signals exist only where somebody waits
}

bool SignalTwice(Plan& plan, Random& random) {
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  if (section.events == 0) return false;
  Step& step = section.steps[Pick(random, section.steps.size())];
  if (step.signal >= 0) return false;
  step.signal = static_cast<int32_t>(Pick(random, section.events));
  return true;
}

bool OtherStream(Plan& plan, Random& random) {
  if (plan.streams.size() < 2) return false;
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  Step& step = section.steps[Pick(random, section.steps.size())];
  step.stream = static_cast<uint16_t>(
      (step.stream + 1 + Pick(random, plan.streams.size() - 1)) %
      plan.streams.size());
  return HasRace(plan, section);
}

// Two buffers of one step at one place.
bool SwapOffset(Plan& plan, Random& random) {
  const Section& section = plan.sections[Pick(random, plan.sections.size())];
  const std::vector<uint32_t> buffers =
      ScratchBuffers(plan, section.steps[Pick(random, section.steps.size())]);
  if (buffers.size() < 2) return false;
  plan.buffers[buffers[0]].offset = plan.buffers[buffers[1]].offset;
  GrowScratch(plan);
  return true;
}

// A buffer's bytes given to another one between its write and its last read.
bool EarlyFree(Plan& plan, Random& random) {
  const Section& section = plan.sections[Pick(random, plan.sections.size())];
  const auto accesses = CollectAccesses(plan, section);
  std::vector<uint32_t> scratch;
  for (const auto& [buffer, uses] : accesses) {
    if (plan.buffers[buffer].arena == Arena::kScratch)
      scratch.push_back(buffer);
  }
  if (scratch.size() < 2) return false;
  const uint32_t victim = scratch[Pick(random, scratch.size())];
  const uint32_t thief = scratch[Pick(random, scratch.size())];
  const auto& v = accesses.at(victim);
  const auto& t = accesses.at(thief);
  if (victim == thief || t.front().step <= v.front().step ||
      t.front().step >= v.back().step)
    return false;
  plan.buffers[thief].offset = plan.buffers[victim].offset;
  GrowScratch(plan);
  return true;
}

// A step before one that makes something it reads.
bool MoveBeforeProducer(Plan& plan, Random& random) {
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  const size_t consumer = Pick(random, section.steps.size());
  for (const Arg& arg : section.steps[consumer].args) {
    if (arg.kind != ArgKind::kValue ||
        plan.buffers[plan.values[static_cast<size_t>(arg.i)].buffer].arena !=
            Arena::kScratch)
      continue;
    for (size_t producer = 0; producer < consumer; ++producer) {
      for (int32_t result : section.steps[producer].results) {
        if (plan.values[static_cast<size_t>(result)].buffer !=
            plan.values[static_cast<size_t>(arg.i)].buffer)
          continue;
        const Step step = section.steps[consumer];
        section.steps.erase(section.steps.begin() +
                            static_cast<long>(consumer));
        section.steps.insert(
            section.steps.begin() + static_cast<long>(producer), step);
        return true;
      }
    }
  }
  return false;
}

// A step whose result somebody reads, left out.
bool DropProducer(Plan& plan, Random& random) {
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  const size_t dropped = Pick(random, section.steps.size());
  std::set<uint32_t> made;
  for (int32_t result : section.steps[dropped].results) {
    const uint32_t buffer = plan.values[static_cast<size_t>(result)].buffer;
    if (plan.buffers[buffer].arena == Arena::kScratch) made.insert(buffer);
  }
  bool read = false;
  const auto accesses = CollectAccesses(plan, section);
  for (uint32_t buffer : made) {
    for (const Access& use : accesses.at(buffer)) read |= !use.write;
  }
  if (!read) return false;
  section.steps.erase(section.steps.begin() + static_cast<long>(dropped));
  section.events = std::min<uint32_t>(
      section.events, static_cast<uint32_t>(section.steps.size()));
  return true;
}

// The update, or an accumulation, done twice.
bool RepeatStateWrite(Plan& plan, Random& random) {
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  const size_t at = Pick(random, section.steps.size());
  const Step step = section.steps[at];
  if (step.name != "adamw" && step.name != "accumulate") return false;
  section.steps.push_back(step);
  return true;
}

bool WrongSection(Plan& plan, Random& random) {
  Section& from = plan.sections[Pick(random, plan.sections.size())];
  Section& to = plan.sections[Pick(random, plan.sections.size())];
  if (&from == &to) return false;
  const size_t at = Pick(random, from.steps.size());
  const Step step = from.steps[at];
  // A copy of an accumulation moved to the other micro-section is only wrong if
  // it reads what that section has not made; the update is wrong anywhere else.
  const bool update = step.name == "adamw";
  if (!update && ScratchBuffers(plan, step).size() < 2) return false;
  if (!update && step.name == "grad_norm") return false;
  bool reads_scratch = false;
  for (const Arg& arg : step.args) {
    if (arg.kind == ArgKind::kValue &&
        plan.buffers[plan.values[static_cast<size_t>(arg.i)].buffer].arena ==
            Arena::kScratch)
      reads_scratch = true;
  }
  if (!update && !reads_scratch) return false;
  from.steps.erase(from.steps.begin() + static_cast<long>(at));
  to.steps.push_back(step);
  GrowScratch(plan);
  return true;
}

bool UnwrittenResult(Plan& plan, Random& random) {
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  if (section.results.empty()) return false;
  Binding& result = section.results[Pick(random, section.results.size())];
  Value value = plan.values[result.value];
  Buffer buffer = plan.buffers[value.buffer];
  if (buffer.arena != Arena::kScratch) return false;
  uint64_t end = 0;
  for (const Section& s : plan.sections) end = std::max(end, s.scratch_bytes);
  buffer.offset = (end + kAlignment - 1) / kAlignment * kAlignment;
  value.buffer = static_cast<uint32_t>(plan.buffers.size());
  plan.buffers.push_back(buffer);
  plan.values.push_back(value);
  result.value = static_cast<uint32_t>(plan.values.size() - 1);
  GrowScratch(plan);
  return true;
}

bool StateOverlap(Plan& plan, Random& random) {
  if (plan.state.size() < 2) return false;
  const size_t a = Pick(random, plan.state.size()),
               b = Pick(random, plan.state.size());
  if (a == b) return false;
  plan.buffers[plan.values[plan.state[a].value].buffer].offset =
      plan.buffers[plan.values[plan.state[b].value].buffer].offset;
  return true;
}

bool WriteToInput(Plan& plan, Random& random) {
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  Step& step = section.steps[Pick(random, section.steps.size())];
  if (plan.inputs.empty() || step.results.empty()) return false;
  step.results[0] = static_cast<int32_t>(plan.inputs[0].value);
  return true;
}

// A parameter written by a forward step of a micro-batch.
bool WriteParameterEarly(Plan& plan, Random& random) {
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  if (section.name == "boundary" || plan.state.empty()) return false;
  Step& step = section.steps[Pick(random, section.steps.size())];
  for (const StateEntry& entry : plan.state) {
    if (entry.kind != "parameter") continue;
    step.results[0] = static_cast<int32_t>(entry.value);
    return true;
  }
  return false;
}

// An accumulator that the first micro-batch adds to instead of setting.
bool AddToStaleAccumulator(Plan& plan, Random& random) {
  for (Section& section : plan.sections) {
    if (section.name != "micro_first") continue;
    Step& step = section.steps[Pick(random, section.steps.size())];
    if (step.name != "accumulate") return false;
    for (Arg& arg : step.args) {
      if (arg.name == "first") arg.i = 0;
    }
    return true;
  }
  return false;
}

bool DropAccumulate(Plan& plan, Random& random) {
  for (Section& section : plan.sections) {
    if (section.name != "micro_first") continue;
    const size_t at = Pick(random, section.steps.size());
    if (section.steps[at].name != "accumulate") return false;
    section.steps.erase(section.steps.begin() + static_cast<long>(at));
    return true;
  }
  return false;
}

// A plan of several ranks: sizes, ranks, stage and bounds from the seed.
Plan RanksPlan(uint32_t seed) {
  const uint32_t ranks = 1 + seed % 4;
  return ZeroPlan({1 + seed % 13, 5, 2}, ranks, seed % 2 == 0 ? 1 : 3,
                  seed % 3 == 0, 1);
}

Step* FindCollective(Plan& plan, Random& random) {
  std::vector<Step*> steps;
  for (Section& section : plan.sections) {
    for (Step& step : section.steps) {
      if (step.kind == StepKind::kCollective) steps.push_back(&step);
    }
  }
  return steps[Pick(random, steps.size())];
}

Arg* FindArg(Step& step, const std::string& name) {
  for (Arg& arg : step.args) {
    if (arg.name == name) return &arg;
  }
  return nullptr;
}

bool UnknownCollective(Plan& plan, Random& random) {
  FindCollective(plan, random)->name = "all_scatter";
  return true;
}

bool UnknownAxis(Plan& plan, Random& random) {
  FindArg(*FindCollective(plan, random), "axis")->s = "ep";
  return true;
}

bool UnknownReduction(Plan& plan, Random& random) {
  Arg* op = FindArg(*FindCollective(plan, random), "op");
  if (op != nullptr) op->s = "max";
  return op != nullptr;
}

// A part that is one element longer than the collective's other side holds.
bool PartTooLarge(Plan& plan, Random& random) {
  Step* step = FindCollective(plan, random);
  Arg* bounds = FindArg(*step, "bounds");
  if (bounds == nullptr || step->name == "all_reduce") return false;
  bounds->ints.back() = plan.values[plan.values.size() - 1].offset + 100000;
  return true;
}

bool BoundsForAnotherWorld(Plan& plan, Random& random) {
  Arg* bounds = FindArg(*FindCollective(plan, random), "bounds");
  if (bounds == nullptr) return false;
  bounds->ints.push_back(bounds->ints.back());
  return true;
}

// A gather whose result is shorter than all parts together.
bool GatherIntoPart(Plan& plan, Random& random) {
  Step* step = FindCollective(plan, random);
  if (step->name == "all_reduce" || plan.mesh[0].size == 1) return false;
  Arg* src = FindArg(*step, "src");
  if (step->name == "all_gather")
    step->results[0] = static_cast<int32_t>(src->i);
  else
    src->i = step->results[0];
  return true;
}

bool OtherDType(Plan& plan, Random& random) {
  Step* step = FindCollective(plan, random);
  Value value = plan.values[static_cast<size_t>(step->results[0])];
  value.dtype = DType::kF32;
  step->results[0] = static_cast<int32_t>(plan.values.size());
  plan.values.push_back(value);
  return true;
}

// In place, but on the neighbour's slice (of rank 0 on all ranks): what an
// unresolved coordinate would do.
bool SliceOfAnotherRank(Plan& plan, Random& random) {
  Step* step = FindCollective(plan, random);
  if (plan.mesh[0].size == 1) return false;
  Arg* src = FindArg(*step, "src");
  const bool gather = step->name == "all_gather";
  const size_t part = gather ? static_cast<size_t>(src->i)
                             : static_cast<size_t>(step->results[0]);
  Value value = plan.values[part];
  if (value.rank_stride == 0) return false;
  value.rank_stride = 0;
  const int64_t index = static_cast<int64_t>(plan.values.size());
  plan.values.push_back(value);
  if (gather)
    src->i = index;
  else
    step->results[0] = static_cast<int32_t>(index);
  return true;
}

// A read of the whole before the collective that fills the other ranks' parts.
bool DropGather(Plan& plan, Random& random) {
  Section& section = plan.sections[Pick(random, plan.sections.size())];
  for (size_t i = 0; i < section.steps.size(); ++i) {
    if (section.steps[i].name != "all_gather" || section.name == "boundary")
      continue;
    section.steps.erase(section.steps.begin() + static_cast<long>(i));
    return true;
  }
  return false;
}

bool SlotsOverlap(Plan& plan, Random&) {
  StateEntry* first = nullptr;
  for (StateEntry& entry : plan.state) {
    if (entry.bounds.empty()) continue;
    if (first != nullptr && first->value == entry.value) {
      entry.slot_offset = first->slot_offset;
      return true;
    }
    first = &entry;
  }
  return false;
}

bool BucketOfTwoKinds(Plan& plan, Random&) {
  std::vector<StateEntry*> sharded;
  for (StateEntry& entry : plan.state) {
    if (!entry.bounds.empty()) sharded.push_back(&entry);
  }
  sharded[0]->kind = "momentum";
  return true;
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

TEST(VerifyTest, FindsEveryFaultOfSeveralRanks) {
  const std::pair<const char*, Fault> kFaults[] = {
      {"unknown collective", UnknownCollective},
      {"unknown axis", UnknownAxis},
      {"unknown reduction", UnknownReduction},
      {"part too large", PartTooLarge},
      {"bounds for another world", BoundsForAnotherWorld},
      {"gather into a part", GatherIntoPart},
      {"other dtype", OtherDType},
      {"slice of another rank", SliceOfAnotherRank},
      {"dropped gather", DropGather},
      {"overlapping slots", SlotsOverlap},
      {"bucket of two kinds", BucketOfTwoKinds},
      {"state written twice", RepeatStateWrite},
      {"dropped accumulation", DropAccumulate},
  };
  for (const auto& [name, fault] : kFaults) {
    int planted = 0;
    for (uint32_t seed = 0; seed < 2000 && planted < 40; ++seed) {
      Random random(seed);
      Plan plan = RanksPlan(seed);
      if (!fault(plan, random)) continue;
      ++planted;
      const std::vector<uint8_t> bytes = Serialize(plan);
      const absl::StatusOr<Plan> parsed = ParsePlan(bytes.data(), bytes.size());
      ASSERT_TRUE(parsed.ok()) << name << " " << parsed.status();
      EXPECT_FALSE(Verify(*parsed).ok())
          << name << " was not found, seed " << seed << "\n"
          << PlanText(plan);
    }
    EXPECT_GE(planted, 30) << name;
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
  const std::vector<std::pair<const char*, Fault>> kFaults = {
      {"dropped wait", DropWait},
      {"dropped signal", DropSignal},
      {"event signalled twice", SignalTwice},
      {"step on another stream", OtherStream},
      {"swapped offset", SwapOffset},
      {"early free", EarlyFree},
      {"step before its producer", MoveBeforeProducer},
      {"dropped producer", DropProducer},
      {"state written twice", RepeatStateWrite},
      {"wrong section", WrongSection},
      {"unwritten result", UnwrittenResult},
      {"overlapping state", StateOverlap},
      {"write to an input", WriteToInput},
      {"parameter written in a micro-batch", WriteParameterEarly},
      {"stale accumulator", AddToStaleAccumulator},
      {"dropped accumulation", DropAccumulate},
  };
  int total = 0;
  for (const auto& [name, fault] : kFaults) {
    int planted = 0;
    for (uint32_t seed = 0; seed < 4000 && planted < 60; ++seed) {
      Random random(seed);
      Plan plan =
          seed % 3 == 0
              ? TrainPlan(1 + static_cast<int>(seed % 4), 8)
              : RandomPlan(seed % 97, 2 + static_cast<int>(seed % 4), 24);
      if (!fault(plan, random)) continue;
      ++planted;
      const std::vector<uint8_t> bytes = Serialize(plan);
      const absl::StatusOr<Plan> parsed = ParsePlan(bytes.data(), bytes.size());
      ASSERT_TRUE(parsed.ok()) << name << " " << parsed.status();
      EXPECT_FALSE(Verify(*parsed).ok())
          << name << " was not found, seed " << seed << "\n"
          << PlanText(plan);
    }
    EXPECT_GE(planted, 40) << name;
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
