// A described program -> Model Explorer's JSON (a graph collection: label,
// graphs; a graph: id, nodes; a node: id, label, namespace, attrs,
// incomingEdges, outputsMetadata). Every attribute value is a string, as its
// schema wants. Invariant: an edge names a node of its own graph and one of
// that node's outputs. Forward ops lie under their module path. Backward and
// update ops lie under the same path below a namespace of their phase: both in
// one group would make the groups depend on each other in circles, and nothing
// could be laid out.
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"
#include "tools/heddle-inspect/analysis.h"
#include "tools/heddle-inspect/outputs.h"

namespace heddle::inspect {
namespace {

using nlohmann::json;

json attribute(const std::string& key, const std::string& value) {
  return {{"key", key}, {"value", value}};
}

std::string namespaceOf(const std::string& path) {
  return absl::StrReplaceAll(path, {{".", "/"}});
}

std::string namespaceOf(const Op& op) {
  const std::string path = namespaceOf(op.path);
  if (op.phase == "forward" || op.phase.empty()) return path;
  return path.empty() ? op.phase : absl::StrCat(op.phase, "/", path);
}

json outputMetadata(const Program& program, int output, int value) {
  json attributes = json::array();
  if (value >= 0) {
    const Value& made = program.values[value];
    attributes.push_back(attribute("tensor_shape", typeText(made)));
    attributes.push_back(
        attribute("bytes", bytesText(program.storages[made.storage].bytes)));
    attributes.push_back(attribute(
        "memory", categoryName(program.storages[made.storage].category)));
  }
  return {{"id", absl::StrCat(output)}, {"attrs", attributes}};
}

class GraphWriter {
 public:
  GraphWriter(const Program& program, const Section& section)
      : program(program), section(section) {
    for (const Argument& argument : program.arguments)
      argumentOfValue[argument.value] = &argument;
  }

  json write() {
    json edges = json::array();
    const Prediction prediction = predict(program, section);
    for (size_t i = 0; i < section.ops.size(); ++i)
      nodes.push_back(opNode(i, prediction.spans[i]));
    for (const SectionResult& result : section.results)
      edges.push_back(edge(result.use, edges.size()));
    if (!edges.empty())
      nodes.push_back({{"id", "results"},
                       {"label", "results"},
                       {"namespace", ""},
                       {"attrs", json::array()},
                       {"incomingEdges", edges}});
    json groups = json::object();
    addGroups(*moduleTree(program), "", groups);
    groups[""] = {
        {"file", program.file},
        {"format", absl::StrCat(program.format, " version ", program.version)},
        {"target", program.target},
        {"precision", program.precision},
        {"predicted", predictionText(prediction)}};
    return {{"id", section.name},
            {"nodes", nodes},
            {"groupNodeAttributes", groups}};
  }

 private:
  json opNode(size_t index, const Span& span) {
    const Op& op = section.ops[index];
    json attributes = json::array();
    attributes.push_back(attribute("kind", op.kind));
    attributes.push_back(attribute("phase", op.phase));
    if (const int64_t flops = op.totalFlops())
      attributes.push_back(attribute("FLOPs", flopsText(flops)));
    attributes.push_back(attribute("bytes moved", bytesText(op.bytes)));
    if (!op.view)
      attributes.push_back(
          attribute("predicted", absl::StrCat(timeText(span.duration), " from ",
                                              timeText(span.start))));
    if (!op.source.empty())
      attributes.push_back(attribute("source", op.source));
    if (program.streams.size() > 1)
      attributes.push_back(attribute("stream", program.streams[op.stream]));
    for (const auto& [key, value] : op.attributes)
      attributes.push_back(attribute(key, value));
    json incoming = json::array();
    for (const Use& use : op.operands)
      incoming.push_back(edge(use, incoming.size()));
    json outputs = json::array();
    for (size_t i = 0; i < op.results.size(); ++i)
      outputs.push_back(outputMetadata(program, i, op.results[i]));
    return {{"id", absl::StrCat("op", index)}, {"label", op.name},
            {"namespace", namespaceOf(op)},    {"attrs", attributes},
            {"incomingEdges", incoming},       {"outputsMetadata", outputs}};
  }

  json edge(const Use& use, size_t input) {
    const std::string source = use.producer >= 0
                                   ? absl::StrCat("op", use.producer)
                                   : sourceNode(use.value);
    return {{"sourceNodeId", source},
            {"sourceNodeOutputId", absl::StrCat(use.output)},
            {"targetNodeInputId", absl::StrCat(input)}};
  }

  // The node of a value that no op of the section made, written on first use.
  std::string sourceNode(int value) {
    const std::string id = absl::StrCat("value", value);
    if (!written.insert(value).second) return id;
    std::string label = "value", path;
    json attributes = json::array();
    if (auto it = argumentOfValue.find(value); it != argumentOfValue.end()) {
      const Argument& argument = *it->second;
      const std::string name = argument.name();
      const size_t dot = name.rfind('.');
      label = dot == std::string::npos ? name : name.substr(dot + 1);
      path = dot == std::string::npos ? "" : namespaceOf(name.substr(0, dot));
      attributes.push_back(attribute("kind", argument.kind));
      attributes.push_back(
          attribute("name", absl::StrJoin(argument.names, ", ")));
      if (!argument.role.empty())
        attributes.push_back(attribute("role", argument.role));
    } else if (const std::string& name =
                   program.storages[program.values[value].storage].name;
               !name.empty()) {
      label = name;
    }
    nodes.push_back({{"id", id},
                     {"label", label},
                     {"namespace", path},
                     {"attrs", attributes},
                     {"incomingEdges", json::array()},
                     {"outputsMetadata",
                      json::array({outputMetadata(program, 0, value)})}});
    return id;
  }

  void addGroups(const Module& module, const std::string& path, json& groups) {
    for (const auto& child : module.children) {
      if (child->argument >= 0) continue;
      const std::string own =
          path.empty() ? child->name : absl::StrCat(path, "/", child->name);
      groups[own] = {{"parameters", countText(child->elements)},
                     {"bytes", bytesText(child->bytes)}};
      addGroups(*child, own, groups);
    }
  }

  const Program& program;
  const Section& section;
  json nodes = json::array();
  std::map<int, const Argument*> argumentOfValue;
  std::set<int> written;
};

}  // namespace

std::string modelExplorerJson(const Program& program) {
  json graphs = json::array();
  for (const Section& section : program.sections)
    graphs.push_back(GraphWriter(program, section).write());
  const json collection = {{"label", program.file}, {"graphs", graphs}};
  return collection.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace heddle::inspect
