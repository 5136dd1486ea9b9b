// FlatBuffers bytes -> Plan. Every field that later code uses as an index, a
// size or an enumerator is checked here, once, so that nothing behind ParsePlan
// has to. What would break it: using a field of the schema elsewhere without a
// check in this file.

#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <unordered_set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "flatbuffers/flatbuffers.h"
#include "runtime/plan/plan.h"
#include "runtime/plan/plan_generated.h"
#include "runtime/plan/read_values.h"

namespace heddle::plan {
namespace {

// The vector-clock checker is linear in streams; a plan with more streams than
// this is not one that the compiler wrote.
constexpr size_t kMaxStreams = 64;
// More ranks than any machine; keeps the product of the axes an uint32.
constexpr uint64_t kMaxRanks = 1 << 20;

absl::Status CheckValueIndex(int64_t value, const Plan& plan,
                             const std::string& user) {
  if (value >= 0 && static_cast<uint64_t>(value) < plan.values.size())
    return absl::OkStatus();
  return Invalid(user, " names value ", value, " of ", plan.values.size());
}

absl::Status ReadArg(const fb::Arg& from, const std::string& where,
                     const Plan& plan, Arg* to) {
  if (!ReadEnum(from.kind(), fb::ArgKind::MAX, &to->kind))
    return Invalid(where, " has an argument of unknown kind ",
                   static_cast<int>(from.kind()));
  to->i = from.i();
  to->f = from.f();
  to->s = Text(from.s());
  to->ints = List(from.ints());
  to->floats = List(from.floats());
  to->name = Text(from.name());
  const std::string user = absl::StrCat(where, " argument '", to->name, "'");
  if (to->kind == ArgKind::kValue) return CheckValueIndex(to->i, plan, user);
  if (to->kind == ArgKind::kValueList) {
    for (int64_t value : to->ints) {
      if (value == -1) continue;
      if (absl::Status status = CheckValueIndex(value, plan, user);
          !status.ok())
        return status;
    }
  }
  if (to->kind == ArgKind::kDType &&
      (to->i < 0 || to->i > static_cast<int64_t>(fb::DType::MAX)))
    return Invalid(user, " has unknown dtype ", to->i);
  if (to->kind == ArgKind::kComplex && to->floats.size() != 2)
    return Invalid(user, " is complex with ", to->floats.size(), " parts");
  return absl::OkStatus();
}

absl::Status CheckScratch(uint32_t value, const Section& section,
                          const Plan& plan, const std::string& where) {
  const Buffer& buffer = plan.buffers[plan.values[value].buffer];
  if (buffer.arena != Arena::kScratch ||
      buffer.offset + buffer.bytes <= section.scratch_bytes)
    return absl::OkStatus();
  return Invalid(where, " uses buffer ", plan.values[value].buffer,
                 ", which ends at byte ", buffer.offset + buffer.bytes,
                 " of a scratch arena of ", section.scratch_bytes);
}

absl::Status ReadStep(const fb::Step& from, const std::string& where_in,
                      const Section& section, const Plan& plan, Step* to) {
  if (!ReadEnum(from.kind(), fb::StepKind::MAX, &to->kind))
    return Invalid(where_in, " has unknown kind ",
                   static_cast<int>(from.kind()));
  to->name = Text(from.name());
  const std::string where = absl::StrCat(where_in, " (", to->name, ")");
  if (from.args() != nullptr) {
    to->args.resize(from.args()->size());
    for (size_t i = 0; i < to->args.size(); ++i) {
      const fb::Arg* arg = from.args()->Get(i);
      if (absl::Status status = ReadArg(*arg, where, plan, &to->args[i]);
          !status.ok())
        return status;
    }
  }
  to->results = List(from.results());
  for (int32_t value : to->results) {
    if (value == -1) continue;
    if (absl::Status status =
            CheckValueIndex(value, plan, absl::StrCat(where, " result"));
        !status.ok())
      return status;
  }
  to->stream = from.stream();
  if (to->stream >= plan.streams.size())
    return Invalid(where, " runs on stream ", to->stream, " of ",
                   plan.streams.size());
  to->waits = List(from.waits());
  for (uint32_t event : to->waits) {
    if (event >= section.events)
      return Invalid(where, " waits for event ", event, " of ", section.events);
  }
  to->signal = from.signal();
  if (to->signal < -1 ||
      (to->signal >= 0 && static_cast<uint32_t>(to->signal) >= section.events))
    return Invalid(where, " signals event ", to->signal, " of ",
                   section.events);
  to->location = from.location();
  if (to->location >= plan.locations.size() &&
      !(to->location == 0 && plan.locations.empty()))
    return Invalid(where, " has location ", to->location, " of ",
                   plan.locations.size());
  to->rng_id = from.rng_id();
  to->phase = from.phase();
  to->flops = from.flops();
  to->bytes = from.bytes();
  for (const Arg& arg : to->args) {
    if (arg.kind == ArgKind::kValue) {
      if (absl::Status status =
              CheckScratch(static_cast<uint32_t>(arg.i), section, plan, where);
          !status.ok())
        return status;
    }
    if (arg.kind != ArgKind::kValueList) continue;
    for (int64_t value : arg.ints) {
      if (value < 0) continue;
      if (absl::Status status =
              CheckScratch(static_cast<uint32_t>(value), section, plan, where);
          !status.ok())
        return status;
    }
  }
  for (int32_t value : to->results) {
    if (value < 0) continue;
    if (absl::Status status =
            CheckScratch(static_cast<uint32_t>(value), section, plan, where);
        !status.ok())
      return status;
  }
  return absl::OkStatus();
}

absl::Status ReadBinding(const fb::Binding& from, const std::string& where,
                         const Plan& plan, Binding* to) {
  to->kind = Text(from.kind());
  to->name = Text(from.name());
  to->value = from.value();
  return CheckValueIndex(to->value, plan,
                         absl::StrCat(where, " '", to->name, "'"));
}

absl::Status ReadSection(const fb::Section& from, const Plan& plan,
                         Section* to) {
  to->name = Text(from.name());
  to->events = from.events();
  to->scratch_bytes = from.scratch_bytes();
  to->live_lower_bound = from.live_lower_bound();
  if (to->scratch_bytes > kMaxBytes)
    return Invalid("section '", to->name, "' asks for ", to->scratch_bytes,
                   " bytes of scratch, more than any memory");
  const size_t steps = from.steps() == nullptr ? 0 : from.steps()->size();
  // An event is signalled by exactly one step, so more events than steps is
  // never well-formed (and would size the checker's tables).
  if (to->events > steps)
    return Invalid("section '", to->name, "' has ", to->events,
                   " events and only ", steps, " steps");
  to->steps.resize(steps);
  for (size_t i = 0; i < steps; ++i) {
    const std::string where = absl::StrCat("section '", to->name, "' step ", i);
    if (absl::Status status =
            ReadStep(*from.steps()->Get(i), where, *to, plan, &to->steps[i]);
        !status.ok())
      return status;
  }
  if (from.results() == nullptr) return absl::OkStatus();
  to->results.resize(from.results()->size());
  for (size_t i = 0; i < to->results.size(); ++i) {
    const std::string where = absl::StrCat("section '", to->name, "' result");
    if (absl::Status status =
            ReadBinding(*from.results()->Get(i), where, plan, &to->results[i]);
        !status.ok())
      return status;
    if (absl::Status status =
            CheckScratch(to->results[i].value, *to, plan, where);
        !status.ok())
      return status;
  }
  return absl::OkStatus();
}

absl::Status ReadTables(const fb::Plan& from, Plan* plan) {
  if (from.buffers() != nullptr) {
    plan->buffers.resize(from.buffers()->size());
    for (size_t i = 0; i < plan->buffers.size(); ++i) {
      if (absl::Status status =
              ReadBuffer(*from.buffers()->Get(i), i, *plan, &plan->buffers[i]);
          !status.ok())
        return status;
    }
  }
  if (from.values() != nullptr) {
    plan->values.resize(from.values()->size());
    for (size_t i = 0; i < plan->values.size(); ++i) {
      if (absl::Status status =
              ReadValue(*from.values()->Get(i), i, *plan, &plan->values[i]);
          !status.ok())
        return status;
    }
  }
  if (from.locations() != nullptr) {
    for (const fb::Location* location : *from.locations())
      plan->locations.push_back(
          {Text(location->path()), Text(location->source())});
  }
  if (from.inputs() != nullptr) {
    plan->inputs.resize(from.inputs()->size());
    for (size_t i = 0; i < plan->inputs.size(); ++i) {
      if (absl::Status status = ReadBinding(*from.inputs()->Get(i), "input",
                                            *plan, &plan->inputs[i]);
          !status.ok())
        return status;
      if (plan->buffers[plan->values[plan->inputs[i].value].buffer].arena !=
          Arena::kInput)
        return Invalid("input '", plan->inputs[i].name,
                       "' does not lie in the input arena");
      if (plan->values[plan->inputs[i].value].rank_stride != 0)
        return Invalid("input '", plan->inputs[i].name,
                       "' differs in place between ranks");
    }
  }
  return absl::OkStatus();
}

// A tensor that is sharded over the ranks: its slot lies in the bucket, and
// every rank's part of the bucket in the value.
absl::Status ReadShard(const fb::StateEntry& from, const Plan& plan,
                       StateEntry* to) {
  to->sizes = List(from.sizes());
  to->strides = List(from.strides());
  to->slot_offset = from.slot_offset();
  to->bounds = List(from.bounds());
  const std::string what =
      absl::StrCat("state ", to->kind, " '", to->names[0], "'");
  if (to->bounds.empty()) {
    if (!to->sizes.empty() || !to->strides.empty() || to->slot_offset != 0)
      return Invalid(what, " has a place in a bucket and no bounds");
    return absl::OkStatus();
  }
  const size_t ranks = AxisSize(plan, "dp");
  if (to->bounds.size() != ranks + 1)
    return Invalid(what, " has ", to->bounds.size(), " bounds for ", ranks,
                   " ranks");
  const Value& value = plan.values[to->value];
  if (value.sizes.size() != 1 || (value.sizes[0] > 1 && value.strides[0] != 1))
    return Invalid(what, " is sharded and value ", to->value, " is not flat");
  if (to->bounds[0] != 0)
    return Invalid(what, " has bounds that start at ", to->bounds[0]);
  for (size_t r = 0; r < ranks; ++r) {
    if (to->bounds[r + 1] < to->bounds[r])
      return Invalid(what, " has bounds ", to->bounds[r], " and then ",
                     to->bounds[r + 1]);
    if (to->bounds[r + 1] - to->bounds[r] > value.sizes[0])
      return Invalid(what, " gives rank ", r, " ",
                     to->bounds[r + 1] - to->bounds[r],
                     " elements in a value of ", value.sizes[0]);
  }
  int64_t end = 0;
  if (absl::Status status =
          CheckShape(to->sizes, to->strides, to->slot_offset, what, &end);
      !status.ok())
    return status;
  if (end > to->bounds.back())
    return Invalid(what, " ends at element ", end, " of a bucket of ",
                   to->bounds.back());
  return absl::OkStatus();
}

absl::Status ReadMesh(const fb::Plan& from, Plan* plan) {
  if (from.mesh() == nullptr) return absl::OkStatus();
  uint64_t ranks = 1;
  for (const fb::Axis* axis : *from.mesh()) {
    Axis to{Text(axis->name()), axis->size()};
    if (to.name.empty() || to.size == 0)
      return Invalid("mesh axis '", to.name, "' of size ", to.size);
    for (const Axis& other : plan->mesh) {
      if (other.name == to.name)
        return Invalid("mesh axis '", to.name, "' occurs twice");
    }
    ranks *= to.size;
    if (ranks > kMaxRanks)
      return Invalid("a mesh of more than ", kMaxRanks, " ranks");
    plan->mesh.push_back(std::move(to));
  }
  return absl::OkStatus();
}

absl::Status ReadState(const fb::Plan& from, Plan* plan) {
  if (from.state() != nullptr) {
    for (const fb::StateEntry* entry : *from.state()) {
      StateEntry to;
      to.kind = Text(entry->kind());
      if (entry->names() != nullptr) {
        for (const flatbuffers::String* name : *entry->names())
          to.names.push_back(Text(name));
      }
      if (to.names.empty())
        return Invalid("state entry ", plan->state.size(), " has no name");
      to.value = entry->value();
      if (absl::Status status = CheckValueIndex(
              to.value, *plan, absl::StrCat("state '", to.names[0], "'"));
          !status.ok())
        return status;
      if (plan->buffers[plan->values[to.value].buffer].arena != Arena::kState)
        return Invalid("state '", to.names[0],
                       "' does not lie in the state arena");
      to.trainable = entry->trainable();
      to.persistent = entry->persistent();
      to.role = Text(entry->role());
      to.initial = entry->initial();
      if (absl::Status status = ReadShard(*entry, *plan, &to); !status.ok())
        return status;
      plan->state.push_back(std::move(to));
    }
  }
  if (from.constants() == nullptr) return absl::OkStatus();
  for (const fb::ConstantData* constant : *from.constants()) {
    ConstantData to;
    to.name = Text(constant->name());
    to.value = constant->value();
    if (absl::Status status = CheckValueIndex(
            to.value, *plan, absl::StrCat("constant '", to.name, "'"));
        !status.ok())
      return status;
    const Value& value = plan->values[to.value];
    const Arena arena = plan->buffers[value.buffer].arena;
    if (arena != Arena::kConstant && arena != Arena::kState)
      return Invalid("constant '", to.name,
                     "' lies neither in the constant nor in the state arena");
    if (value.rank_stride != 0)
      return Invalid("constant '", to.name, "' differs in place between ranks");
    to.data = List(constant->data());
    const ByteRange range = BytesOf(value);
    if (to.data.size() != range.end - range.begin)
      return Invalid("constant '", to.name, "' has ", to.data.size(),
                     " bytes of data for a value that spans ",
                     range.end - range.begin);
    plan->constants.push_back(std::move(to));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Plan> ParsePlan(const uint8_t* data, size_t size) {
  if (size < 8 || !flatbuffers::BufferHasIdentifier(data, fb::PlanIdentifier()))
    return Invalid("these ", size,
                   " bytes are not a plan (no identifier HDPL at byte 4); "
                   "write one with heddle-opt -o step.plan");
  // FlatBuffers accesses scalars in place: an unaligned buffer (a slice of a
  // larger one) is copied first.
  std::vector<uint64_t> aligned;
  if (reinterpret_cast<uintptr_t>(data) % alignof(uint64_t) != 0) {
    aligned.resize((size + 7) / 8);
    std::memcpy(aligned.data(), data, size);
    data = reinterpret_cast<const uint8_t*>(aligned.data());
  }
  if (size >= FLATBUFFERS_MAX_BUFFER_SIZE)
    return Invalid(size, " bytes are more than a plan can have (",
                   FLATBUFFERS_MAX_BUFFER_SIZE, ")");
  // A table takes at least 4 bytes, so a buffer that visits more tables than
  // that shares them to make the reader's memory explode.
  flatbuffers::Verifier verifier(data, size, 16,
                                 static_cast<flatbuffers::uoffset_t>(size / 4));
  if (!fb::VerifyPlanBuffer(verifier))
    return Invalid(
        "the file is corrupt or cut short (", size,
        " bytes do not pass the FlatBuffers verifier); write it again");
  const fb::Plan& from = *fb::GetPlan(data);
  Plan plan;
  plan.version = from.version();
  if (plan.version != kPlanVersion)
    return Invalid("format version ", plan.version,
                   " cannot be read, this runtime reads version ", kPlanVersion,
                   "; compile the step again with this Heddle");
  plan.torch_version = Text(from.torch_version());
  plan.target = Text(from.target());
  plan.precision = Text(from.precision());
  plan.mode = Text(from.mode());
  plan.config = Text(from.config());
  plan.layout_hash = from.layout_hash();
  plan.state_bytes = from.state_bytes();
  plan.constant_bytes = from.constant_bytes();
  if (plan.target != "cpu" && plan.target != "cuda")
    return Invalid("target '", plan.target, "' is neither cpu nor cuda");
  if (plan.mode != "replay" && plan.mode != "train")
    return Invalid("mode '", plan.mode, "' is neither replay nor train");
  if (plan.state_bytes > kMaxBytes || plan.constant_bytes > kMaxBytes)
    return Invalid("arenas of ", plan.state_bytes, " and ", plan.constant_bytes,
                   " bytes are more than any memory");
  if (from.streams() != nullptr) {
    for (const flatbuffers::String* name : *from.streams())
      plan.streams.push_back(Text(name));
  }
  if (plan.streams.size() > kMaxStreams)
    return Invalid(plan.streams.size(), " streams, at most ", kMaxStreams,
                   " are supported");
  if (absl::Status status = ReadMesh(from, &plan); !status.ok()) return status;
  if (absl::Status status = ReadTables(from, &plan); !status.ok())
    return status;
  if (absl::Status status = ReadState(from, &plan); !status.ok()) return status;
  if (from.sections() == nullptr || from.sections()->size() == 0)
    return Invalid("there are no sections");
  std::unordered_set<std::string> names;
  plan.sections.resize(from.sections()->size());
  for (size_t i = 0; i < plan.sections.size(); ++i) {
    if (absl::Status status =
            ReadSection(*from.sections()->Get(i), plan, &plan.sections[i]);
        !status.ok())
      return status;
    if (!names.insert(plan.sections[i].name).second)
      return Invalid("section '", plan.sections[i].name, "' occurs twice");
  }
  return plan;
}

absl::StatusOr<Plan> ReadPlan(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  std::vector<uint8_t> bytes((std::istreambuf_iterator<char>(file)),
                             std::istreambuf_iterator<char>());
  if (file.bad())
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": cannot be read as a file"));
  absl::StatusOr<Plan> plan = ParsePlan(bytes.data(), bytes.size());
  if (!plan.ok())
    return absl::Status(plan.status().code(),
                        absl::StrCat(path, ": ", plan.status().message()));
  return plan;
}

}  // namespace heddle::plan
