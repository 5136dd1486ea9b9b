// Counts, closed form, memory over time and predicted times of a described
// program. Invariant: an op with a body counts once as an op, and its body's
// FLOPs under the body's kinds.
#include "tools/heddle-inspect/analysis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <unordered_map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "passes/analysis/overlap.h"

namespace heddle::inspect {
namespace {

std::string scaled(double number, double step,
                   std::initializer_list<const char*> units) {
  auto unit = units.begin();
  while (std::abs(number) >= step * 0.9995 && unit + 1 != units.end()) {
    number /= step;
    ++unit;
  }
  char text[48];
  // Whole numbers of the smallest unit, three significant digits above it.
  const int digits = unit == units.begin() && number == std::floor(number) ? 0
                     : number >= 100                                       ? 0
                     : number >= 10                                        ? 1
                                                                           : 2;
  std::snprintf(text, sizeof(text), "%.*f%s%s", digits, number,
                **unit ? " " : "", *unit);
  return text;
}

int phaseIndex(const std::string& phase) {
  return phase == "backward" ? 1 : phase == "update" ? 2 : 0;
}

}  // namespace

std::string bytesText(int64_t bytes) {
  return scaled(bytes, 1024, {"B", "KiB", "MiB", "GiB", "TiB"});
}
std::string countText(int64_t count) {
  return scaled(count, 1000, {"", "K", "M", "B", "T"});
}
std::string flopsText(int64_t flops) {
  return scaled(flops, 1000,
                {"FLOP", "KFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"});
}
std::string timeText(double seconds) {
  if (seconds >= 1) return scaled(seconds, 1000, {"s"});
  return scaled(seconds * 1e9, 1000, {"ns", "us", "ms", "s"});
}

std::vector<KindCount> countKinds(const Section& section) {
  std::map<std::string, KindCount> kinds;
  for (const Op& op : section.ops) {
    KindCount& own = kinds[op.kind];
    ++own.ops;
    own.bytes += op.bytes;
    for (const FlopsOfKind& part : op.flops) {
      KindCount& kind = kinds[part.kind];
      kind.flops += part.flops;
      kind.phaseFlops[phaseIndex(op.phase)] += part.flops;
    }
  }
  std::vector<KindCount> sorted;
  for (auto& [name, count] : kinds) {
    count.kind = name;
    sorted.push_back(count);
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const KindCount& a, const KindCount& b) {
                     return std::make_tuple(a.flops, a.bytes, a.ops) >
                            std::make_tuple(b.flops, b.bytes, b.ops);
                   });
  return sorted;
}

Share countShare(const Section& section) {
  Share share;
  std::map<std::string, int64_t> others;
  for (const Op& op : section.ops) {
    const int64_t flops = op.totalFlops();
    ++share.ops;
    share.flops += flops;
    share.bytes += op.bytes;
    if (op.structured) {
      ++share.structuredOps;
      share.structuredFlops += flops;
    } else {
      ++others[op.name];
    }
  }
  share.others.assign(others.begin(), others.end());
  std::stable_sort(
      share.others.begin(), share.others.end(),
      [](const auto& a, const auto& b) { return a.second > b.second; });
  return share;
}

std::optional<ClosedForm> closedForm(const Program& program,
                                     const Section& section) {
  ClosedForm form;
  for (const Argument& argument : program.arguments) {
    if (argument.kind == "input" && argument.name() == "input_ids")
      form.tokens = program.elements(argument.value);
    if (argument.kind != "parameter") continue;
    if (argument.role == "stack") return std::nullopt;
    // A tied embedding is the head's matrix too.
    const bool product =
        argument.role == "matrix" || argument.role == "head" ||
        (argument.role == "embedding" && argument.names.size() > 1);
    if (!product) continue;
    if (!argument.trainable) return std::nullopt;
    form.weights += program.elements(argument.value);
  }
  bool backward = false;
  for (const Op& op : section.ops) {
    backward |= op.phase == "backward";
    for (const FlopsOfKind& part : op.flops) {
      if (part.kind == "convolution" || part.kind == "grouped matmul")
        return std::nullopt;
      const bool attention =
          part.kind == "attention" || part.kind == "batched matmul";
      if (attention) form.attention += part.flops;
      if (attention || part.kind == "matmul") form.counted += part.flops;
    }
  }
  if (!backward || form.tokens == 0 || form.weights == 0 || form.counted == 0)
    return std::nullopt;
  return form;
}

std::vector<StateSum> stateSums(const Program& program) {
  std::vector<StateSum> sums;
  for (const Argument& argument : program.arguments) {
    auto it = std::find_if(sums.begin(), sums.end(), [&](const StateSum& sum) {
      return sum.kind == argument.kind;
    });
    if (it == sums.end()) it = sums.insert(sums.end(), StateSum{argument.kind});
    ++it->tensors;
    it->elements += program.elements(argument.value);
    it->bytes += program.storages[program.values[argument.value].storage].bytes;
  }
  return sums;
}

int64_t MemoryCurve::total(size_t op) const {
  int64_t total = 0;
  for (int64_t bytes : at[op]) total += bytes;
  return total;
}

MemoryCurve memoryCurve(const Program& program, const Section& section) {
  MemoryCurve curve;
  // Changes before each op, then their running sum.
  curve.at.resize(section.ops.size() + 1);
  for (const Storage& storage : program.storages)
    if (storage.resident)
      curve.at[0][static_cast<size_t>(storage.category)] += storage.bytes;
  for (const Lifetime& lifetime : section.lifetimes) {
    const Storage& storage = program.storages[lifetime.storage];
    curve.at[lifetime.first][static_cast<size_t>(storage.category)] +=
        storage.bytes;
    curve.at[lifetime.last + 1][static_cast<size_t>(storage.category)] -=
        storage.bytes;
  }
  for (size_t op = 1; op < curve.at.size(); ++op)
    for (int category = 0; category < kCategories; ++category)
      curve.at[op][category] += curve.at[op - 1][category];
  if (!section.ops.empty()) curve.at.pop_back();
  for (size_t op = 1; op < curve.at.size(); ++op)
    if (curve.total(op) > curve.total(curve.peak)) curve.peak = op;
  return curve;
}

std::vector<Lifetime> longestLived(const Program& program,
                                   const Section& section, size_t count) {
  std::vector<Lifetime> sorted = section.lifetimes;
  count = std::min(count, sorted.size());
  std::partial_sort(sorted.begin(), sorted.begin() + count, sorted.end(),
                    [&](const Lifetime& a, const Lifetime& b) {
                      const int64_t lengthA = a.last - a.first,
                                    lengthB = b.last - b.first;
                      const int64_t bytesA = program.storages[a.storage].bytes,
                                    bytesB = program.storages[b.storage].bytes;
                      return std::make_tuple(lengthA, bytesA, -a.first) >
                             std::make_tuple(lengthB, bytesB, -b.first);
                    });
  sorted.resize(count);
  return sorted;
}

const DeviceCost& deviceCost(const Program& program) {
  return heddle::deviceCost(program.target);
}

Prediction predict(const Program& program, const Section& section) {
  const DeviceCost& cost = deviceCost(program);
  std::unordered_map<int, int> signaller;
  std::vector<Task> tasks;
  tasks.reserve(section.ops.size());
  for (const Op& op : section.ops) {
    Task task{op.stream, 0, op.wireBytes >= 0, {}};
    for (int event : op.waits)
      if (auto it = signaller.find(event); it != signaller.end())
        task.after.push_back(it->second);
    if (op.measured >= 0) {
      task.seconds = op.measured;
    } else if (task.collective) {
      task.seconds = collectiveSeconds(cost, program.ranks, op.wireBytes);
    } else if (!op.view) {
      task.seconds =
          stepSeconds(cost, program.precision, op.totalFlops(), op.bytes);
    }
    if (op.signal >= 0) signaller[op.signal] = static_cast<int>(tasks.size());
    tasks.push_back(std::move(task));
  }
  const Timeline line = simulate(tasks);
  Prediction prediction{{}, line.end, line.collectives, line.exposed};
  for (size_t i = 0; i < tasks.size(); ++i)
    prediction.spans.push_back({line.start[i], tasks[i].seconds});
  return prediction;
}

std::string predictionText(const Prediction& prediction) {
  std::string text = timeText(prediction.end);
  if (prediction.collectives == 0) return text;
  char share[32];
  std::snprintf(share, sizeof(share), "%.1f",
                100 * prediction.exposed / std::max(prediction.end, 1e-12));
  return absl::StrCat(text, "; collectives ", timeText(prediction.collectives),
                      ", of which ", timeText(prediction.exposed), " exposed (",
                      share, " % of the time)");
}

std::vector<std::string> timelineText(const Program& program,
                                      const Section& section,
                                      const Prediction& prediction,
                                      size_t width) {
  if (program.streams.size() < 2 || prediction.collectives == 0) return {};
  static constexpr const char* levels[] = {" ", "▁", "▂", "▃", "▄",
                                           "▅", "▆", "▇", "█"};
  const double column = prediction.end / static_cast<double>(width);
  std::vector<std::vector<double>> busy(program.streams.size(),
                                        std::vector<double>(width, 0));
  for (size_t i = 0; i < section.ops.size(); ++i) {
    const Span& span = prediction.spans[i];
    const double end = span.start + span.duration;
    for (size_t c = static_cast<size_t>(span.start / column);
         c < width && static_cast<double>(c) * column < end; ++c)
      busy[section.ops[i].stream][c] +=
          std::min(end, static_cast<double>(c + 1) * column) -
          std::max(span.start, static_cast<double>(c) * column);
  }
  std::vector<std::string> lines;
  for (const std::vector<double>& stream : busy) {
    std::string line;
    for (double seconds : stream)
      line += levels[std::clamp(
          static_cast<int>(std::ceil(8 * seconds / column - 0.05)), 0, 8)];
    lines.push_back(line);
  }
  return lines;
}

}  // namespace heddle::inspect
