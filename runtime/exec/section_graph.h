// Whether and when a section runs as one graph.
// Invariant: a graph is launched only while every address in it is valid and
// every number in it is this run's: a section with run-time scalars is captured
// again before each launch and the graph that exists takes the new arguments.
// What would break it: a step that decides by data on the host, or that keeps a
// number of its own from run to run.

#ifndef HEDDLE_RUNTIME_EXEC_SECTION_GRAPH_H_
#define HEDDLE_RUNTIME_EXEC_SECTION_GRAPH_H_

#include <cstdint>
#include <memory>
#include <string>

#include "runtime/device/device.h"
#include "runtime/plan/plan.h"

namespace heddle::exec {

// kOn: a section of training that cannot be a graph is an error.
enum class GraphMode { kOff, kAuto, kOn };

// Why no run of the section can be a graph, or "".
std::string NoGraphReason(const plan::Plan& plan, const plan::Section& section);

// Whether kOn makes a reason an error: the sections that a step repeats. The
// prologue's guards have to reach the host.
bool GraphIsDue(const plan::Section& section);

struct SectionGraph {
  // Why the section does not run as a graph; "" if it does, or will.
  std::string reason;
  bool has_scalars = false;
  // Runs without a graph. The first learns where operators allocate, the second
  // checks what was learned and warms every kernel up as it will be captured.
  int64_t direct_runs = 0;
  uint64_t memory_version = 0;
  std::unique_ptr<device::Graph> graph;

  static constexpr int64_t kDirectRuns = 2;
  bool Ready() const { return reason.empty() && direct_runs >= kDirectRuns; }
  bool MustCapture(uint64_t version) const {
    return graph == nullptr || has_scalars || version != memory_version;
  }
  // One word or sentence for reports.
  std::string State() const;
};

SectionGraph MakeSectionGraph(const plan::Plan& plan,
                              const plan::Section& section, GraphMode mode);

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_SECTION_GRAPH_H_
