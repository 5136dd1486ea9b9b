// The rules by which a section is a graph.

#include "runtime/exec/section_graph.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace heddle::exec {
namespace {

std::string Named(const plan::Plan& plan, const plan::Section& section,
                  size_t index) {
  const plan::Step& step = section.steps[index];
  const std::string location = plan::LocationText(plan, step);
  return absl::StrCat("step ", index, " ", step.name,
                      location.empty() ? "" : " at ", location);
}

}  // namespace

std::string NoGraphReason(const plan::Plan& plan,
                          const plan::Section& section) {
  if (plan.target != "cuda")
    return absl::StrCat("device ", plan.target, " has no graphs");
  if (plan.mode != "train")
    return "a replay runs operator by operator, as eager does";
  for (size_t i = 0; i < section.steps.size(); ++i) {
    const plan::Step& step = section.steps[i];
    if (step.kind == plan::StepKind::kHost)
      return absl::StrCat(Named(plan, section, i),
                          " decides on the host by a value of the device");
    if (step.rng_id >= 0)
      return absl::StrCat(Named(plan, section, i),
                          " draws random numbers from a seed that is another "
                          "one in every run");
  }
  return section.steps.empty() ? "it has no steps" : "";
}

bool GraphIsDue(const plan::Section& section) {
  return section.name == "micro_first" || section.name == "micro_next" ||
         section.name == "boundary";
}

std::string SectionGraph::State() const {
  if (!reason.empty()) return absl::StrCat("no: ", reason);
  if (graph != nullptr) return "yes";
  return absl::StrCat("from its run ", kDirectRuns + 1, " on; so far ",
                      direct_runs);
}

SectionGraph MakeSectionGraph(const plan::Plan& plan,
                              const plan::Section& section, GraphMode mode) {
  SectionGraph graph;
  graph.reason = NoGraphReason(plan, section);
  if (mode == GraphMode::kOff && graph.reason.empty())
    graph.reason = "graphs are switched off";
  for (const plan::Step& step : section.steps) {
    graph.has_scalars |= std::any_of(
        step.args.begin(), step.args.end(), [](const plan::Arg& arg) {
          return arg.kind == plan::ArgKind::kRuntime;
        });
  }
  return graph;
}

}  // namespace heddle::exec
