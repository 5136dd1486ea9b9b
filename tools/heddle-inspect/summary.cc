// A described program -> what a person wants to know first, in a page of text.
// Invariant: units are written at every number; what a file does not say is
// left out or said to be missing, never shown as zero.
#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "tools/heddle-inspect/analysis.h"
#include "tools/heddle-inspect/outputs.h"

namespace heddle::inspect {
namespace {

std::string padded(std::string text, int width) {
  const size_t size = static_cast<size_t>(std::abs(width));
  if (text.size() < size)
    text.insert(width > 0 ? text.size() : 0, size - text.size(), ' ');
  return text;
}

std::string percent(int64_t part, int64_t whole) {
  if (whole == 0) return "-";
  char text[24];
  std::snprintf(text, sizeof(text), "%.1f %%", 100.0 * part / whole);
  return text;
}

std::string bar(int64_t part, int64_t whole, int width) {
  const int filled =
      whole <= 0 ? 0
                 : static_cast<int>(
                       std::clamp(static_cast<double>(part) / whole, 0.0, 1.0) *
                           width +
                       0.5);
  std::string text;
  for (int i = 0; i < filled; ++i) text += "█";
  return text;
}

void addState(std::string& text, const Program& program) {
  absl::StrAppend(&text, program.ranks == 1
                             ? "\nWhat it holds\n"
                             : "\nWhat it holds; bytes of the rank that holds "
                               "most of each tensor\n");
  for (const StateSum& sum : stateSums(program)) {
    absl::StrAppend(&text, "  ", padded(sum.kind, 14),
                    padded(absl::StrCat(sum.tensors), -6),
                    sum.tensors == 1 ? " tensor " : " tensors",
                    padded(countText(sum.elements), -10), " elements",
                    padded(bytesText(sum.bytes), -11), "\n");
  }
}

void addDeviceMemory(std::string& text, const Program& program) {
  const std::vector<DeviceBytes> parts = deviceMemory(program);
  if (parts.empty()) return;
  absl::StrAppend(&text, "\nOn the device, predicted for ",
                  deviceCost(program).name, "\n");
  int64_t all = 0;
  std::vector<std::string> unknown;
  for (const DeviceBytes& part : parts) {
    absl::StrAppend(
        &text, "  ", padded(part.what, 18),
        padded(part.bytes < 0 ? "not known" : bytesText(part.bytes), -11),
        part.note.empty() ? "" : "  ", part.note, "\n");
    if (part.bytes < 0) unknown.push_back(part.what);
    all += std::max<int64_t>(part.bytes, 0);
  }
  absl::StrAppend(&text, "  ", padded("all", 18), padded(bytesText(all), -11),
                  "  ", all, " bytes",
                  unknown.empty()
                      ? ""
                      : absl::StrCat(" without ", absl::StrJoin(unknown, ", ")),
                  "\n");
}

void addFlops(std::string& text, const Program& program,
              const Section& section) {
  const Share share = countShare(section);
  const std::vector<KindCount> kinds = countKinds(section);
  absl::StrAppend(&text, "\n  ", padded("kind", 18), padded("ops", -7),
                  padded("FLOPs", -14), padded("share", -9),
                  padded("bytes moved", -14), "\n");
  for (const KindCount& kind : kinds) {
    absl::StrAppend(
        &text, "  ", padded(kind.kind, 18), padded(absl::StrCat(kind.ops), -7),
        padded(kind.flops ? flopsText(kind.flops) : "-", -14),
        padded(kind.flops ? percent(kind.flops, share.flops) : "", -9),
        padded(bytesText(kind.bytes), -14), "  ",
        bar(kind.flops, share.flops, 24), "\n");
  }
  absl::StrAppend(
      &text, "  ", padded("all", 18), padded(absl::StrCat(share.ops), -7),
      padded(share.flops ? flopsText(share.flops) : "not in file", -14),
      padded("", -9), padded(bytesText(share.bytes), -14), "\n");
  if (const std::optional<ClosedForm> form = closedForm(program, section)) {
    char ratio[32];
    std::snprintf(ratio, sizeof(ratio), "%.4f",
                  static_cast<double>(form->counted) / form->expected());
    absl::StrAppend(
        &text, "  closed form: 6 x ", countText(form->weights), " weights x ",
        form->tokens, " tokens + attention ", flopsText(form->attention), " = ",
        flopsText(form->expected()), "; matrix products and attention count ",
        flopsText(form->counted), " (", ratio,
        " of it; masks not subtracted)\n");
  }
  absl::StrAppend(&text, "  ODS ops: ", share.structuredOps, " of ", share.ops,
                  " (", percent(share.structuredOps, share.ops), ")");
  if (share.flops)
    absl::StrAppend(&text, ", ", percent(share.structuredFlops, share.flops),
                    " of FLOPs");
  absl::StrAppend(&text, "\n");
  if (!share.others.empty()) {
    absl::StrAppend(&text, "  others: ",
                    absl::StrJoin(share.others, ", ",
                                  [](std::string* out, const auto& other) {
                                    absl::StrAppend(out, other.first, " x",
                                                    other.second);
                                  }),
                    "\n");
  }
}

void addMemory(std::string& text, const Program& program,
               const Section& section) {
  if (section.ops.empty()) return;
  const MemoryCurve curve = memoryCurve(program, section);
  const Op& at = section.ops[curve.peak];
  absl::StrAppend(&text, "\n  Live memory, peak ",
                  bytesText(curve.total(curve.peak)), " at op ", curve.peak,
                  " (", at.name, at.path.empty() ? "" : " in ", at.path, ", ",
                  at.phase, ")\n");
  for (int category = 0; category < kCategories; ++category) {
    int64_t most = 0;
    for (const CategoryBytes& bytes : curve.at)
      most = std::max(most, bytes[category]);
    if (most == 0) continue;
    absl::StrAppend(
        &text, "    ",
        padded(categoryName(static_cast<Category>(category)), 18),
        padded(bytesText(curve.at[curve.peak][category]), -11), " at the peak",
        padded(bytesText(most), -11), " at most  ",
        bar(curve.at[curve.peak][category], curve.total(curve.peak), 24), "\n");
  }
  const bool bodies =
      std::any_of(section.ops.begin(), section.ops.end(),
                  [](const Op& op) { return op.kind == "composite"; });
  if (bodies)
    absl::StrAppend(&text,
                    "    temporaries inside composites are not counted\n");
  if (section.scratchBytes >= 0) {
    char ratio[32];
    std::snprintf(
        ratio, sizeof(ratio), "%.3f",
        section.liveLowerBound > 0
            ? static_cast<double>(section.scratchBytes) / section.liveLowerBound
            : 1.0);
    absl::StrAppend(&text, "    scratch arena ",
                    bytesText(section.scratchBytes), ", lower bound ",
                    bytesText(section.liveLowerBound), ", ratio ", ratio, "\n");
  }
  // Eight rows over program order: the shape of the curve.
  static constexpr const char* levels[] = {" ", "▁", "▂", "▃", "▄",
                                           "▅", "▆", "▇", "█"};
  constexpr size_t width = 72;
  const int64_t peak = std::max<int64_t>(curve.total(curve.peak), 1);
  std::string line;
  const size_t columns = std::min(width, curve.at.size());
  for (size_t column = 0; column < columns; ++column) {
    int64_t most = 0;
    for (size_t op = column * curve.at.size() / columns;
         op < (column + 1) * curve.at.size() / columns; ++op)
      most = std::max(most, curve.total(op));
    line += levels[std::clamp(static_cast<int>(8.0 * most / peak), 0, 8)];
  }
  absl::StrAppend(&text, "    ", line, "\n");
}

void addLongest(std::string& text, const Program& program,
                const Section& section) {
  const std::vector<Lifetime> longest = longestLived(program, section, 8);
  if (longest.empty()) return;
  absl::StrAppend(&text, "\n  Lives longest\n");
  for (const Lifetime& lifetime : longest) {
    const Storage& storage = program.storages[lifetime.storage];
    absl::StrAppend(
        &text, "    ",
        padded(absl::StrCat("ops ", lifetime.first, "-", lifetime.last), 18),
        padded(bytesText(storage.bytes), -11), "  ",
        padded(categoryName(storage.category), 13), storage.name, "\n");
  }
}

void addCollectives(std::string& text, const Section& section) {
  if (section.collectives.empty()) return;
  absl::StrAppend(&text, "\n  Collectives, bytes that reach a rank\n");
  for (const CollectiveSum& sum : section.collectives) {
    const auto [least, most] =
        std::minmax_element(sum.bytes.begin(), sum.bytes.end());
    absl::StrAppend(
        &text, "    ", padded(sum.kind, 18),
        padded(absl::StrCat(sum.calls, " x"), -7),
        padded(bytesText(*most), -14),
        *least == *most
            ? ""
            : absl::StrCat(" at most, ", bytesText(*least), " at least"),
        "\n");
  }
}

// What the compiler decided about gradients and gathers, as the plan's
// configuration has it.
void addDecisions(std::string& text, const Program& program) {
  using nlohmann::json;
  const json config = json::parse(program.config, nullptr, false);
  if (!config.is_object()) return;
  if (const json& buckets = config.value("buckets", json());
      buckets.is_object()) {
    const int64_t elements = buckets.value("elements", int64_t{0});
    const int64_t padding = buckets.value("padding", int64_t{0});
    absl::StrAppend(&text, "\nBuckets: ", buckets.value("count", int64_t{0}),
                    " of ", countText(elements), " elements in all, ",
                    countText(padding), " of them padding (",
                    percent(padding, elements), ")\n");
  }
  if (const json& gradients = config.value("gradients", json());
      gradients.is_object()) {
    int64_t copied = 0, bytes = 0;
    std::string lines;
    for (const json& entry : gradients.value("copied", json::array())) {
      const int64_t count = entry.value("count", int64_t{0});
      copied += count;
      bytes += entry.value("bytes", int64_t{0});
      absl::StrAppend(&lines, "  ", padded(absl::StrCat(count, " x"), -6), " ",
                      entry.value("operator", ""), ": ", entry.value("why", ""),
                      "\n");
    }
    absl::StrAppend(&text,
                    "\nGradients: ", gradients.value("in_place", int64_t{0}),
                    " computed where they are sent from, ", copied,
                    " copied there (", bytesText(bytes), ")\n", lines);
  }
  if (const json& kept = config.value("kept_gathered", json());
      kept.is_object())
    absl::StrAppend(
        &text,
        "\nGathered once for both passes: ", kept.value("buckets", int64_t{0}),
        " of ", kept.value("of", int64_t{0}), " buckets, ",
        bytesText(kept.value("bytes", int64_t{0})), "; scratch may take ",
        bytesText(kept.value("scratch_budget", int64_t{0})), "\n");
}

}  // namespace

std::string summaryText(const Program& program) {
  std::string text = absl::StrCat(
      program.file, "\n  ", program.format, " version ", program.version,
      ", target ", program.target, ", precision ", program.precision,
      ", torch ", program.torchVersion,
      program.mode.empty() ? "" : absl::StrCat(", mode ", program.mode),
      program.ranks == 1 ? "" : absl::StrCat(", ", program.ranks, " ranks"),
      "\n");
  addState(text, program);
  addDeviceMemory(text, program);
  absl::StrAppend(&text, "\nParameters by module\n",
                  moduleTreeText(program, 8));
  addDecisions(text, program);
  for (const Section& section : program.sections) {
    absl::StrAppend(&text, "\nSection ", section.name, ": ", section.ops.size(),
                    " ops");
    if (program.streams.size() > 1)
      absl::StrAppend(&text, " on ", program.streams.size(), " streams");
    int gradients = 0;
    for (const SectionResult& result : section.results)
      gradients += result.kind == "gradient";
    absl::StrAppend(
        &text, ", ", section.results.size(), " results",
        gradients ? absl::StrCat(" (", gradients, " gradients)") : "", "\n");
    addFlops(text, program, section);
    addCollectives(text, section);
    addMemory(text, program, section);
    addLongest(text, program, section);
    const Prediction prediction = predict(program, section);
    int64_t measured = 0;
    for (const Op& op : section.ops) measured += op.measured >= 0;
    absl::StrAppend(&text, "\n  Predicted for ",
                    measured == 0
                        ? std::string(deviceCost(program).name)
                        : absl::StrCat(program.costs, ", ", measured, " of ",
                                       section.ops.size(), " ops as measured"),
                    ": ", predictionText(prediction), "\n");
    const std::vector<std::string> lines =
        timelineText(program, section, prediction, 72);
    for (size_t stream = 0; stream < lines.size(); ++stream)
      absl::StrAppend(&text, "    ", padded(program.streams[stream], 10),
                      lines[stream], "\n");
  }
  return text;
}

}  // namespace heddle::inspect
