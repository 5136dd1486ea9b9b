// A described program -> one page: its numbers as JSON inside the page's own
// template. Invariant: the page refers to nothing outside itself; the JSON
// cannot end the script element it lies in.
#include <algorithm>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"
#include "tools/heddle-inspect/analysis.h"
#include "tools/heddle-inspect/outputs.h"
#include "tools/heddle-inspect/page.inc"

namespace heddle::inspect {
namespace {

using nlohmann::json;

// Columns of the memory chart: more than pixels would show nothing more.
constexpr size_t kMaxPoints = 1600;

// Strings that occur often are written once.
class Strings {
 public:
  int operator()(const std::string& text) {
    auto [it, fresh] = index.emplace(text, static_cast<int>(index.size()));
    if (fresh) list.push_back(text);
    return it->second;
  }
  json list = json::array();

 private:
  std::unordered_map<std::string, int> index;
};

json moduleJson(const Program& program, const Module& module) {
  json node = {{"n", module.name}, {"e", module.elements}, {"b", module.bytes}};
  if (module.argument >= 0) {
    const Argument& argument = program.arguments[module.argument];
    node["t"] = typeText(program.values[argument.value]);
    node["r"] = argument.kind == "buffer" ? "buffer" : argument.role;
    node["frozen"] = argument.kind == "parameter" && !argument.trainable;
    if (argument.names.size() > 1) node["tied"] = argument.names[1];
  }
  if (!module.children.empty()) {
    node["c"] = json::array();
    for (const auto& child : module.children)
      node["c"].push_back(moduleJson(program, *child));
  }
  return node;
}

// [first op, bytes by category...] per column; of the ops in a column the one
// with most bytes, so that the peak is always there.
json memoryJson(const MemoryCurve& curve) {
  json points = json::array();
  const size_t columns = std::min(kMaxPoints, curve.at.size());
  for (size_t column = 0; column < columns; ++column) {
    const size_t begin = column * curve.at.size() / columns,
                 end = (column + 1) * curve.at.size() / columns;
    size_t most = begin;
    for (size_t op = begin; op < end; ++op)
      if (curve.total(op) > curve.total(most)) most = op;
    json point = json::array({most});
    for (int64_t bytes : curve.at[most]) point.push_back(bytes);
    points.push_back(std::move(point));
  }
  return points;
}

json sectionJson(const Program& program, const Section& section,
                 Strings& strings) {
  const MemoryCurve curve = memoryCurve(program, section);
  const Prediction prediction = predict(program, section);
  const std::vector<Span>& spans = prediction.spans;
  std::unordered_map<int, std::string> names;
  for (const Argument& argument : program.arguments)
    names.emplace(argument.value, argument.name());
  json ops = json::array();
  for (size_t i = 0; i < section.ops.size(); ++i) {
    const Op& op = section.ops[i];
    const int out = op.results.empty() ? -1 : op.results[0];
    // Where operands come from: an op of the section, or -1 - the string that
    // names what was given.
    json sources = json::array();
    for (const Use& use : op.operands) {
      auto name = names.find(use.value);
      sources.push_back(
          use.producer >= 0
              ? use.producer
              : -1 - strings(
                         name == names.end()
                             ? program
                                   .storages[program.values[use.value].storage]
                                   .name
                             : name->second));
    }
    const std::string attributes = absl::StrJoin(
        op.attributes, "\n", [](std::string* text, const auto& attribute) {
          absl::StrAppend(text, attribute.first, " = ", attribute.second);
        });
    ops.push_back({strings(op.name), strings(op.kind), strings(op.phase),
                   strings(op.path), strings(op.source), op.totalFlops(),
                   op.bytes, op.stream,
                   strings(out < 0 ? "" : typeText(program.values[out])),
                   op.structured ? 1 : 0, op.view ? 1 : 0, spans[i].start * 1e6,
                   spans[i].duration * 1e6, sources, strings(attributes)});
  }
  json kinds = json::array();
  for (const KindCount& kind : countKinds(section))
    kinds.push_back(
        {kind.kind, kind.ops, kind.flops, kind.bytes, kind.phaseFlops});
  json longest = json::array();
  for (const Lifetime& lifetime : longestLived(program, section, 24)) {
    const Storage& storage = program.storages[lifetime.storage];
    longest.push_back({storage.name, static_cast<int>(storage.category),
                       storage.bytes, lifetime.first, lifetime.last});
  }
  const Share share = countShare(section);
  json result = {
      {"name", section.name},
      {"ops", ops},
      {"kinds", kinds},
      {"memory", memoryJson(curve)},
      {"peak", {{"op", curve.peak}, {"bytes", curve.total(curve.peak)}}},
      {"longest", longest},
      {"share",
       {share.ops, share.structuredOps, share.flops, share.structuredFlops,
        share.bytes}},
      {"others", share.others},
      {"scratch", section.scratchBytes},
      {"bound", section.liveLowerBound},
      {"results", section.results.size()},
      {"seconds", prediction.end},
      {"collectives", prediction.collectives},
      {"exposed", prediction.exposed}};
  if (const std::optional<ClosedForm> form = closedForm(program, section))
    result["closed"] = {form->weights, form->tokens, form->attention,
                        form->expected(), form->counted};
  return result;
}

}  // namespace

std::string htmlPage(const Program& program) {
  Strings strings;
  json data;
  data["file"] = program.file.substr(program.file.rfind('/') + 1);
  data["format"] = absl::StrCat(program.format, " version ", program.version);
  data["target"] = program.target;
  data["precision"] = program.precision;
  data["torch"] = program.torchVersion;
  data["mode"] = program.mode;
  data["config"] = program.config;
  data["streams"] = program.streams;
  data["device"] = deviceCost(program).name;
  for (int category = 0; category < kCategories; ++category)
    data["categories"].push_back(categoryName(static_cast<Category>(category)));
  data["state"] = json::array();
  for (const StateSum& sum : stateSums(program))
    data["state"].push_back({sum.kind, sum.tensors, sum.elements, sum.bytes});
  data["modules"] = moduleJson(program, *moduleTree(program));
  data["sections"] = json::array();
  for (const Section& section : program.sections)
    data["sections"].push_back(sectionJson(program, section, strings));
  data["strings"] = strings.list;
  // "</script>" or "<!--" inside a string would end the script early.
  const std::string text = absl::StrReplaceAll(
      data.dump(-1, ' ', false, json::error_handler_t::replace),
      {{"<", "\\u003c"}});
  return absl::StrCat(kPageBeforeData, text, kPageAfterData);
}

}  // namespace heddle::inspect
