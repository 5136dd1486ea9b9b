// Streams as queues against cases worked out by hand, the choice of what stays
// gathered against every subset, and placements against what they promise.
#include "passes/analysis/overlap.h"

#include <limits>
#include <random>

#include "gtest/gtest.h"
#include "passes/analysis/cost_model.h"

namespace heddle {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

TEST(Simulate, ExposedIsWhatNoWorkHides) {
  // Stream 0 works 4 s, then needs the gather that began at 0 and takes 6 s:
  // 2 s are exposed. A reduction of 3 s begins after the second piece of work
  // (at 7 s), of which the last piece hides 2 s: 1 s more at the end.
  const Timeline line = simulate({{1, 6, true, {}},
                                  {0, 4, false, {}},
                                  {0, 1, false, {0}},
                                  {2, 3, true, {2}},
                                  {0, 2, false, {}}});
  EXPECT_EQ(line.start, (std::vector<double>{0, 0, 6, 7, 7}));
  EXPECT_DOUBLE_EQ(line.end, 10);
  EXPECT_DOUBLE_EQ(line.collectives, 9);
  EXPECT_DOUBLE_EQ(line.exposed, 3);
}

TEST(Simulate, OneStreamExposesEverything) {
  const Timeline line =
      simulate({{0, 2, true, {}}, {0, 5, false, {}}, {0, 1, true, {}}});
  EXPECT_DOUBLE_EQ(line.end, 8);
  EXPECT_DOUBLE_EQ(line.exposed, 3);
}

TEST(Simulate, CollectivesBesideEachOtherCountOnce) {
  const Timeline line = simulate({{1, 4, true, {}}, {2, 3, true, {}}});
  EXPECT_DOUBLE_EQ(line.collectives, 7);
  EXPECT_DOUBLE_EQ(line.exposed, 4);
}

// Ten pieces of work of a second each, and where two gathers of 2 s (2.5 s with
// the margin) for pieces 4 and 8 are issued.
std::vector<double> tenSeconds() {
  std::vector<double> begins;
  for (int i = 0; i <= 10; ++i) begins.push_back(i);
  return begins;
}

TEST(PlaceGathers, AsLateAsHidesThem) {
  const std::vector<Gather> gathers = {
      {0, 0, 3, 10, 2}, {0, 4, 7, 10, 2}, {0, 8, 9, 10, 2}};
  EXPECT_EQ(placeGathers(tenSeconds(), gathers, {kNoLimit, kNoLimit, 0}),
            (std::vector<int>{0, 1, 5}));
}

TEST(PlaceGathers, AQueueBeginsEarlier) {
  // The second needs 1.5 s to 4 s; the first one must be over by then.
  const std::vector<Gather> gathers = {{0, 4, 4, 10, 2}, {0, 4, 5, 10, 2}};
  EXPECT_EQ(placeGathers(tenSeconds(), gathers, {kNoLimit, kNoLimit, 0}),
            (std::vector<int>{0, 1}));
}

TEST(PlaceGathers, LimitsHoldThemBack) {
  const std::vector<Gather> gathers = {{0, 4, 4, 10, 2}, {0, 4, 5, 10, 2}};
  // One on its way is enough: the second waits for the first one's use.
  EXPECT_EQ(placeGathers(tenSeconds(), gathers, {10, kNoLimit, 0}),
            (std::vector<int>{0, 4}));
  // None ahead at all.
  EXPECT_EQ(placeGathers(tenSeconds(), gathers, {0, kNoLimit, 0}),
            (std::vector<int>{4, 4}));
  const std::vector<Gather> far = {{0, 0, 6, 10, 1}, {0, 8, 9, 10, 4}};
  // What is gathered until piece 6 leaves no room before.
  EXPECT_EQ(placeGathers(tenSeconds(), far, {kNoLimit, 10, 0}),
            (std::vector<int>{0, 7}));
  EXPECT_EQ(placeGathers(tenSeconds(), far, {kNoLimit, kNoLimit, 0}),
            (std::vector<int>{0, 3}));
  // Nor before what it depends on.
  EXPECT_EQ(
      placeGathers(tenSeconds(), {{6, 8, 9, 10, 4}}, {kNoLimit, kNoLimit, 0}),
      (std::vector<int>{6}));
}

TEST(PlaceReductions, UntilWorkHasHiddenThem) {
  const std::vector<Reduction> reductions = {
      {2, 10, 10, 2.5}, {4, 10, 10, 2.5}, {9, 10, 10, 2.5}};
  // Over at 4.5, at 7 and at 11.5.
  EXPECT_EQ(placeReductions(tenSeconds(), reductions, {0, 0, kNoLimit}),
            (std::vector<int>{5, 7, 10}));
  // Only one at a time: the first one's bytes are waited for at 4.
  EXPECT_EQ(placeReductions(tenSeconds(), reductions, {0, 0, 10}),
            (std::vector<int>{4, 7, 10}));
  EXPECT_EQ(placeReductions(tenSeconds(), {{2, 3, 10, 2.5}}, {0, 0, kNoLimit}),
            (std::vector<int>{3}));
}

// On random programs: gathers stay in order, between what they depend on and
// their use, and no more is on its way than the limit and one bucket.
TEST(PlaceGathers, KeepsItsPromises) {
  std::mt19937 random(7);
  auto below = [&](int n) { return static_cast<int>(random() % n); };
  for (int round = 0; round < 300; ++round) {
    std::vector<double> begins = {0};
    const int slots = 5 + below(30);
    for (int i = 0; i < slots; ++i)
      begins.push_back(begins.back() + 0.1 * below(10));
    std::vector<Gather> gathers;
    int64_t largest = 0;
    for (int use = below(4); use < slots; use += 1 + below(4)) {
      gathers.push_back({below(use + 1), use,
                         std::min(slots - 1, use + below(5)), 1 + below(20),
                         0.1 * below(30)});
      largest = std::max(largest, gathers.back().elements);
    }
    const int64_t limit = below(40);
    const std::vector<int> at = placeGathers(begins, gathers, {limit, 1000, 0});
    for (size_t i = 0; i < at.size(); ++i) {
      EXPECT_LE(at[i], gathers[i].use);
      EXPECT_GE(at[i], gathers[i].earliest);
      if (i > 0) EXPECT_GE(at[i], at[i - 1]);
      int64_t coming = 0;
      for (size_t h = 0; h <= i; ++h)
        if (at[i] < gathers[h].use) coming += gathers[h].elements;
      EXPECT_LE(coming, limit == 0 ? 0 : limit - 1 + largest);
    }
  }
}

double secondsOf(const std::vector<Keepable>& items,
                 const std::vector<bool>& kept) {
  double seconds = 0;
  for (size_t i = 0; i < items.size(); ++i)
    if (kept[i]) seconds += items[i].seconds;
  return seconds;
}

bool fits(const std::vector<Keepable>& items, const std::vector<int64_t>& room,
          const std::vector<bool>& kept) {
  int64_t bytes = 0;
  bool any = false;
  for (size_t i = 0; i < items.size(); ++i) {
    if (kept[i]) bytes += items[i].bytes;
    any = any || kept[i];
    if (any && bytes > room[i]) return false;
  }
  return true;
}

// Every subset of up to 12 items, with room that differs from item to item.
// Taking by seconds per byte what still fits misses the best one at times,
// which is asserted too; with that in place of chooseKept the test fails.
TEST(ChooseKept, IsTheBestOfAllSubsets) {
  std::mt19937 random(11);
  int harder = 0;
  for (int round = 0; round < 200; ++round) {
    const size_t count = 1 + random() % 12;
    std::vector<Keepable> items;
    std::vector<int64_t> room;
    for (size_t i = 0; i < count; ++i) {
      items.push_back({static_cast<int64_t>(1 + random() % 50),
                       static_cast<double>(random() % 40)});
      room.push_back(static_cast<int64_t>(random() % 160) - 5);
    }
    double best = 0;
    for (uint32_t subset = 0; subset < (1u << count); ++subset) {
      std::vector<bool> kept(count);
      for (size_t i = 0; i < count; ++i) kept[i] = (subset >> i) & 1;
      if (fits(items, room, kept))
        best = std::max(best, secondsOf(items, kept));
    }
    const std::vector<bool> chosen = chooseKept(items, room);
    EXPECT_TRUE(fits(items, room, chosen)) << round;
    EXPECT_DOUBLE_EQ(secondsOf(items, chosen), best) << round;
    std::vector<bool> greedy(count, false);
    std::vector<size_t> order(count);
    for (size_t i = 0; i < count; ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return items[a].seconds / items[a].bytes >
             items[b].seconds / items[b].bytes;
    });
    for (size_t i : order) {
      greedy[i] = true;
      if (!fits(items, room, greedy)) greedy[i] = false;
    }
    harder += secondsOf(items, greedy) < best;
  }
  EXPECT_GT(harder, 10);
}

TEST(ChooseKept, ManyEqualLayersAndNoGain) {
  const std::vector<Keepable> layers(126, {int64_t{400} << 20, 1e-3});
  const std::vector<bool> kept =
      chooseKept(layers, std::vector<int64_t>(126, int64_t{10} << 30));
  EXPECT_EQ(std::count(kept.begin(), kept.end(), true), 25);
  EXPECT_EQ(chooseKept({{1, 0}}, {100}), std::vector<bool>{false});
  EXPECT_EQ(chooseKept({}, {}), std::vector<bool>{});
}

TEST(CostModel, FollowsTheClosedForms) {
  const DeviceCost& gpu = deviceCost("cuda");
  EXPECT_EQ(wireBytes("all_gather", 4, 1024), 768);
  EXPECT_EQ(wireBytes("reduce_scatter", 4, 1024), 768);
  EXPECT_EQ(wireBytes("all_reduce", 4, 1024), 1536);
  // The latencies that were measured for gathers on 2, 4 and 8 ranks.
  EXPECT_NEAR(collectiveSeconds(gpu, 2, 0), 8e-6, 1e-6);
  EXPECT_NEAR(collectiveSeconds(gpu, 4, 0), 17e-6, 2e-6);
  EXPECT_NEAR(collectiveSeconds(gpu, 8, 0), 30e-6, 1e-6);
  EXPECT_NEAR(collectiveSeconds(gpu, 8, int64_t{340} << 20), 30e-6 + 1.0486e-3,
              1e-5);
  // Bound by its FLOPs, and by its bytes.
  EXPECT_NEAR(stepSeconds(gpu, "bf16", int64_t{1} << 40, 1), 1.71e-3, 1e-5);
  EXPECT_NEAR(stepSeconds(gpu, "bf16", 1, int64_t{1} << 30), 266e-6, 1e-6);
}

}  // namespace
}  // namespace heddle
