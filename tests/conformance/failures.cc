#include "tests/conformance/failures.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "runtime/device/cpu.h"

namespace heddle::comm::conformance {
namespace {

constexpr int kSteps = 24;
constexpr int kMostElements = 64;

struct ProgramStep {
  bool whole;  // the world, or the ranks of one parity
  Kind kind;
  int64_t count;
};

std::vector<ProgramStep> Program(uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<ProgramStep> steps;
  for (int i = 0; i < kSteps; ++i) {
    ProgramStep step;
    step.whole = random() % 3 != 0;
    step.kind = static_cast<Kind>(random() % 6);
    // Not 0: over NCCL an empty collective waits for nobody.
    step.count = 1 + random() % (kMostElements - 1);
    steps.push_back(step);
  }
  // The last one is for everybody, so that somebody waits for any victim.
  steps.back().whole = true;
  return steps;
}

std::string HalfName(int rank) { return rank % 2 == 0 ? "even" : "odd"; }

std::vector<int> HalfRanks(int rank, int size) {
  std::vector<int> ranks;
  for (int q = rank % 2; q < size; q += 2) ranks.push_back(q);
  return ranks;
}

const char* InjuryName(Injury injury) {
  switch (injury) {
    case Injury::kStall:
      return "stall";
    case Injury::kThrow:
      return "throw";
    case Injury::kLeave:
      return "leave";
    case Injury::kKill:
      return "kill";
    case Injury::kWrongCount:
      return "wrong count";
    case Injury::kTransport:
      return "transport";
    case Injury::kHang:
      return "hang";
  }
  return "";
}

}  // namespace

std::string FailureCase::Text() const {
  return absl::StrCat("seed ", seed, ": rank ", victim, " of ", size, " ",
                      InjuryName(injury), " before step ", step);
}

FailureCase DrawCase(uint32_t seed, const std::vector<Injury>& injuries) {
  std::mt19937 random(seed * 7919 + 1);
  FailureCase c;
  c.seed = seed;
  constexpr int kSizes[] = {2, 3, 4, 8};
  c.size = kSizes[random() % 4];
  c.victim = static_cast<int>(random() % c.size);
  c.step = static_cast<int>(random() % kSteps);
  c.injury = injuries[seed % injuries.size()];
  if (c.injury == Injury::kWrongCount || c.injury == Injury::kTransport ||
      c.injury == Injury::kHang) {
    // These happen inside a collective, which others must share.
    const std::vector<ProgramStep> program = Program(seed);
    while (!program[c.step].whole) ++c.step;
  }
  return c;
}

int CaseCount(int usual, int full) {
  const char* value = std::getenv("HEDDLE_TEST_FULL");
  return value != nullptr && std::strcmp(value, "1") == 0 ? full : usual;
}

Expected WhereOthersWait(const FailureCase& c) {
  const std::vector<ProgramStep> program = Program(c.seed);
  // Connecting is the first record of a group.
  int64_t whole = 1, half = 1;
  for (int i = 0; i < kSteps; ++i) {
    int64_t& sequence = program[i].whole ? whole : half;
    ++sequence;
    const bool alone =
        !program[i].whole && HalfRanks(c.victim, c.size).size() == 1;
    if (i < c.step || alone) continue;
    return {program[i].whole ? "world" : HalfName(c.victim), sequence,
            absl::StrCat("model.layers.", i)};
  }
  return {};
}

absl::Status RunProgram(
    World& world, const FailureCase& c, device::Device* device,
    const std::function<absl::Status(const Collective&)>& injure) {
  std::vector<int> all;
  for (int q = 0; q < c.size; ++q) all.push_back(q);
  absl::StatusOr<Communicator*> whole = world.Connect("world", all);
  if (!whole.ok()) return world.Fail(whole.status());
  absl::StatusOr<Communicator*> half =
      world.Connect(HalfName(world.rank()), HalfRanks(world.rank(), c.size));
  if (!half.ok()) return world.Fail(half.status());
  std::unique_ptr<device::Stream> stream;
  if (device != nullptr) stream = *device->CreateStream("comm");
  std::vector<float> input(8 * kMostElements, 1.0f);
  std::vector<float> output(8 * kMostElements);
  std::mt19937 random(c.seed + 77 * world.rank());
  const std::vector<ProgramStep> program = Program(c.seed);
  for (int i = 0; i < kSteps; ++i) {
    const ProgramStep& step = program[i];
    if (random() % 4 == 0) absl::SleepFor(absl::Microseconds(random() % 500));
    const Origin origin{"zero.test", absl::StrCat("model.layers.", i),
                        absl::StrCat("model.py:", 100 + i)};
    Collective collective;
    collective.kind = step.kind;
    collective.input = input.data();
    collective.output = output.data();
    collective.count = step.count;
    collective.origin = &origin;
    absl::Status status;
    if (world.rank() == c.victim && i == c.step) {
      status = injure(collective);
      if (!status.ok()) return world.Fail(status);
      if (c.injury == Injury::kLeave) return absl::OkStatus();
      if (c.injury == Injury::kWrongCount) ++collective.count;
    }
    Communicator& comm = step.whole ? **whole : **half;
    status = comm.Issue(collective, stream.get());
    if (status.ok() && stream != nullptr) {
      status = stream->Synchronize();
      if (status.ok()) status = comm.status();
    }
    if (!status.ok()) return world.Fail(status);
  }
  return absl::OkStatus();
}

std::string CheckVerdict(const FailureCase& c, const trace::Verdict& verdict) {
  trace::Finding finding = trace::Finding::kMissing;
  if (c.injury == Injury::kThrow) finding = trace::Finding::kFailed;
  if (c.injury == Injury::kWrongCount) finding = trace::Finding::kMismatch;
  if (c.injury == Injury::kTransport || c.injury == Injury::kHang)
    finding = trace::Finding::kStuck;
  if (verdict.finding != finding)
    return absl::StrCat("finding ", static_cast<int>(verdict.finding), ": ",
                        verdict.text);
  // Of two ranks that disagree neither is the wrong one.
  const bool either = c.injury == Injury::kWrongCount && c.size == 2;
  // All are in a collective that hangs.
  const bool all = c.injury == Injury::kHang &&
                   static_cast<int>(verdict.ranks.size()) == c.size;
  if (!either && !all && verdict.ranks != std::vector<int>{c.victim})
    return absl::StrCat("blames others: ", verdict.text);
  if (c.injury == Injury::kThrow)
    return verdict.text.find("the matrix is singular") != std::string::npos
               ? ""
               : absl::StrCat("no reason: ", verdict.text);
  const Expected expected = WhereOthersWait(c);
  if (verdict.group != expected.group || verdict.sequence != expected.sequence)
    return absl::StrCat("expected #", expected.sequence, " of ", expected.group,
                        ": ", verdict.text);
  if (verdict.text.find(expected.module) == std::string::npos ||
      verdict.text.find("at model.py:1") == std::string::npos)
    return absl::StrCat("expected ", expected.module, ": ", verdict.text);
  return "";
}

std::string RunThreadCase(const FailureCase& c, Ranks& ranks,
                          absl::Duration deadline) {
  std::mutex mutex;
  std::string wrong;
  const auto complain = [&](int rank, const std::string& what) {
    std::lock_guard<std::mutex> lock(mutex);
    absl::StrAppend(&wrong, "rank ", rank, ": ", what, "\n");
  };
  std::atomic<int> others_running{c.size - 1};
  absl::Time injured = absl::InfiniteFuture();
  std::set<std::string> messages;
  std::vector<std::thread> threads;
  for (int r = 0; r < c.size; ++r) {
    threads.emplace_back([&, r] {
      std::unique_ptr<device::Device> device = device::CreateCpuDevice();
      WorldOptions options;
      options.deadline = deadline;
      auto world = World::Create(r, c.size, ranks.RankStore(r),
                                 ranks.RankBackend(r), options);
      if (!world.ok()) {
        complain(r, std::string(world.status().message()));
        if (r != c.victim) --others_running;
        return;
      }
      const absl::Status status = RunProgram(
          **world, c, ranks.streamed() ? device.get() : nullptr,
          [&](const Collective&) -> absl::Status {
            {
              std::lock_guard<std::mutex> lock(mutex);
              injured = absl::Now();
            }
            if (c.injury == Injury::kThrow)
              return absl::InternalError("the matrix is singular");
            if (c.injury == Injury::kTransport || c.injury == Injury::kHang)
              ranks.BreakTransport(r, c.injury == Injury::kHang);
            // It comes back when everybody has given up on it.
            while (c.injury == Injury::kStall && others_running > 0)
              absl::SleepFor(absl::Milliseconds(5));
            return absl::OkStatus();
          });
      if (r != c.victim) --others_running;
      if (r == c.victim && c.injury == Injury::kLeave) return;
      if (status.ok()) return complain(r, "ended well");
      const std::string what = CheckVerdict(c, (*world)->verdict());
      if (!what.empty()) complain(r, what);
      std::lock_guard<std::mutex> lock(mutex);
      messages.insert(std::string(status.message()));
      // Twice the deadline: the machine that runs the tests is shared.
      if (absl::Now() > injured + 2 * deadline)
        absl::StrAppend(&wrong, "rank ", r, ": took ",
                        absl::FormatDuration(absl::Now() - injured), "\n");
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (messages.size() > 1)
    absl::StrAppend(&wrong, messages.size(),
                    " different messages: ", *messages.begin(), " | ",
                    *messages.rbegin());
  return wrong;
}

void RunThreadCases(
    const char* what, int count, const std::vector<Injury>& injuries,
    const std::function<std::unique_ptr<Ranks>(int size)>& make) {
  constexpr int kAtOnce = 6;
  std::atomic<int> next{0}, right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kAtOnce; ++t) {
    threads.emplace_back([&] {
      for (int seed = next++; seed < count; seed = next++) {
        const FailureCase c = DrawCase(seed, injuries);
        std::unique_ptr<Ranks> ranks = make(c.size);
        const std::string wrong = RunThreadCase(c, *ranks, absl::Seconds(2));
        EXPECT_EQ(wrong, "") << what << ", " << c.Text();
        if (wrong.empty()) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("%s: %d failures injected, %d right verdicts\n", what, count,
              right.load());
}

}  // namespace heddle::comm::conformance
