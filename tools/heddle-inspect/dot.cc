// A described program -> Graphviz: nested clusters for modules, one node per op
// that runs something; views are folded into the edges through them. Invariant:
// every edge joins two nodes that are written.
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "tools/heddle-inspect/analysis.h"
#include "tools/heddle-inspect/outputs.h"

namespace heddle::inspect {
namespace {

std::string quoted(const std::string& text) {
  return absl::StrCat(
      "\"",
      absl::StrReplaceAll(text,
                          {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}}),
      "\"");
}

const char* colorOf(const std::string& phase) {
  return phase == "backward" ? "#f6d5c8"
         : phase == "update" ? "#d9ead0"
                             : "#d3e3f5";
}

struct Cluster {
  std::map<std::string, Cluster> children;
  std::string nodes;
};

void addCluster(std::string& text, const Cluster& cluster,
                const std::string& path, int depth) {
  const std::string indent(2 * depth, ' ');
  absl::StrAppend(&text, cluster.nodes);
  for (const auto& [name, child] : cluster.children) {
    const std::string own = absl::StrCat(path, path.empty() ? "" : ".", name);
    absl::StrAppend(&text, indent, "subgraph ",
                    quoted(absl::StrCat("cluster_", own)), " {\n", indent,
                    "  label=", quoted(name), ";\n");
    addCluster(text, child, own, depth + 1);
    absl::StrAppend(&text, indent, "}\n");
  }
}

void addSection(std::string& text, const Program& program,
                const Section& section, size_t number) {
  auto id = [&](int op) { return absl::StrCat("s", number, "_", op); };
  // The op behind a chain of views; -1 for an argument.
  std::vector<int> behind(section.ops.size());
  Cluster root;
  std::string edges;
  for (size_t i = 0; i < section.ops.size(); ++i) {
    const Op& op = section.ops[i];
    behind[i] = static_cast<int>(i);
    if (op.view && !op.operands.empty()) {
      behind[i] =
          op.operands[0].producer < 0 ? -1 : behind[op.operands[0].producer];
      continue;
    }
    Cluster* cluster = &root;
    if (!op.path.empty())
      for (absl::string_view part : absl::StrSplit(op.path, '.'))
        cluster = &cluster->children[std::string(part)];
    const std::string type =
        op.results.empty() || op.results[0] < 0
            ? ""
            : absl::StrCat("\n", typeText(program.values[op.results[0]]));
    absl::StrAppend(&cluster->nodes, "    ", id(i),
                    " [label=", quoted(absl::StrCat(op.name, type)),
                    ", fillcolor=\"", colorOf(op.phase), "\"];\n");
    for (const Use& use : op.operands) {
      const int from = use.producer < 0 ? -1 : behind[use.producer];
      if (from >= 0 && from != static_cast<int>(i))
        absl::StrAppend(&edges, "    ", id(from), " -> ", id(i), ";\n");
    }
  }
  absl::StrAppend(&text, "  subgraph ",
                  quoted(absl::StrCat("cluster_section_", section.name)),
                  " {\n    label=", quoted(section.name), ";\n");
  addCluster(text, root, absl::StrCat("s", number), 2);
  absl::StrAppend(&text, edges, "  }\n");
}

}  // namespace

std::string dotText(const Program& program) {
  std::string text =
      "digraph heddle {\n  rankdir=TB;\n  node [shape=box, "
      "style=\"filled,rounded\", fontname=\"Helvetica\", fontsize=10, "
      "color=\"#666666\"];\n";
  for (size_t i = 0; i < program.sections.size(); ++i)
    addSection(text, program, program.sections[i], i);
  return text + "}\n";
}

}  // namespace heddle::inspect
