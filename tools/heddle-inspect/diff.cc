// Two described programs -> what changed: header, arguments, ops by kind and by
// module, FLOPs, bytes, peak memory. Invariant: only differences are printed;
// layers that changed alike are one line, their numbers replaced by *.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tools/heddle-inspect/analysis.h"
#include "tools/heddle-inspect/outputs.h"

namespace heddle::inspect {
namespace {

using Counts = std::map<std::string, std::pair<int64_t, int64_t>>;

std::string signedText(int64_t number) {
  return number > 0 ? absl::StrCat("+", number) : absl::StrCat(number);
}

std::string padded(std::string text, size_t width, bool right) {
  if (text.size() < width)
    text.insert(right ? 0 : text.size(), width - text.size(), ' ');
  return text;
}

// "model.layers.3.mlp" -> "model.layers.*.mlp"
std::string withoutNumbers(const std::string& path) {
  std::vector<std::string> parts = absl::StrSplit(path, '.');
  for (std::string& part : parts)
    if (!part.empty() &&
        std::all_of(part.begin(), part.end(),
                    [](unsigned char c) { return std::isdigit(c); }))
      part = "*";
  return absl::StrJoin(parts, ".");
}

void addChanges(std::string& text, const std::string& title,
                const Counts& counts) {
  std::vector<std::pair<std::string, std::pair<int64_t, int64_t>>> changed;
  for (const auto& entry : counts)
    if (entry.second.first != entry.second.second) changed.push_back(entry);
  if (changed.empty()) return;
  std::stable_sort(changed.begin(), changed.end(),
                   [](const auto& a, const auto& b) {
                     return std::abs(a.second.second - a.second.first) >
                            std::abs(b.second.second - b.second.first);
                   });
  absl::StrAppend(&text, "\n", title, "\n");
  for (const auto& [name, count] : changed) {
    absl::StrAppend(&text, "  ", padded(name, 52, false),
                    padded(absl::StrCat(count.first), 7, true), " -> ",
                    padded(absl::StrCat(count.second), 7, false),
                    padded(signedText(count.second - count.first), 7, true),
                    "\n");
  }
}

void addText(std::string& text, const char* what, const std::string& before,
             const std::string& after) {
  if (before != after)
    absl::StrAppend(&text, "  ", padded(what, 14, false),
                    before.empty() ? "(none)" : before, " -> ",
                    after.empty() ? "(none)" : after, "\n");
}

void addNumber(std::string& text, const char* what, int64_t before,
               int64_t after, std::string (*form)(int64_t)) {
  if (before != after)
    absl::StrAppend(&text, "  ", padded(what, 14, false), form(before), " -> ",
                    form(after), " (", after > before ? "+" : "-",
                    form(std::abs(after - before)), ")\n");
}

std::string argumentsDiff(const Program& before, const Program& after) {
  std::map<std::string, std::pair<std::string, std::string>> types;
  for (const Argument& argument : before.arguments)
    types[absl::StrCat(argument.kind, " ", argument.name())].first =
        typeText(before.values[argument.value]);
  for (const Argument& argument : after.arguments)
    types[absl::StrCat(argument.kind, " ", argument.name())].second =
        typeText(after.values[argument.value]);
  struct Change {
    int64_t count = 0;
    std::string example;
  };
  std::map<std::string, Change> changes;
  for (const auto& [name, type] : types) {
    if (type.first == type.second) continue;
    const char* what = type.first.empty()    ? "+ "
                       : type.second.empty() ? "- "
                                             : "~ ";
    Change& change = changes[absl::StrCat(what, withoutNumbers(name))];
    ++change.count;
    change.example = type.first.empty() ? type.second
                     : type.second.empty()
                         ? type.first
                         : absl::StrCat(type.first, " -> ", type.second);
  }
  std::string text;
  for (const auto& [name, change] : changes)
    absl::StrAppend(&text, "  ", padded(name, 60, false),
                    change.count > 1 ? absl::StrCat(" x", change.count) : "",
                    " ", change.example, "\n");
  return text.empty() ? text : absl::StrCat("\nArguments\n", text);
}

int64_t peakOf(const Program& program, const Section& section) {
  const MemoryCurve curve = memoryCurve(program, section);
  return curve.total(curve.peak);
}

// The dialect's and the plan's name of one operator are the same to a reader.
std::string commonName(const std::string& name) {
  for (const char* prefix : {"graph.", "aten::", "optim."})
    if (absl::StartsWith(name, prefix)) return name.substr(std::strlen(prefix));
  return name;
}

// What runs for one micro-batch and its update, as one section: a program
// before it was split.
Section oneStep(const Program& program) {
  Section step;
  std::vector<std::string> names;
  step.name = "step";
  for (const Section& section : program.sections) {
    if (section.name == "micro_next" || section.name == "evaluate") continue;
    names.push_back(section.name);
    step.ops.insert(step.ops.end(), section.ops.begin(), section.ops.end());
    step.results.insert(step.results.end(), section.results.begin(),
                        section.results.end());
  }
  if (names.size() > 1) step.name = absl::StrJoin(names, " + ");
  return step;
}

int64_t peakOf(const Program& program) {
  int64_t peak = 0;
  for (const Section& section : program.sections)
    peak = std::max(peak, peakOf(program, section));
  return peak;
}

const Section* find(const Program& program, const std::string& name) {
  for (const Section& section : program.sections)
    if (section.name == name) return &section;
  return nullptr;
}

// `peakA`, `peakB`: live bytes at the peaks, of whole steps for sections that
// oneStep put together.
std::string sectionDiff(const Section* a, int64_t peakA, const Section* b,
                        int64_t peakB) {
  static const Section none;
  const Share shareA = countShare(a ? *a : none),
              shareB = countShare(b ? *b : none);
  std::string text;
  addNumber(text, "ops", shareA.ops, shareB.ops, countText);
  addNumber(text, "ODS ops", shareA.structuredOps, shareB.structuredOps,
            countText);
  addNumber(text, "FLOPs", shareA.flops, shareB.flops, flopsText);
  addNumber(text, "bytes moved", shareA.bytes, shareB.bytes, bytesText);
  addNumber(text, "peak live", peakA, peakB, bytesText);
  addNumber(text, "results", a ? a->results.size() : 0,
            b ? b->results.size() : 0, countText);
  if (a && b && a->scratchBytes >= 0 && b->scratchBytes >= 0)
    addNumber(text, "scratch", a->scratchBytes, b->scratchBytes, bytesText);
  Counts names, modules;
  auto count = [&](const Section* section, bool second) {
    if (!section) return;
    for (const Op& op : section->ops) {
      auto& name = names[commonName(op.name)];
      auto& module = modules[absl::StrCat(
          op.phase, " ",
          op.path.empty() ? "(no module)" : withoutNumbers(op.path))];
      ++(second ? name.second : name.first);
      ++(second ? module.second : module.first);
    }
  };
  count(a, false);
  count(b, true);
  addChanges(text, "Ops by name", names);
  addChanges(text, "Ops by module", modules);
  return text;
}

}  // namespace

std::string diffText(const Program& before, const Program& after) {
  std::string changes;
  addText(changes, "format", before.format, after.format);
  addText(changes, "target", before.target, after.target);
  addText(changes, "precision", before.precision, after.precision);
  addText(changes, "torch", before.torchVersion, after.torchVersion);
  addText(changes, "mode", before.mode, after.mode);
  addText(changes, "config", before.config, after.config);
  addText(changes, "streams", absl::StrJoin(before.streams, ", "),
          absl::StrJoin(after.streams, ", "));
  absl::StrAppend(&changes, argumentsDiff(before, after));
  // A step that was cut into sections is compared with what one micro-batch
  // runs of them.
  if (before.sections.size() == 1 || after.sections.size() == 1) {
    const Section a =
        before.sections.size() == 1 ? before.sections[0] : oneStep(before);
    const Section b =
        after.sections.size() == 1 ? after.sections[0] : oneStep(after);
    const std::string section =
        sectionDiff(&a, peakOf(before), &b, peakOf(after));
    if (!section.empty())
      absl::StrAppend(&changes, "\nSection ", a.name,
                      a.name == b.name ? "" : absl::StrCat(" -> ", b.name),
                      "\n", section);
  } else {
    std::vector<std::string> names;
    for (const Program* program : {&before, &after})
      for (const Section& section : program->sections)
        if (std::find(names.begin(), names.end(), section.name) == names.end())
          names.push_back(section.name);
    for (const std::string& name : names) {
      const Section *a = find(before, name), *b = find(after, name);
      const std::string section = sectionDiff(a, a ? peakOf(before, *a) : 0, b,
                                              b ? peakOf(after, *b) : 0);
      if (!section.empty())
        absl::StrAppend(&changes, "\nSection ", name,
                        a == nullptr   ? " (new)"
                        : b == nullptr ? " (gone)"
                                       : "",
                        "\n", section);
    }
  }
  return absl::StrCat(
      before.file, " -> ", after.file, "\n",
      changes.empty() ? "  no difference in ops, arguments, sizes or modules\n"
                      : changes);
}

}  // namespace heddle::inspect
