// Each kind's contract stands in the schema (runtime/plan/plan.fbs); here are
// its sizes, in elements, and its bytes.

#include "runtime/plan/collective.h"

#include <map>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace heddle::plan {
namespace {

template <typename... Args>
absl::Status Violation(const Step& step, const Args&... args) {
  return absl::FailedPreconditionError(
      absl::StrCat("plan_collective: ", step.name, " ", args...));
}

const Arg* FindArg(const Step& step, const std::string& name, ArgKind kind) {
  for (const Arg& arg : step.args) {
    if (arg.name == name) return arg.kind == kind ? &arg : nullptr;
  }
  return nullptr;
}

bool HasArg(const Step& step, const std::string& name) {
  for (const Arg& arg : step.args) {
    if (arg.name == name) return true;
  }
  return false;
}

bool IsReduction(CollectiveKind kind) {
  return kind == CollectiveKind::kReduceScatter ||
         kind == CollectiveKind::kAllReduce;
}

bool HasParts(CollectiveKind kind) {
  return kind == CollectiveKind::kAllGather ||
         kind == CollectiveKind::kReduceScatter;
}

// Bounds of parts of S elements each, or the plan's own.
absl::Status ReadBounds(const Plan& plan, const Step& step, Collective* to) {
  const bool gather = to->kind == CollectiveKind::kAllGather;
  const int64_t part = ElementCount(plan.values[gather ? to->src : to->dst]);
  const int64_t whole = ElementCount(plan.values[gather ? to->dst : to->src]);
  if (HasArg(step, "bounds")) {
    const Arg* bounds = FindArg(step, "bounds", ArgKind::kIntList);
    if (bounds == nullptr || bounds->ints.size() != to->ranks + size_t{1} ||
        bounds->ints[0] != 0)
      return Violation(step, "needs ", to->ranks + 1,
                       " bounds, the first of them 0");
    to->bounds = bounds->ints;
    to->uneven = true;
    for (int64_t r = 0; r < to->ranks; ++r) {
      const int64_t begin = to->bounds[r];
      const int64_t end = to->bounds[r + 1];
      if (end < begin)
        return Violation(step, "has bounds ", begin, " and then ", end);
      // A resolved plan knows the length of its own part only.
      if (end - begin > part && (plan.resolved < 0 || plan.resolved == r))
        return Violation(step, "has ", end - begin, " elements for rank ", r,
                         " and a part of ", part);
    }
  } else {
    for (int64_t r = 0; r <= to->ranks; ++r) {
      int64_t bound = 0;
      if (__builtin_mul_overflow(r, part, &bound))
        return Violation(step, "has more elements than an int64 counts");
      to->bounds.push_back(bound);
    }
  }
  if (to->bounds.back() > whole)
    return Violation(step, "has ", to->bounds.back(), " elements in all ",
                     to->ranks, " parts and a whole of ", whole);
  return absl::OkStatus();
}

// The first `count` elements of a dense value from element `first` on.
ByteRange Elements(const Value& value, int64_t coordinate, int64_t first,
                   int64_t count) {
  if (count == 0) return {};
  const uint64_t element = static_cast<uint64_t>(ElementSize(value.dtype));
  const uint64_t begin =
      BytesOf(value, coordinate).begin + static_cast<uint64_t>(first) * element;
  return {begin, begin + static_cast<uint64_t>(count) * element};
}

// The part of the rank, or the whole bucket, or all of a value without parts.
ByteRange Side(const Plan& plan, const Collective& c, int64_t coordinate,
               uint32_t index, bool part) {
  const Value& value = plan.values[index];
  if (!HasParts(c.kind)) return BytesOf(value, coordinate);
  return Elements(value, coordinate, 0,
                  part ? c.bounds[coordinate + 1] - c.bounds[coordinate]
                       : c.bounds[c.ranks]);
}

}  // namespace

absl::StatusOr<Collective> ReadCollective(const Plan& plan, const Step& step) {
  static const auto& kinds = *new std::map<std::string, CollectiveKind>{
      {"all_gather", CollectiveKind::kAllGather},
      {"reduce_scatter", CollectiveKind::kReduceScatter},
      {"all_reduce", CollectiveKind::kAllReduce},
      {"broadcast", CollectiveKind::kBroadcast}};
  const auto kind = kinds.find(step.name);
  if (step.kind != StepKind::kCollective || kind == kinds.end())
    return Violation(step, "is no collective of this format");
  Collective c;
  c.kind = kind->second;
  const Arg* src = FindArg(step, "src", ArgKind::kValue);
  const Arg* axis = FindArg(step, "axis", ArgKind::kString);
  if (src == nullptr || axis == nullptr || step.results.size() != 1 ||
      step.results[0] < 0)
    return Violation(step, "needs a src, an axis and one result");
  c.src = static_cast<uint32_t>(src->i);
  c.dst = static_cast<uint32_t>(step.results[0]);
  c.axis = axis->s;
  bool found = false;
  for (const Axis& candidate : plan.mesh) found |= candidate.name == c.axis;
  if (!found)
    return Violation(step, "runs along axis '", c.axis,
                     "', which the mesh does not have");
  c.ranks = AxisSize(plan, c.axis);
  const Value& from = plan.values[c.src];
  const Value& to = plan.values[c.dst];
  if (from.dtype != to.dtype)
    return Violation(step, "has a src of ", DTypeName(from.dtype),
                     " and a result of ", DTypeName(to.dtype));
  if (!IsDense(from) || !IsDense(to))
    return Violation(step, "has a ", IsDense(from) ? "result" : "src",
                     " with gaps");
  if (IsReduction(c.kind)) {
    const Arg* op = FindArg(step, "op", ArgKind::kString);
    if (op == nullptr || op->s != "sum")
      return Violation(step, "reduces by '", op == nullptr ? "" : op->s,
                       "', only by 'sum' is supported");
  }
  if (HasParts(c.kind)) {
    if (absl::Status status = ReadBounds(plan, step, &c); !status.ok())
      return status;
    return c;
  }
  if (ElementCount(from) != ElementCount(to))
    return Violation(step, "has a src of ", ElementCount(from),
                     " elements and a result of ", ElementCount(to));
  if (c.kind == CollectiveKind::kBroadcast) {
    const Arg* root = FindArg(step, "root", ArgKind::kInt);
    if (root == nullptr || root->i < 0 || root->i >= c.ranks)
      return Violation(step, "needs a root below ", c.ranks);
    c.root = root->i;
  }
  return c;
}

ByteRange GivenBytes(const Plan& plan, const Collective& collective,
                     int64_t coordinate) {
  if (collective.kind == CollectiveKind::kBroadcast &&
      coordinate != collective.root)
    return {};
  return Side(plan, collective, coordinate, collective.src,
              collective.kind == CollectiveKind::kAllGather);
}

ByteRange TakenBytes(const Plan& plan, const Collective& collective,
                     int64_t coordinate) {
  return Side(plan, collective, coordinate, collective.dst,
              collective.kind == CollectiveKind::kReduceScatter);
}

bool InPlace(const Plan& plan, const Collective& collective,
             int64_t coordinate) {
  const Value& src = plan.values[collective.src];
  const Value& dst = plan.values[collective.dst];
  if (src.buffer != dst.buffer) return false;
  const ByteRange from = GivenBytes(plan, collective, coordinate);
  const ByteRange to = TakenBytes(plan, collective, coordinate);
  if (!HasParts(collective.kind))
    return from.begin == to.begin && from.end == to.end;
  const bool gather = collective.kind == CollectiveKind::kAllGather;
  const ByteRange own = Elements(
      gather ? dst : src, coordinate, collective.bounds[coordinate],
      collective.bounds[coordinate + 1] - collective.bounds[coordinate]);
  const ByteRange part = gather ? from : to;
  return part.begin == own.begin && part.end == own.end;
}

uint64_t WireBytes(const Plan& plan, const Collective& collective,
                   int64_t coordinate) {
  const ByteRange given = GivenBytes(plan, collective, coordinate);
  const ByteRange taken = TakenBytes(plan, collective, coordinate);
  const uint64_t in = given.end - given.begin;
  const uint64_t out = taken.end - taken.begin;
  const uint64_t ranks = static_cast<uint64_t>(collective.ranks);
  switch (collective.kind) {
    case CollectiveKind::kAllGather:
      return out - in;
    case CollectiveKind::kReduceScatter:
      return (ranks - 1) * out;
    case CollectiveKind::kAllReduce:
      return 2 * out * (ranks - 1) / ranks;
    case CollectiveKind::kBroadcast:
      return coordinate == collective.root ? 0 : out;
  }
  return 0;
}

const char* CollectiveName(CollectiveKind kind) {
  static constexpr const char* kNames[] = {"all_gather", "reduce_scatter",
                                           "all_reduce", "broadcast"};
  return kNames[static_cast<int>(kind)];
}

}  // namespace heddle::plan
