// Plan -> text for people: one line a step, everything that decides what it
// does visible in it.

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/plan/plan.h"

namespace heddle::plan {
namespace {

// "b7[0:4096]": the buffer and the byte range that the value spans;
// "b7[0:4096]+rank*4096" where it lies elsewhere on every rank.
std::string ValueText(const Plan& plan, int64_t index) {
  if (index < 0) return "none";
  const Value& value = plan.values[static_cast<size_t>(index)];
  const ByteRange range = BytesOf(value);
  std::string text =
      absl::StrCat("b", value.buffer, "[", range.begin, ":", range.end, "]");
  if (value.rank_stride != 0)
    absl::StrAppend(&text, "+rank*",
                    value.rank_stride * ElementSize(value.dtype));
  if (!value.rank_offsets.empty())
    absl::StrAppend(&text, "+by rank {", absl::StrJoin(value.rank_offsets, ","),
                    "} elements");
  return text;
}

std::string FloatText(double f) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.17g", f);
  return text;
}

std::string ArgText(const Plan& plan, const Arg& arg) {
  switch (arg.kind) {
    case ArgKind::kNone:
      return "none";
    case ArgKind::kValue:
      return ValueText(plan, arg.i);
    case ArgKind::kValueList:
      return absl::StrCat("[",
                          absl::StrJoin(arg.ints, ",",
                                        [&](std::string* out, int64_t v) {
                                          absl::StrAppend(out,
                                                          ValueText(plan, v));
                                        }),
                          "]");
    case ArgKind::kInt:
      return absl::StrCat(arg.i);
    case ArgKind::kFloat:
      return FloatText(arg.f);
    case ArgKind::kBool:
      return arg.i != 0 ? "true" : "false";
    case ArgKind::kString:
    case ArgKind::kLayout:
    case ArgKind::kMemoryFormat:
      return arg.s;
    case ArgKind::kIntList:
      return absl::StrCat("[", absl::StrJoin(arg.ints, ","), "]");
    case ArgKind::kBoolList:
      return absl::StrCat("[",
                          absl::StrJoin(arg.ints, ",",
                                        [](std::string* out, int64_t v) {
                                          absl::StrAppend(
                                              out, v != 0 ? "true" : "false");
                                        }),
                          "]");
    case ArgKind::kFloatList:
      return absl::StrCat("[",
                          absl::StrJoin(arg.floats, ",",
                                        [](std::string* out, double v) {
                                          absl::StrAppend(out, FloatText(v));
                                        }),
                          "]");
    case ArgKind::kDType:
      return DTypeName(static_cast<DType>(arg.i));
    case ArgKind::kDevice:
      return plan.target;
    case ArgKind::kComplex:
      return absl::StrCat(FloatText(arg.floats[0]), "+",
                          FloatText(arg.floats[1]), "i");
    case ArgKind::kRuntime:
      return absl::StrCat("$", arg.s);
  }
  return "";
}

}  // namespace

std::string StepText(const Plan& plan, const Step& step) {
  std::string text =
      step.kind == StepKind::kAten
          ? step.name
          : absl::StrCat(StepKindName(step.kind), step.name.empty() ? "" : " ",
                         step.name);
  absl::StrAppend(&text, " stream=", plan.streams[step.stream]);
  for (const Arg& arg : step.args)
    absl::StrAppend(&text, " ", arg.name.empty() ? "in" : arg.name, "=",
                    ArgText(plan, arg));
  for (int32_t value : step.results)
    absl::StrAppend(&text, " out=", ValueText(plan, value));
  if (!step.waits.empty()) {
    absl::StrAppend(&text, " wait=[",
                    absl::StrJoin(step.waits, ",",
                                  [](std::string* out, uint32_t e) {
                                    absl::StrAppend(out, "e", e);
                                  }),
                    "]");
  }
  if (step.signal >= 0) absl::StrAppend(&text, " signal=e", step.signal);
  if (step.rng_id >= 0) absl::StrAppend(&text, " rng=", step.rng_id);
  if (step.location < plan.locations.size()) {
    const Location& location = plan.locations[step.location];
    if (!location.source.empty() || !location.path.empty()) {
      absl::StrAppend(
          &text, "  # ", location.source,
          location.source.empty() || location.path.empty() ? "" : " ",
          location.path);
    }
  }
  return text;
}

std::string PlanText(const Plan& plan) {
  std::string text =
      absl::StrCat("plan version=", plan.version, " target=", plan.target,
                   " precision=", plan.precision, " mode=", plan.mode,
                   " torch=", plan.torch_version, " state=", plan.state_bytes,
                   "B constants=", plan.constant_bytes, "B");
  if (!plan.mesh.empty()) {
    absl::StrAppend(
        &text, " mesh=",
        absl::StrJoin(plan.mesh, ",", [](std::string* out, const Axis& axis) {
          absl::StrAppend(out, axis.name, ":", axis.size);
        }));
  }
  absl::StrAppend(&text, "\n");
  for (const StateEntry& entry : plan.state) {
    const Value& value = plan.values[entry.value];
    const bool sharded = !entry.bounds.empty();
    absl::StrAppend(&text, "state ", entry.kind, " ",
                    absl::StrJoin(entry.names, "|"), " ",
                    DTypeName(value.dtype), "[",
                    absl::StrJoin(sharded ? entry.sizes : value.sizes, "x"),
                    "] ", ValueText(plan, entry.value));
    if (sharded)
      absl::StrAppend(&text, " slot=", entry.slot_offset, " bounds=[",
                      absl::StrJoin(entry.bounds, ","), "]");
    if (entry.initial != 0) absl::StrAppend(&text, " initial=", entry.initial);
    absl::StrAppend(&text, "\n");
  }
  for (const Binding& input : plan.inputs) {
    const Value& value = plan.values[input.value];
    absl::StrAppend(&text, "input ", input.name, " ", DTypeName(value.dtype),
                    "[", absl::StrJoin(value.sizes, "x"), "] ",
                    ValueText(plan, input.value), "\n");
  }
  for (const Section& section : plan.sections) {
    absl::StrAppend(&text, "section ", section.name,
                    " scratch=", section.scratch_bytes,
                    "B lower_bound=", section.live_lower_bound, "B\n");
    for (const Step& step : section.steps)
      absl::StrAppend(&text, "  ", StepText(plan, step), "\n");
    for (const Binding& result : section.results) {
      absl::StrAppend(&text, "  result ", result.kind,
                      result.name.empty() ? "" : ":", result.name, " ",
                      ValueText(plan, result.value), "\n");
    }
  }
  return text;
}

std::string SignatureText(const Plan& plan, const Step& step) {
  std::string text = step.name.empty() ? StepKindName(step.kind) : step.name;
  const auto add = [&](int64_t index) {
    if (index < 0) return;
    const Value& value = plan.values[static_cast<size_t>(index)];
    absl::StrAppend(&text, " ", DTypeName(value.dtype), "[",
                    absl::StrJoin(value.sizes, ","), "]");
  };
  for (const Arg& arg : step.args) {
    if (arg.kind == ArgKind::kValue) add(arg.i);
    if (arg.kind != ArgKind::kValueList) continue;
    for (int64_t value : arg.ints) add(value);
  }
  text += " ->";
  for (int32_t value : step.results) add(value);
  return text;
}

}  // namespace heddle::plan
