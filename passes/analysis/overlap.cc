#include "passes/analysis/overlap.h"

#include <algorithm>
#include <map>

namespace heddle {
namespace {

// How much longer a gather may take than its cost says before work waits.
constexpr double kMargin = 1.25;

// Time covered by [first, second) intervals.
double covered(std::vector<std::pair<double, double>> spans) {
  std::sort(spans.begin(), spans.end());
  double total = 0, end = 0;
  for (auto [from, to] : spans) {
    from = std::max(from, end);
    if (to <= from) continue;
    total += to - from;
    end = to;
  }
  return total;
}

}  // namespace

Timeline simulate(const std::vector<Task>& tasks) {
  Timeline line;
  std::map<int, double> free;
  std::vector<std::pair<double, double>> all, work;
  for (const Task& task : tasks) {
    double start = free[task.stream];
    for (int before : task.after)
      start = std::max(start, line.start[before] + tasks[before].seconds);
    line.start.push_back(start);
    const double end = start + task.seconds;
    free[task.stream] = end;
    line.end = std::max(line.end, end);
    all.push_back({start, end});
    if (task.collective) {
      line.collectives += task.seconds;
    } else {
      work.push_back({start, end});
    }
  }
  line.exposed = covered(std::move(all)) - covered(std::move(work));
  return line;
}

std::vector<int> placeGathers(const std::vector<double>& begins,
                              const std::vector<Gather>& gathers,
                              const Limits& limits) {
  // From the last on: each must be over when its use begins and when the next
  // one has to start.
  std::vector<int> slots(gathers.size()), uses(gathers.size());
  double next = begins.back();
  for (size_t i = gathers.size(); i-- > 0;) {
    const Gather& gather = gathers[i];
    uses[i] = gather.use;
    if (i + 1 < gathers.size()) uses[i] = std::min(uses[i], uses[i + 1]);
    next = std::min(next, begins[uses[i]]) - gather.seconds * kMargin;
    const auto after = std::upper_bound(begins.begin(), begins.end(), next);
    const int slot = static_cast<int>(after - begins.begin()) - 1;
    slots[i] = std::clamp(slot, std::min(gather.earliest, uses[i]), uses[i]);
  }
  for (size_t i = 0; i < gathers.size(); ++i) {
    int& slot = slots[i];
    if (i > 0) slot = std::max(slot, slots[i - 1]);
    // Later until what is on its way, or there, leaves room; at its use it is
    // not ahead of anything.
    for (; slot < uses[i]; ++slot) {
      int64_t coming = 0, live = 0;
      for (size_t h = 0; h < i; ++h) {
        if (slot < uses[h]) coming += gathers[h].elements;
        if (slot <= gathers[h].last) live += gathers[h].elements;
      }
      if (coming < limits.prefetch && live < limits.maxLive) break;
    }
  }
  return slots;
}

std::vector<int> placeReductions(const std::vector<double>& begins,
                                 const std::vector<Reduction>& reductions,
                                 const Limits& limits) {
  std::vector<int> slots(reductions.size());
  double free = 0;
  size_t oldest = 0;
  for (size_t i = 0; i < reductions.size(); ++i) {
    const Reduction& reduction = reductions[i];
    free = std::max(free, begins[reduction.ready]) + reduction.seconds;
    const auto over = std::lower_bound(begins.begin(), begins.end(), free);
    const int slot = static_cast<int>(over - begins.begin());
    slots[i] = std::clamp(slot, reduction.ready, reduction.latest);
    if (i > 0) slots[i] = std::max(slots[i], slots[i - 1]);
    // The oldest give up their bytes first.
    int64_t reducing = 0;
    for (size_t h = oldest; h <= i; ++h)
      if (slots[h] > reduction.ready) reducing += reductions[h].elements;
    for (; oldest < i && reducing > limits.reducing; ++oldest) {
      if (slots[oldest] <= reduction.ready) continue;
      reducing -= reductions[oldest].elements;
      slots[oldest] = reduction.ready;
    }
  }
  return slots;
}

// Every choice that no other beats in both bytes and seconds, item by item
// (Nemhauser and Ullmann, 1969). Items of one size and gain, as the layers of a
// model are, leave few of them.
std::vector<bool> chooseKept(const std::vector<Keepable>& items,
                             const std::vector<int64_t>& room) {
  struct State {
    int64_t bytes;
    double seconds;
    int last;  // item taken, -1 for none
    int before;
  };
  int64_t most = 0;
  for (int64_t each : room) most = std::max(most, each);
  // Bytes are rounded up to a unit that bounds the number of states.
  const int64_t unit = std::max<int64_t>(1, most >> 20);
  std::vector<State> states = {{0, 0, -1, -1}};
  std::vector<int> front = {0};
  for (size_t k = 0; k < items.size(); ++k) {
    std::vector<int> with;
    const int64_t bytes = (items[k].bytes + unit - 1) / unit;
    if (items[k].seconds > 0) {
      for (int state : front) {
        with.push_back(static_cast<int>(states.size()));
        states.push_back({states[state].bytes + bytes,
                          states[state].seconds + items[k].seconds,
                          static_cast<int>(k), state});
      }
    }
    std::vector<int> merged;
    std::merge(front.begin(), front.end(), with.begin(), with.end(),
               std::back_inserter(merged), [&](int a, int b) {
                 return std::make_pair(states[a].bytes, -states[a].seconds) <
                        std::make_pair(states[b].bytes, -states[b].seconds);
               });
    front.clear();
    for (int state : merged) {
      if (states[state].last >= 0 && states[state].bytes > room[k] / unit)
        continue;
      if (front.empty() || states[state].seconds > states[front.back()].seconds)
        front.push_back(state);
    }
  }
  std::vector<bool> kept(items.size(), false);
  for (int state = front.back(); state >= 0 && states[state].last >= 0;
       state = states[state].before)
    kept[states[state].last] = true;
  return kept;
}

}  // namespace heddle
