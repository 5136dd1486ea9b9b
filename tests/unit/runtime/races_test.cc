// Every event of small plans is left out in turn, and everybody who looks for
// races says the same: the static checker (vector clocks), the plan's meaning
// (search), and in a build with --config=tsan ThreadSanitizer, which watches
// the plan run with steps that touch every byte they read and write. Of intact
// plans none of them reports anything. Without ThreadSanitizer the plans run
// all the same, for AddressSanitizer.

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "runtime/exec/executable.h"
#include "runtime/plan/verify.h"
#include "tests/fixtures/meaning.h"
#include "tests/fixtures/plan_builder.h"
#include "tests/fixtures/shadow.h"

#ifdef __SANITIZE_THREAD__
constexpr bool kWatched = true;
#else
constexpr bool kWatched = false;
#endif

namespace {
std::atomic<int> reports{0};
}  // namespace

// ThreadSanitizer calls these two: every race counts, also one that was seen in
// the plan before, and the tests decide what it means.
extern "C" __attribute__((visibility("default"))) void __tsan_on_report(void*) {
  reports.fetch_add(1, std::memory_order_relaxed);
}
extern "C" __attribute__((visibility("default"))) const char*
__tsan_default_options() {
  return "suppress_equal_stacks=0:suppress_equal_addresses=0:symbolize=0";
}

namespace heddle::exec {
namespace {

using heddle::testing::MeaningOf;
using heddle::testing::PlanBuilder;
using heddle::testing::RandomPlan;
using heddle::testing::ShadowHandler;
using heddle::testing::StrictDevice;
using heddle::testing::ZeroPlan;

// Races that ThreadSanitizer sees while the section runs on a rank.
int Watch(const plan::Plan& plan, const std::string& section, int64_t rank) {
  const std::unique_ptr<device::Device> device = StrictDevice();
  HandlerTable handlers;
  for (plan::StepKind kind :
       {plan::StepKind::kAten, plan::StepKind::kKernel, plan::StepKind::kGemm,
        plan::StepKind::kCollective, plan::StepKind::kCopy,
        plan::StepKind::kHost})
    handlers[kind] = ShadowHandler();
  auto executable = Executable::Load(plan, *device, std::move(handlers), 0,
                                     nullptr, {rank, true});
  EXPECT_TRUE(executable.ok()) << executable.status();
  const int before = reports.load(std::memory_order_relaxed);
  const absl::Status status = (*executable)->Run(section);
  EXPECT_TRUE(status.ok()) << status;
  return reports.load(std::memory_order_relaxed) - before;
}

// Leaves out what step `index` waits for as number `wait`.
plan::Plan Without(plan::Plan plan, size_t section, size_t index, size_t wait) {
  std::vector<uint32_t>& waits = plan.sections[section].steps[index].waits;
  waits.erase(waits.begin() + static_cast<long>(wait));
  return plan;
}

void CheckEveryEvent(const plan::Plan& plan, int* dropped) {
  const auto ranks = static_cast<int64_t>(plan::WorldSize(plan));
  ASSERT_TRUE(plan::Verify(plan).ok()) << plan::Verify(plan);
  for (size_t s = 0; s < plan.sections.size(); ++s) {
    const plan::Section& section = plan.sections[s];
    for (int64_t rank = 0; rank < ranks; ++rank)
      EXPECT_EQ(Watch(plan, section.name, rank), 0) << section.name;
    for (size_t i = 0; i < section.steps.size(); ++i) {
      for (size_t w = 0; w < section.steps[i].waits.size(); ++w) {
        const plan::Plan broken = Without(plan, s, i, w);
        const bool race = !MeaningOf(broken).race.empty();
        EXPECT_EQ(!plan::Verify(broken).ok(), race)
            << section.name << " step " << i;
        int seen = 0;
        for (int64_t rank = 0; rank < ranks; ++rank)
          seen += Watch(broken, section.name, rank);
        if (kWatched) {
          EXPECT_EQ(seen > 0, race) << section.name << " step " << i << "\n"
                                    << plan::PlanText(plan);
        }
        *dropped += race;
      }
    }
  }
}

TEST(RacesTest, EveryDroppedEventIsSeen) {
  int dropped = 0;
  for (int stage : {1, 3}) {
    for (bool uneven : {false, true})
      CheckEveryEvent(ZeroPlan({13, 40, 3}, 2, stage, uneven, 0.5,
                               plan::DType::kF64, /*collectives_apart=*/true),
                      &dropped);
  }
  for (uint32_t seed = 0; seed < 8; ++seed)
    CheckEveryEvent(RandomPlan(seed, 2 + static_cast<int>(seed % 3), 16),
                    &dropped);
  std::printf("%d events dropped, each a race%s\n", dropped,
              kWatched ? " that ThreadSanitizer reports" : "");
  EXPECT_GE(dropped, 30);
}

}  // namespace
}  // namespace heddle::exec

// Leaves at once: exit and _exit would make a failure of the reports that were
// asked for.
int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  // Thousands of reports; they are counted, not read.
  if (kWatched && std::freopen("/dev/null", "w", stderr) == nullptr) return 1;
  const int failed = RUN_ALL_TESTS();
  std::fflush(stdout);
  syscall(SYS_exit_group, failed);
}
