// A plan -> the description: one section per section, a buffer is a storage,
// lifetimes from first to last access. Invariant: the plan was accepted by
// ParsePlan, so every index is in range.
#include <algorithm>
#include <map>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ir/graph/op_table.h"
#include "runtime/plan/access.h"
#include "runtime/plan/collective.h"
#include "runtime/plan/plan.h"
#include "tools/heddle-inspect/program.h"

namespace heddle::inspect {
namespace {

Category categoryOf(plan::Category category) {
  switch (category) {
    case plan::Category::kParameter:
      return Category::kParameter;
    case plan::Category::kMaster:
      return Category::kMaster;
    case plan::Category::kBuffer:
      return Category::kBuffer;
    case plan::Category::kOptimizer:
      return Category::kOptimizer;
    case plan::Category::kAccumulator:
      return Category::kAccumulator;
    case plan::Category::kGradient:
      return Category::kGradient;
    case plan::Category::kActivation:
      return Category::kActivation;
    case plan::Category::kTemporary:
      return Category::kTemporary;
    case plan::Category::kInput:
      return Category::kInput;
    case plan::Category::kConstant:
      return Category::kConstant;
    case plan::Category::kOutput:
      return Category::kOutput;
  }
  return Category::kTemporary;
}

int64_t bytesOfValue(const plan::Plan& plan, int64_t value) {
  return plan::ElementCount(plan.values[value]) *
         plan::ElementSize(plan.values[value].dtype);
}

// What a constant argument says; empty for tensors.
std::string constantText(const plan::Arg& arg) {
  switch (arg.kind) {
    case plan::ArgKind::kInt:
      return absl::StrCat(arg.i);
    case plan::ArgKind::kFloat:
      return absl::StrCat(arg.f);
    case plan::ArgKind::kBool:
      return arg.i != 0 ? "true" : "false";
    case plan::ArgKind::kString:
    case plan::ArgKind::kLayout:
    case plan::ArgKind::kMemoryFormat:
      return arg.s;
    case plan::ArgKind::kIntList:
    case plan::ArgKind::kBoolList:
      return absl::StrCat("[", absl::StrJoin(arg.ints, ","), "]");
    case plan::ArgKind::kFloatList:
    case plan::ArgKind::kComplex:
      return absl::StrCat("[", absl::StrJoin(arg.floats, ","), "]");
    case plan::ArgKind::kDType:
      return plan::DTypeName(static_cast<plan::DType>(arg.i));
    case plan::ArgKind::kRuntime:
      return absl::StrCat("$", arg.s);
    default:
      return "";
  }
}

class SectionReader {
 public:
  SectionReader(const plan::Plan& plan, Program& program)
      : plan(plan), program(program) {}

  Section read(const plan::Section& source) {
    Section section;
    section.name = source.name;
    section.scratchBytes = static_cast<int64_t>(source.scratch_bytes);
    section.liveLowerBound = static_cast<int64_t>(source.live_lower_bound);
    for (const plan::Step& step : source.steps) {
      section.ops.push_back(readStep(step, section));
      const int index = section.ops.size() - 1;
      for (size_t i = 0; i < step.results.size(); ++i)
        if (step.results[i] >= 0)
          writer[plan.values[step.results[i]].buffer] = {step.results[i], index,
                                                         static_cast<int>(i)};
    }
    for (const plan::Binding& result : source.results)
      section.results.push_back(
          {result.kind, result.name, useOf(result.value)});
    const int last = static_cast<int>(section.ops.size()) - 1;
    for (const auto& [buffer, accesses] : plan::CollectAccesses(plan, source)) {
      if (program.storages[buffer].resident || last < 0) continue;
      Lifetime lifetime{static_cast<int>(buffer), last, 0};
      for (const plan::Access& access : accesses) {
        const int step = std::min(static_cast<int>(access.step), last);
        lifetime.first = std::min(lifetime.first, step);
        lifetime.last = std::max(lifetime.last, step);
      }
      nameScratch(section, lifetime);
      section.lifetimes.push_back(lifetime);
    }
    return section;
  }

 private:
  Use useOf(int64_t value) const {
    auto it = writer.find(plan.values[value].buffer);
    return it == writer.end() ? Use{static_cast<int>(value), -1, 0}
                              : Use{static_cast<int>(value),
                                    it->second.producer, it->second.output};
  }

  Op readStep(const plan::Step& step, const Section& section) const {
    static constexpr const char* phases[] = {"forward", "backward", "update"};
    Op op;
    op.name = step.name.empty() ? plan::StepKindName(step.kind) : step.name;
    switch (step.kind) {
      case plan::StepKind::kAten:
        op.kind = kindOf(step.name);
        op.structured = graph::findOp(step.name) != nullptr;
        break;
      case plan::StepKind::kKernel:
        op.kind = section.name == "boundary" || step.name == "accumulate"
                      ? "optimizer"
                      : "kernel";
        break;
      case plan::StepKind::kGemm:
        op.kind = "matmul";
        break;
      default:
        op.kind = plan::StepKindName(step.kind);
    }
    if (step.location < plan.locations.size()) {
      op.path = plan.locations[step.location].path;
      op.source = plan.locations[step.location].source;
    }
    op.phase = step.phase >= 0 && step.phase < 3 ? phases[step.phase] : "";
    op.stream = step.stream;
    op.waits.assign(step.waits.begin(), step.waits.end());
    op.signal = step.signal;
    op.signature = plan::SignatureText(plan, step);
    for (const plan::Arg& arg : step.args) {
      if (arg.kind == plan::ArgKind::kValue)
        op.operands.push_back(useOf(arg.i));
      if (arg.kind == plan::ArgKind::kValueList) {
        for (int64_t value : arg.ints)
          if (value >= 0) op.operands.push_back(useOf(value));
      }
      if (const std::string text = constantText(arg); !text.empty())
        op.attributes.emplace_back(arg.name.empty() ? "arg" : arg.name, text);
    }
    if (step.rng_id >= 0)
      op.attributes.emplace_back("rng_id", absl::StrCat(step.rng_id));
    int64_t moved = 0;
    for (const Use& use : op.operands) moved += bytesOfValue(plan, use.value);
    for (int32_t value : step.results) {
      op.results.push_back(value);
      if (value >= 0) moved += bytesOfValue(plan, value);
    }
    if (const auto collective = plan::ReadCollective(plan, step);
        step.kind == plan::StepKind::kCollective && collective.ok()) {
      op.axis = collective->axis;
      op.axisRanks = collective->ranks;
      for (int64_t rank = 0; rank < program.ranks; ++rank)
        op.wireBytes = std::max(
            op.wireBytes,
            static_cast<int64_t>(plan::WireBytes(plan, *collective, rank)));
    }
    op.bytes = step.bytes != 0 ? static_cast<int64_t>(step.bytes) : moved;
    if (step.flops != 0)
      op.flops.push_back({op.kind, static_cast<int64_t>(step.flops)});
    return op;
  }

  // Scratch buffers have no names of their own: the op that writes one first
  // tells what it is.
  void nameScratch(const Section& section, const Lifetime& lifetime) {
    Storage& storage = program.storages[lifetime.storage];
    const Op& op = section.ops[lifetime.first];
    if (storage.name.empty())
      storage.name =
          op.path.empty() ? op.name : absl::StrCat(op.path, " ", op.name);
  }

  const plan::Plan& plan;
  Program& program;
  std::map<uint32_t, Use> writer;
};

// The value that stands for a state entry: its own, or for one that lies in a
// bucket with others a value over what of it the rank holds that holds most.
int valueOfState(const plan::Plan& plan, const plan::StateEntry& entry,
                 Program& program) {
  const plan::Value& value = plan.values[entry.value];
  const int64_t element = plan::ElementSize(value.dtype);
  const Storage whole = program.storages[value.buffer];
  int64_t held = plan::ElementCount(value);
  if (!entry.bounds.empty()) {
    const int64_t end =
        entry.slot_offset + plan::StorageElements(entry.sizes, entry.strides);
    held = 0;
    for (size_t r = 0; r + 1 < entry.bounds.size(); ++r)
      held = std::max(held, std::min(entry.bounds[r + 1], end) -
                                std::max(entry.bounds[r], entry.slot_offset));
  } else if (held * element == whole.bytes) {
    return static_cast<int>(entry.value);
  }
  program.storages.push_back({entry.names[0], whole.category,
                              std::max<int64_t>(held, 0) * element,
                              // Its bytes are the bucket's, counted there.
                              false});
  program.values.push_back({static_cast<int>(program.storages.size()) - 1,
                            plan::DTypeName(value.dtype),
                            entry.bounds.empty() ? value.sizes : entry.sizes});
  return static_cast<int>(program.values.size()) - 1;
}

// What the ranks send each other in a section.
std::vector<CollectiveSum> collectivesOf(const plan::Plan& plan,
                                         const plan::Section& section) {
  std::map<std::string, CollectiveSum> sums;
  const int64_t ranks = plan::WorldSize(plan);
  for (const plan::Step& step : section.steps) {
    const auto collective = plan::ReadCollective(plan, step);
    if (step.kind != plan::StepKind::kCollective || !collective.ok()) continue;
    CollectiveSum& sum = sums[step.name];
    sum.kind = step.name;
    ++sum.calls;
    sum.bytes.resize(ranks, 0);
    for (int64_t r = 0; r < ranks; ++r)
      sum.bytes[r] +=
          static_cast<int64_t>(plan::WireBytes(plan, *collective, r));
  }
  std::vector<CollectiveSum> list;
  for (auto& [name, sum] : sums) list.push_back(std::move(sum));
  return list;
}

void readArguments(const plan::Plan& plan, Program& program) {
  for (const plan::StateEntry& entry : plan.state) {
    const Category category =
        program.storages[plan.values[entry.value].buffer].category;
    program.arguments.push_back({category, entry.kind, entry.names, entry.role,
                                 entry.trainable,
                                 valueOfState(plan, entry, program)});
  }
  for (const plan::Binding& input : plan.inputs)
    program.arguments.push_back({Category::kInput,
                                 input.kind.empty() ? "input" : input.kind,
                                 {input.name},
                                 "",
                                 false,
                                 static_cast<int>(input.value)});
  for (const plan::ConstantData& constant : plan.constants)
    program.arguments.push_back({Category::kConstant,
                                 "constant",
                                 {constant.name},
                                 "",
                                 false,
                                 static_cast<int>(constant.value)});
}

}  // namespace

absl::StatusOr<Program> readPlanBytes(const std::string& path,
                                      const std::string& bytes,
                                      const std::string& format) {
  absl::StatusOr<plan::Plan> parsed = plan::ParsePlan(
      reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (!parsed.ok())
    return absl::Status(parsed.status().code(),
                        absl::StrCat(path, ": ", parsed.status().message()));
  const plan::Plan& plan = *parsed;
  Program program;
  program.file = path;
  program.format = format;
  program.version = plan.version;
  program.target = plan.target;
  program.precision = plan.precision;
  program.torchVersion = plan.torch_version;
  program.mode = plan.mode;
  program.config = plan.config;
  program.streams = plan.streams;
  for (const plan::Buffer& buffer : plan.buffers)
    program.storages.push_back({buffer.name, categoryOf(buffer.category),
                                static_cast<int64_t>(buffer.bytes),
                                buffer.arena != plan::Arena::kScratch});
  for (const plan::Value& value : plan.values)
    program.values.push_back({static_cast<int>(value.buffer),
                              plan::DTypeName(value.dtype), value.sizes});
  program.ranks = plan::WorldSize(plan);
  readArguments(plan, program);
  for (const plan::Section& section : plan.sections) {
    program.sections.push_back(SectionReader(plan, program).read(section));
    program.sections.back().collectives = collectivesOf(plan, section);
  }
  return program;
}

}  // namespace heddle::inspect
