// What the description says when added up: FLOPs by kind, memory over time,
// modules, what lives longest, predicted times. Invariant: every number that
// more than one output shows is computed here, so that text, page and trace
// cannot disagree.
#ifndef HEDDLE_TOOLS_HEDDLE_INSPECT_ANALYSIS_H_
#define HEDDLE_TOOLS_HEDDLE_INSPECT_ANALYSIS_H_

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "passes/analysis/cost_model.h"
#include "tools/heddle-inspect/program.h"

namespace heddle::inspect {

// "1.5 GiB", "8.03 B" (count), "395 TFLOP", "1.2 ms".
std::string bytesText(int64_t bytes);
std::string countText(int64_t count);
std::string flopsText(int64_t flops);
std::string timeText(double seconds);

// ---- Counting ----

struct KindCount {
  std::string kind;
  int64_t ops = 0;
  int64_t flops = 0;
  int64_t bytes = 0;
  // By phase: forward, backward, update.
  std::array<int64_t, 3> phaseFlops{};
};
// Largest FLOPs first; views last.
std::vector<KindCount> countKinds(const Section& section);

struct Share {
  int64_t ops = 0, structuredOps = 0;
  int64_t flops = 0, structuredFlops = 0;
  int64_t bytes = 0;
  // The other operators, most frequent first.
  std::vector<std::pair<std::string, int64_t>> others;
};
Share countShare(const Section& section);

// A language model's closed form: 6 FLOPs for every weight of a matrix product
// and token, plus what the attention ops count.
struct ClosedForm {
  int64_t weights = 0;
  int64_t tokens = 0;
  int64_t attention = 0;
  // The program's matrix products and attention.
  int64_t counted = 0;

  int64_t expected() const { return 6 * weights * tokens + attention; }
};
// Nothing for programs that the form does not describe: without input_ids or a
// backward pass, with experts, frozen weights or convolutions.
std::optional<ClosedForm> closedForm(const Program& program,
                                     const Section& section);

// ---- Modules ----

struct Module {
  std::string name;
  int64_t elements = 0;
  int64_t bytes = 0;
  // Set on leaves: the index of the argument.
  int argument = -1;
  std::vector<std::unique_ptr<Module>> children;
};
// Parameters and buffers by module path; children in program order.
std::unique_ptr<Module> moduleTree(const Program& program);
// The same with equal numbered siblings as one: "0-31", `times` said in the
// name.
std::string moduleTreeText(const Program& program, int maxDepth);

// Kinds of arguments that are state of parameters, with their sums.
struct StateSum {
  std::string kind;
  int64_t tensors = 0;
  int64_t elements = 0;
  int64_t bytes = 0;
};
std::vector<StateSum> stateSums(const Program& program);

// ---- Memory ----

using CategoryBytes = std::array<int64_t, kCategories>;

struct MemoryCurve {
  // One entry per op of the section: bytes that exist while it runs.
  std::vector<CategoryBytes> at;
  int peak = 0;

  int64_t total(size_t op) const;
};
MemoryCurve memoryCurve(const Program& program, const Section& section);

// Lifetimes, longest first; equal ones by size.
std::vector<Lifetime> longestLived(const Program& program,
                                   const Section& section, size_t count);

// One thing that takes memory of a GPU while a plan trains.
struct DeviceBytes {
  std::string what;
  // Negative: nobody has measured it.
  int64_t bytes = 0;
  std::string note;
};
// All of a rank of a plan for GPUs, whether the plan places it or not; empty
// for any other program.
std::vector<DeviceBytes> deviceMemory(const Program& program);

// ---- Time ----

// The table's row for a program's target.
const DeviceCost& deviceCost(const Program& program);

struct Span {
  double start = 0;
  double duration = 0;
};
struct Prediction {
  std::vector<Span> spans;  // of the section's ops
  double end = 0;
  // Of all collectives, and the time in which one runs and nothing else does.
  double collectives = 0;
  double exposed = 0;
};
// When each op runs if every stream is a queue and events are waited for.
Prediction predict(const Program& program, const Section& section);

// "1.2 ms; collectives 340 us, of which 12 us exposed (1.0 % of the time)"; the
// part from the collectives on only where there are any.
std::string predictionText(const Prediction& prediction);

// How busy each stream is over time, a line per stream of `width` columns;
// empty without collectives or with one stream.
std::vector<std::string> timelineText(const Program& program,
                                      const Section& section,
                                      const Prediction& prediction,
                                      size_t width);

}  // namespace heddle::inspect

#endif  // HEDDLE_TOOLS_HEDDLE_INSPECT_ANALYSIS_H_
