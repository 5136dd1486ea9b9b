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

namespace heddle::plan {
namespace {

// A tensor has at most this many dimensions: ATen's own kernels stop at 25
// (TensorIterator) and nothing longer is meaningful.
constexpr size_t kMaxRank = 64;
// The vector-clock checker is linear in streams; a plan with more streams than
// this is not one that the compiler wrote.
constexpr size_t kMaxStreams = 64;
// More ranks than any machine; keeps the product of the axes an uint32.
constexpr uint64_t kMaxRanks = 1 << 20;
// No byte count in a plan may exceed this, so that sums of two cannot overflow.
constexpr uint64_t kMaxBytes = uint64_t{1} << 52;

template <typename... Args>
absl::Status Invalid(const Args&... args) {
  return absl::InvalidArgumentError(absl::StrCat("plan: ", args...));
}

std::string Text(const flatbuffers::String* s) {
  return s == nullptr ? std::string() : s->str();
}

// The verifier checks that a vector's length is aligned, not that its elements
// are: a hostile vector of 64-bit numbers may lie at any multiple of 4.
template <typename T>
std::vector<T> List(const flatbuffers::Vector<T>* v) {
  static_assert(FLATBUFFERS_LITTLEENDIAN, "the bytes are taken as they are");
  if (v == nullptr) return {};
  std::vector<T> list(v->size());
  if (!list.empty())
    std::memcpy(list.data(), v->Data(), list.size() * sizeof(T));
  return list;
}

template <typename Fb, typename E>
bool ReadEnum(Fb from, Fb last, E* to) {
  const int raw = static_cast<int>(from);
  if (raw < 0 || raw > static_cast<int>(last)) return false;
  *to = static_cast<E>(raw);
  return true;
}

absl::Status ReadBuffer(const fb::Buffer& from, size_t index, const Plan& plan,
                        Buffer* to) {
  if (!ReadEnum(from.arena(), fb::Arena::MAX, &to->arena))
    return Invalid("buffer ", index, " has unknown arena ",
                   static_cast<int>(from.arena()));
  if (!ReadEnum(from.space(), fb::Space::MAX, &to->space))
    return Invalid("buffer ", index, " has unknown space ",
                   static_cast<int>(from.space()));
  if (!ReadEnum(from.category(), fb::Category::MAX, &to->category))
    return Invalid("buffer ", index, " has unknown category ",
                   static_cast<int>(from.category()));
  to->offset = from.offset();
  to->bytes = from.bytes();
  to->name = Text(from.name());
  if (to->offset % kAlignment != 0)
    return Invalid("buffer ", index, " lies at offset ", to->offset,
                   ", which is not a multiple of ", kAlignment);
  if (to->offset > kMaxBytes || to->bytes > kMaxBytes)
    return Invalid("buffer ", index, " has offset ", to->offset, " and ",
                   to->bytes, " bytes, more than any memory");
  const uint64_t end = to->offset + to->bytes;
  if (to->arena == Arena::kState && end > plan.state_bytes)
    return Invalid("buffer ", index, " ends at byte ", end,
                   " of a state arena of ", plan.state_bytes);
  if (to->arena == Arena::kConstant && end > plan.constant_bytes)
    return Invalid("buffer ", index, " ends at byte ", end,
                   " of a constant arena of ", plan.constant_bytes);
  return absl::OkStatus();
}

// Checks sizes and strides: not negative, and neither the number of elements
// nor the last one (counted from `first`) overflows. Sets `storage` to one past
// the last element, or to `first` where there are none.
absl::Status CheckShape(const std::vector<int64_t>& sizes,
                        const std::vector<int64_t>& strides, int64_t first,
                        const std::string& what, int64_t* storage) {
  if (sizes.size() > kMaxRank)
    return Invalid(what, " has ", sizes.size(), " dimensions");
  if (sizes.size() != strides.size())
    return Invalid(what, " has ", sizes.size(), " sizes and ", strides.size(),
                   " strides");
  if (first < 0) return Invalid(what, " has negative offset ", first);
  int64_t count = 1;
  int64_t last = first;
  bool empty = false;
  for (size_t d = 0; d < sizes.size(); ++d) {
    const int64_t size = sizes[d];
    const int64_t stride = strides[d];
    if (size < 0 || stride < 0)
      return Invalid(what, " has size ", size, " and stride ", stride,
                     " in dimension ", d);
    if (size == 0) empty = true;
    int64_t reach;
    // A broadcast value (stride 0) may have more elements than bytes, hence
    // both checks.
    if (size > 0 && __builtin_mul_overflow(count, size, &count))
      return Invalid(what, " has more elements than an int64 counts");
    if (size > 0 && (__builtin_mul_overflow(size - 1, stride, &reach) ||
                     __builtin_add_overflow(last, reach, &last)))
      return Invalid(what, " reaches further than an int64 counts");
  }
  *storage = first;
  if (!empty && __builtin_add_overflow(last, 1, storage))
    return Invalid(what, " reaches further than an int64 counts");
  return absl::OkStatus();
}

// Checks the tables; `needed` becomes what the rank that reaches furthest
// needs.
absl::Status ReadRankTables(int64_t ranks, const std::string& what, Value* to,
                            int64_t* needed) {
  for (const std::vector<int64_t>* table :
       {&to->rank_offsets, &to->rank_sizes}) {
    if (!table->empty() && static_cast<int64_t>(table->size()) != ranks)
      return Invalid(what, " has a table of ", table->size(), " entries for ",
                     ranks, " ranks");
  }
  const bool flat = to->sizes.size() == 1 && to->strides[0] == 1;
  for (int64_t size : to->rank_sizes) {
    if (!flat || size < 0 || size > to->sizes[0])
      return Invalid(what, " has ", size, " elements on one rank and ",
                     flat ? to->sizes[0] : 0, " in its own type");
  }
  if (to->rank_offsets.empty()) return absl::OkStatus();
  const int64_t own = *needed;
  *needed = 0;
  for (int64_t r = 0; r < ranks; ++r) {
    const int64_t offset = to->rank_offsets[static_cast<size_t>(r)];
    if (offset < -1)
      return Invalid(what, " starts at element ", offset, " on rank ", r);
    int64_t end = 0;
    const int64_t length =
        to->rank_sizes.empty()
            ? own
            : to->offset + to->rank_sizes[static_cast<size_t>(r)];
    if (offset >= 0 && __builtin_add_overflow(offset, length, &end))
      return Invalid(what, " reaches further than an int64 counts");
    *needed = std::max(*needed, end);
  }
  return absl::OkStatus();
}

absl::Status ReadValue(const fb::Value& from, size_t index, const Plan& plan,
                       Value* to) {
  to->buffer = from.buffer();
  if (to->buffer >= plan.buffers.size())
    return Invalid("value ", index, " names buffer ", to->buffer, " of ",
                   plan.buffers.size());
  if (!ReadEnum(from.dtype(), fb::DType::MAX, &to->dtype))
    return Invalid("value ", index, " has unknown dtype ",
                   static_cast<int>(from.dtype()));
  to->sizes = List(from.sizes());
  to->strides = List(from.strides());
  to->offset = from.offset();
  to->rank_stride = from.rank_stride();
  to->rank_offsets = List(from.rank_offsets());
  to->rank_sizes = List(from.rank_sizes());
  const std::string what = absl::StrCat("value ", index);
  int64_t needed = 0;
  if (absl::Status status =
          CheckShape(to->sizes, to->strides, to->offset, what, &needed);
      !status.ok())
    return status;
  // The last rank's elements lie furthest.
  const int64_t ranks = AxisSize(plan, "dp");
  if (absl::Status status = ReadRankTables(ranks, what, to, &needed);
      !status.ok())
    return status;
  int64_t shift = 0;
  if (to->rank_stride < 0 ||
      __builtin_mul_overflow(ranks - 1, to->rank_stride, &shift) ||
      __builtin_add_overflow(needed, shift, &needed))
    return Invalid(what, " has rank stride ", to->rank_stride, " for ", ranks,
                   " ranks");
  const uint64_t bytes = plan.buffers[to->buffer].bytes;
  const uint64_t element = static_cast<uint64_t>(ElementSize(to->dtype));
  if (static_cast<uint64_t>(needed) > bytes / element)
    return Invalid("value ", index, " needs ", needed, " elements of ", element,
                   " bytes in buffer ", to->buffer, " of ", bytes, " bytes",
                   shift > 0 ? " on the last rank" : "");
  return absl::OkStatus();
}

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
