// A described program -> Chrome trace events with predicted times: ops as
// complete events, waits across streams as flows, live memory as a counter.
// Invariant: times are microseconds and never decrease within a stream; nothing
// here was measured, and the file says so.
#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tools/heddle-inspect/analysis.h"
#include "tools/heddle-inspect/outputs.h"

namespace heddle::inspect {
namespace {

using nlohmann::json;

json named(const char* what, int process, int thread, const std::string& name) {
  return {{"ph", "M"},
          {"name", what},
          {"pid", process},
          {"tid", thread},
          {"args", {{"name", name}}}};
}

void addMemory(const Program& program, const Section& section,
               const std::vector<Span>& spans, int process, json& events) {
  const MemoryCurve curve = memoryCurve(program, section);
  for (size_t i = 0; i < section.ops.size(); ++i) {
    if (section.ops[i].view) continue;
    json bytes = json::object();
    for (int category = 0; category < kCategories; ++category)
      if (curve.at[i][category] != 0)
        bytes[categoryName(static_cast<Category>(category))] =
            curve.at[i][category];
    events.push_back({{"ph", "C"},
                      {"name", "live bytes"},
                      {"pid", process},
                      {"tid", 0},
                      {"ts", spans[i].start * 1e6},
                      {"args", bytes}});
  }
}

}  // namespace

std::string traceJson(const Program& program) {
  json events = json::array();
  int flow = 0;
  double base = 0;
  for (size_t s = 0; s < program.sections.size(); ++s) {
    const Section& section = program.sections[s];
    const int process = static_cast<int>(s) + 1;
    events.push_back(named("process_name", process, 0,
                           absl::StrCat(section.name, " (predicted)")));
    for (size_t stream = 0; stream < program.streams.size(); ++stream)
      events.push_back(
          named("thread_name", process, stream + 1, program.streams[stream]));
    std::vector<Span> spans = predict(program, section).spans;
    double end = base;
    // Sections run one after another.
    for (Span& span : spans) {
      span.start += base;
      end = std::max(end, span.start + span.duration);
    }
    std::map<int, size_t> signaller;
    for (size_t i = 0; i < section.ops.size(); ++i) {
      const Op& op = section.ops[i];
      // A view runs nothing.
      if (op.view) continue;
      events.push_back({{"ph", "X"},
                        {"name", op.name},
                        {"cat", op.kind},
                        {"pid", process},
                        {"tid", op.stream + 1},
                        {"ts", spans[i].start * 1e6},
                        {"dur", spans[i].duration * 1e6},
                        {"args",
                         {{"op", i},
                          {"module", op.path},
                          {"source", op.source},
                          {"phase", op.phase},
                          {"flops", op.totalFlops()},
                          {"bytes", op.bytes}}}});
      for (int event : op.waits) {
        auto it = signaller.find(event);
        if (it == signaller.end()) continue;
        const Span& from = spans[it->second];
        json start = {{"ph", "s"},
                      {"id", ++flow},
                      {"name", "event"},
                      {"cat", "event"},
                      {"pid", process},
                      {"tid", section.ops[it->second].stream + 1},
                      {"ts", (from.start + from.duration * 0.999) * 1e6}};
        events.push_back(start);
        events.push_back({{"ph", "f"},
                          {"bp", "e"},
                          {"id", flow},
                          {"name", "event"},
                          {"cat", "event"},
                          {"pid", process},
                          {"tid", op.stream + 1},
                          {"ts", spans[i].start * 1e6}});
      }
      if (op.signal >= 0) signaller[op.signal] = i;
    }
    addMemory(program, section, spans, process, events);
    base = end;
  }
  const json trace = {
      {"displayTimeUnit", "ms"},
      {"traceEvents", events},
      {"otherData",
       {{"file", program.file},
        {"times", absl::StrCat("predicted for ", deviceCost(program).name)}}}};
  return trace.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace heddle::inspect
