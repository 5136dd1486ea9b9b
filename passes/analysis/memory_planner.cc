// Best-fit placement in several fixed orders, the smallest arena wins; then the
// winner's order is improved by moving what caused the peak to the front.
// Invariant: each order is a pure function of the requests, ties broken by
// index. Randomness or time limits would make plans differ between machines.
#include "passes/analysis/memory_planner.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace heddle {
namespace {

constexpr int kImprovementRounds = 48;
// Work units (request pairs looked at) that improvement may spend; keeps plans
// of 8B models under a second or so.
constexpr int64_t kImprovementWork = 200'000'000;

using Item = BufferRequest;

bool meet(const Item& a, const Item& b) {
  if (a.first > b.last) return meet(b, a);
  if (b.first <= a.last) return true;
  return a.lastStream != b.firstStream && b.since <= a.until;
}

int64_t lowerBoundOf(const std::vector<Item>& items) {
  std::vector<std::pair<int64_t, int64_t>> changes;
  for (const Item& item : items) {
    changes.push_back({item.first, item.bytes});
    changes.push_back({item.last + 1, -item.bytes});
  }
  // At one step ends come before starts: the pair's second is negative.
  std::sort(changes.begin(), changes.end());
  int64_t live = 0, most = 0;
  for (auto [step, bytes] : changes) most = std::max(most, live += bytes);
  return most;
}

// Places items in the given order, each in the smallest gap between the placed
// ones that it meets.
class Placement {
 public:
  Placement(const std::vector<Item>& items, const std::vector<int>& order)
      : offsets(items.size(), 0) {
    // Indices of placed items, by offset.
    std::vector<int> placed;
    placed.reserve(items.size());
    for (int i : order) {
      const Item& item = items[i];
      if (item.bytes == 0) continue;
      int64_t end = 0, best = -1, bestGap = 0;
      for (int j : placed) {
        if (!meet(item, items[j])) continue;
        int64_t gap = offsets[j] - end;
        if (gap >= item.bytes && (best < 0 || gap < bestGap)) {
          best = end;
          bestGap = gap;
        }
        end = std::max(end, offsets[j] + items[j].bytes);
      }
      offsets[i] = best < 0 ? end : best;
      arena = std::max(arena, offsets[i] + item.bytes);
      auto at =
          std::upper_bound(placed.begin(), placed.end(), i, [&](int a, int b) {
            return std::pair(offsets[a], a) < std::pair(offsets[b], b);
          });
      placed.insert(at, i);
    }
  }

  std::vector<int64_t> offsets;
  int64_t arena = 0;
};

}  // namespace

MemoryPlan planMemory(const std::vector<BufferRequest>& requests,
                      int64_t alignment) {
  std::vector<Item> items = requests;
  for (Item& item : items)
    item.bytes = (item.bytes + alignment - 1) / alignment * alignment;
  MemoryPlan plan;
  plan.lowerBound = lowerBoundOf(items);

  using Key = std::function<std::pair<int64_t, int64_t>(const Item&)>;
  const Key keys[] = {
      [](const Item& i) { return std::pair(-i.bytes, i.first); },
      [](const Item& i) { return std::pair(-i.bytes, i.since - i.until); },
      [](const Item& i) { return std::pair(i.since - i.until, -i.bytes); },
      [](const Item& i) { return std::pair(i.first, -i.bytes); },
      [](const Item& i) { return std::pair(-i.last, -i.bytes); },
      [](const Item& i) {
        return std::pair(-static_cast<int64_t>(static_cast<double>(i.bytes) /
                                               256 * (i.until - i.since + 1)),
                         i.first);
      },
  };
  std::vector<int> bestOrder;
  std::vector<int64_t> bestOffsets;
  int64_t bestArena = -1;
  auto attempt = [&](const std::vector<int>& order) {
    Placement placement(items, order);
    if (bestArena >= 0 && placement.arena >= bestArena) return false;
    bestArena = placement.arena;
    bestOffsets = std::move(placement.offsets);
    bestOrder = order;
    return true;
  };
  for (const Key& key : keys) {
    std::vector<int> order(items.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return key(items[a]) < key(items[b]);
    });
    attempt(order);
    if (bestArena == plan.lowerBound) break;
  }

  int64_t n = static_cast<int64_t>(items.size());
  int64_t rounds = std::min<int64_t>(
      kImprovementRounds, n == 0 ? 0 : kImprovementWork / (n * n + 1));
  for (int64_t round = 0; round < rounds && bestArena > plan.lowerBound;
       ++round) {
    // The items that end at the arena's top were placed too late; let the
    // largest of them (another one each round) choose first.
    std::vector<int> guilty;
    for (int i : bestOrder)
      if (items[i].bytes > 0 &&
          bestOffsets[i] + items[i].bytes > plan.lowerBound)
        guilty.push_back(i);
    if (guilty.empty()) break;
    int chosen = guilty[round % guilty.size()];
    std::vector<int> order = bestOrder;
    auto from = std::find(order.begin(), order.end(), chosen);
    std::ptrdiff_t position = from - order.begin();
    std::ptrdiff_t to = round % 3 == 0 ? 0 : position * (round % 3) / 3;
    std::rotate(order.begin() + to, from, from + 1);
    attempt(order);
  }
  plan.offsets = std::move(bestOffsets);
  plan.arenaBytes = std::max<int64_t>(bestArena, 0);
  plan.offsets.resize(items.size(), 0);
  return plan;
}

}  // namespace heddle
