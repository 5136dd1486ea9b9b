// Memory planner: no two live buffers overlap, sizes stay near the bound,
// results are reproducible.
#include "passes/analysis/memory_planner.h"

#include <random>

#include "gtest/gtest.h"

namespace heddle {
namespace {

void expectNoOverlap(const std::vector<BufferRequest>& requests,
                     const MemoryPlan& plan) {
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(plan.offsets[i] % 256, 0);
    EXPECT_LE(plan.offsets[i] + requests[i].bytes, plan.arenaBytes);
    for (size_t j = 0; j < i; ++j) {
      const BufferRequest &a = requests[i], &b = requests[j];
      if (a.bytes == 0 || b.bytes == 0 || a.first > b.last || b.first > a.last)
        continue;
      EXPECT_TRUE(plan.offsets[i] + a.bytes <= plan.offsets[j] ||
                  plan.offsets[j] + b.bytes <= plan.offsets[i])
          << i << " and " << j;
    }
  }
}

TEST(PlanMemory, NoRequestsNeedNoBytes) {
  MemoryPlan plan = planMemory({}, 256);
  EXPECT_EQ(plan.arenaBytes, 0);
  EXPECT_EQ(plan.lowerBound, 0);
}

TEST(PlanMemory, DeadBuffersGiveTheirBytesBack) {
  MemoryPlan plan = planMemory({{1024, 0, 1}, {1024, 2, 3}, {512, 0, 3}}, 256);
  EXPECT_EQ(plan.arenaBytes, 1536);
  EXPECT_EQ(plan.offsets[0], plan.offsets[1]);
}

TEST(PlanMemory, BuffersThatMeetAtOneStepDoNotShare) {
  MemoryPlan plan = planMemory({{256, 0, 1}, {256, 1, 2}}, 256);
  EXPECT_EQ(plan.arenaBytes, 512);
}

TEST(PlanMemory, SizesAreRoundedUpToTheAlignment) {
  MemoryPlan plan = planMemory({{1, 0, 1}, {1, 0, 1}}, 256);
  EXPECT_EQ(plan.arenaBytes, 512);
  EXPECT_EQ(plan.lowerBound, 512);
}

BufferRequest onStreams(int64_t first, int64_t last, int64_t since,
                        int64_t until, int firstStream, int lastStream) {
  return {256, first, last, since, until, firstStream, lastStream};
}

TEST(PlanMemory, BytesOfAnotherStreamAreNotUsedAgainUntilItIsOver) {
  const BufferRequest pack = onStreams(0, 1, 0, 4, 0, 1);
  EXPECT_EQ(planMemory({pack, {256, 2, 2}}, 256).arenaBytes, 512);
  EXPECT_EQ(planMemory({pack, {256, 4, 4}}, 256).arenaBytes, 512);
  EXPECT_EQ(planMemory({pack, {256, 5, 5}}, 256).arenaBytes, 256);
  // What that stream itself begins follows in any case, and may be there early.
  EXPECT_EQ(planMemory({pack, onStreams(2, 3, 1, 4, 1, 1)}, 256).arenaBytes,
            256);
  EXPECT_EQ(
      planMemory({{256, 2, 2}, onStreams(4, 5, 2, 5, 1, 1)}, 256).arenaBytes,
      512);
  // Lifetimes that meet do so whatever the streams.
  EXPECT_EQ(planMemory({pack, onStreams(1, 3, 1, 4, 1, 1)}, 256).arenaBytes,
            512);
}

TEST(PlanMemory, RandomLifetimesNeverOverlapAndRepeat) {
  for (int seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    std::vector<BufferRequest> requests;
    for (int i = 0; i < 120; ++i) {
      int64_t first = random() % 200;
      requests.push_back({static_cast<int64_t>(random() % 100000), first,
                          first + static_cast<int64_t>(random() % 30)});
    }
    MemoryPlan plan = planMemory(requests, 256);
    expectNoOverlap(requests, plan);
    EXPECT_GE(plan.arenaBytes, plan.lowerBound);
    EXPECT_EQ(plan.offsets, planMemory(requests, 256).offsets);
  }
}

// Forward activations that live until their backward step: the shape of a
// training step.
TEST(PlanMemory, ActivationStackIsWithinTenPercent) {
  std::vector<BufferRequest> requests;
  const int layers = 24;
  for (int i = 0; i < layers; ++i) {
    for (int64_t bytes : {4096, 16384, 16384, 4096, 65536})
      requests.push_back({bytes, i * 10, 2 * layers * 10 - i * 10});
    for (int64_t bytes : {8192, 40960})
      requests.push_back({bytes, i * 10, i * 10 + 4});
    for (int64_t bytes : {8192, 65536, 12288})
      requests.push_back(
          {bytes, 2 * layers * 10 - i * 10, 2 * layers * 10 - i * 10 + 6});
  }
  MemoryPlan plan = planMemory(requests, 256);
  expectNoOverlap(requests, plan);
  EXPECT_LE(plan.arenaBytes, plan.lowerBound * 11 / 10);
}

}  // namespace
}  // namespace heddle
