// Plan -> FlatBuffers bytes: the inverse of ParsePlan, used by tests and by
// tools that edit plans.

#include "flatbuffers/flatbuffers.h"
#include "runtime/plan/plan.h"
#include "runtime/plan/plan_generated.h"

namespace heddle::plan {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;

Offset<fb::Step> WriteStep(const Step& step, FlatBufferBuilder& builder) {
  std::vector<Offset<fb::Arg>> args;
  for (const Arg& arg : step.args) {
    const auto s = builder.CreateString(arg.s);
    const auto ints = builder.CreateVector(arg.ints);
    const auto floats = builder.CreateVector(arg.floats);
    const auto name = builder.CreateString(arg.name);
    args.push_back(fb::CreateArg(builder, static_cast<fb::ArgKind>(arg.kind),
                                 arg.i, arg.f, s, ints, floats, name));
  }
  const auto name = builder.CreateString(step.name);
  const auto arg_vector = builder.CreateVector(args);
  const auto results = builder.CreateVector(step.results);
  const auto waits = builder.CreateVector(step.waits);
  return fb::CreateStep(builder, static_cast<fb::StepKind>(step.kind), name,
                        arg_vector, results, step.stream, waits, step.signal,
                        step.location, step.rng_id, step.phase, step.flops,
                        step.bytes);
}

Offset<fb::Binding> WriteBinding(const Binding& binding,
                                 FlatBufferBuilder& builder) {
  const auto kind = builder.CreateString(binding.kind);
  const auto name = builder.CreateString(binding.name);
  return fb::CreateBinding(builder, kind, name, binding.value);
}

Offset<fb::Section> WriteSection(const Section& section,
                                 FlatBufferBuilder& builder) {
  const auto name = builder.CreateString(section.name);
  std::vector<Offset<fb::Step>> steps;
  for (const Step& step : section.steps)
    steps.push_back(WriteStep(step, builder));
  std::vector<Offset<fb::Binding>> results;
  for (const Binding& binding : section.results)
    results.push_back(WriteBinding(binding, builder));
  const auto step_vector = builder.CreateVector(steps);
  const auto result_vector = builder.CreateVector(results);
  return fb::CreateSection(builder, name, step_vector, section.events,
                           result_vector, section.scratch_bytes,
                           section.live_lower_bound);
}

}  // namespace

std::vector<uint8_t> Serialize(const Plan& plan) {
  FlatBufferBuilder builder;
  std::vector<Offset<fb::Buffer>> buffers;
  for (const Buffer& b : plan.buffers) {
    const auto name = builder.CreateString(b.name);
    buffers.push_back(fb::CreateBuffer(builder, static_cast<fb::Arena>(b.arena),
                                       static_cast<fb::Space>(b.space),
                                       static_cast<fb::Category>(b.category),
                                       b.offset, b.bytes, name));
  }
  std::vector<Offset<fb::Value>> values;
  for (const Value& v : plan.values) {
    const auto sizes = builder.CreateVector(v.sizes);
    const auto strides = builder.CreateVector(v.strides);
    Offset<flatbuffers::Vector<int64_t>> offsets, lengths;
    if (!v.rank_offsets.empty()) offsets = builder.CreateVector(v.rank_offsets);
    if (!v.rank_sizes.empty()) lengths = builder.CreateVector(v.rank_sizes);
    values.push_back(fb::CreateValue(
        builder, v.buffer, static_cast<fb::DType>(v.dtype), sizes, strides,
        v.offset, v.rank_stride, offsets, lengths));
  }
  std::vector<Offset<fb::Binding>> inputs;
  for (const Binding& binding : plan.inputs)
    inputs.push_back(WriteBinding(binding, builder));
  std::vector<Offset<fb::StateEntry>> state;
  for (const StateEntry& entry : plan.state) {
    const auto kind = builder.CreateString(entry.kind);
    const auto names = builder.CreateVectorOfStrings(entry.names);
    const auto role = builder.CreateString(entry.role);
    const auto sizes = builder.CreateVector(entry.sizes);
    const auto strides = builder.CreateVector(entry.strides);
    const auto bounds = builder.CreateVector(entry.bounds);
    state.push_back(fb::CreateStateEntry(
        builder, kind, names, entry.value, entry.trainable, entry.persistent,
        role, sizes, strides, entry.slot_offset, bounds, entry.initial));
  }
  std::vector<Offset<fb::ConstantData>> constants;
  for (const ConstantData& constant : plan.constants) {
    const auto name = builder.CreateString(constant.name);
    const auto data = builder.CreateVector(constant.data);
    constants.push_back(
        fb::CreateConstantData(builder, name, constant.value, data));
  }
  std::vector<Offset<fb::Section>> sections;
  for (const Section& section : plan.sections)
    sections.push_back(WriteSection(section, builder));
  std::vector<Offset<fb::Location>> locations;
  for (const Location& location : plan.locations) {
    const auto path = builder.CreateString(location.path);
    const auto source = builder.CreateString(location.source);
    locations.push_back(fb::CreateLocation(builder, path, source));
  }
  std::vector<Offset<fb::Axis>> mesh;
  for (const Axis& axis : plan.mesh) {
    const auto name = builder.CreateString(axis.name);
    mesh.push_back(fb::CreateAxis(builder, name, axis.size));
  }
  const auto torch_version = builder.CreateString(plan.torch_version);
  const auto target = builder.CreateString(plan.target);
  const auto precision = builder.CreateString(plan.precision);
  const auto mode = builder.CreateString(plan.mode);
  const auto config = builder.CreateString(plan.config);
  const auto streams = builder.CreateVectorOfStrings(plan.streams);
  const auto fb_buffers = builder.CreateVector(buffers);
  const auto fb_values = builder.CreateVector(values);
  const auto fb_inputs = builder.CreateVector(inputs);
  const auto fb_state = builder.CreateVector(state);
  const auto fb_constants = builder.CreateVector(constants);
  const auto fb_sections = builder.CreateVector(sections);
  const auto fb_locations = builder.CreateVector(locations);
  const auto fb_mesh = builder.CreateVector(mesh);
  builder.Finish(
      fb::CreatePlan(builder, plan.version, torch_version, target, precision,
                     mode, config, plan.layout_hash, plan.state_bytes,
                     plan.constant_bytes, streams, fb_buffers, fb_values,
                     fb_inputs, fb_state, fb_constants, fb_sections,
                     fb_locations, fb_mesh),
      fb::PlanIdentifier());
  return {builder.GetBufferPointer(),
          builder.GetBufferPointer() + builder.GetSize()};
}

}  // namespace heddle::plan
