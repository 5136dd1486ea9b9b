// Accesses come from arguments and results alone: a step writes what it lists
// as results and reads what it lists as arguments, nothing else. A collective
// touches the parts that are this rank's, and in place writes only the others'.

#include "runtime/plan/access.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/plan/collective.h"

namespace heddle::plan {
namespace {

// More pieces than this are not listed one by one.
constexpr size_t kMaxPieces = 1 << 14;

}  // namespace

std::map<uint32_t, std::vector<Access>> CollectAccesses(const Plan& plan,
                                                        const Section& section,
                                                        int64_t coordinate) {
  std::map<uint32_t, std::vector<Access>> accesses;
  const auto add = [&](size_t step, int64_t value, bool write) {
    if (value < 0) return;
    const Value& v = plan.values[static_cast<size_t>(value)];
    const ByteRange bytes = BytesOf(v, coordinate);
    if (bytes.begin == bytes.end) return;
    accesses[v.buffer].push_back({static_cast<uint32_t>(step),
                                  static_cast<uint32_t>(value), write, bytes});
  };
  const auto add_part = [&](size_t step, uint32_t value, bool write,
                            ByteRange bytes) {
    if (bytes.begin >= bytes.end) return;
    accesses[plan.values[value].buffer].push_back(
        {static_cast<uint32_t>(step), value, write, bytes, true});
  };
  const auto add_collective = [&](size_t step, const Collective& c) {
    const ByteRange given = GivenBytes(plan, c, coordinate);
    const ByteRange taken = TakenBytes(plan, c, coordinate);
    add_part(step, c.src, false, given);
    const bool keeps_own = c.kind == CollectiveKind::kAllGather ||
                           c.kind == CollectiveKind::kBroadcast;
    if (!keeps_own || !InPlace(plan, c, coordinate))
      return add_part(step, c.dst, true, taken);
    // An empty part of the rank's own leaves all of dst to the others.
    if (given.begin == given.end) return add_part(step, c.dst, true, taken);
    add_part(step, c.dst, true, {taken.begin, given.begin});
    add_part(step, c.dst, true, {given.end, taken.end});
  };
  for (size_t i = 0; i < section.steps.size(); ++i) {
    const Step& step = section.steps[i];
    if (step.kind == StepKind::kCollective) {
      if (const absl::StatusOr<Collective> c = ReadCollective(plan, step);
          c.ok()) {
        add_collective(i, *c);
        continue;
      }
    }
    for (const Arg& arg : step.args) {
      // The one argument that is written and not read: the accumulator's first
      // value. It is a result as well.
      if (step.kind == StepKind::kKernel && step.name == "accumulate" &&
          arg.name == "dst") {
        const auto first =
            std::find_if(step.args.begin(), step.args.end(),
                         [](const Arg& a) { return a.name == "first"; });
        if (first != step.args.end() && first->i != 0) continue;
      }
      if (arg.kind == ArgKind::kValue) add(i, arg.i, false);
      if (arg.kind != ArgKind::kValueList) continue;
      for (int64_t value : arg.ints) add(i, value, false);
    }
    for (int32_t value : step.results) add(i, value, true);
  }
  for (const Binding& result : section.results)
    add(section.steps.size(), result.value, false);
  return accesses;
}

std::vector<bool> BuffersThatDifferByRank(const Plan& plan) {
  std::vector<bool> differs(plan.buffers.size(), false);
  for (const Value& value : plan.values) {
    if (value.rank_stride != 0 || plan.resolved >= 0)
      differs[value.buffer] = true;
  }
  for (const Section& section : plan.sections) {
    for (const Step& step : section.steps) {
      if (step.kind != StepKind::kCollective) continue;
      const absl::StatusOr<Collective> c = ReadCollective(plan, step);
      if (!c.ok()) continue;
      differs[plan.values[c->src].buffer] = true;
      differs[plan.values[c->dst].buffer] = true;
    }
  }
  return differs;
}

absl::StatusOr<HappensBefore> HappensBefore::Create(const Plan& plan,
                                                    const Section& section) {
  HappensBefore order;
  order.streams_ = plan.streams.size();
  const size_t steps = section.steps.size();
  order.stream_.resize(steps);
  order.position_.resize(steps);
  order.clocks_.assign(steps * order.streams_, 0);
  std::vector<int64_t> last(order.streams_, -1);
  std::vector<int64_t> signaller(section.events, -1);
  for (size_t i = 0; i < steps; ++i) {
    const Step& step = section.steps[i];
    uint32_t* clock = &order.clocks_[i * order.streams_];
    const auto join = [&](int64_t before) {
      const uint32_t* other =
          &order.clocks_[static_cast<size_t>(before) * order.streams_];
      for (size_t s = 0; s < order.streams_; ++s)
        clock[s] = std::max(clock[s], other[s]);
      const uint16_t stream = order.stream_[static_cast<size_t>(before)];
      clock[stream] =
          std::max(clock[stream], order.position_[static_cast<size_t>(before)]);
    };
    order.stream_[i] = step.stream;
    order.position_[i] = 1;
    if (last[step.stream] >= 0) {
      join(last[step.stream]);
      order.position_[i] =
          order.position_[static_cast<size_t>(last[step.stream])] + 1;
    }
    for (uint32_t event : step.waits) {
      if (signaller[event] < 0)
        return absl::FailedPreconditionError(absl::StrCat(
            "plan_event: section ", section.name, " step ", i, " (", step.name,
            ") waits for event ", event, ", which no earlier step signals"));
      join(signaller[event]);
    }
    if (step.signal >= 0) {
      int64_t& owner = signaller[static_cast<size_t>(step.signal)];
      if (owner >= 0)
        return absl::FailedPreconditionError(
            absl::StrCat("plan_event: section ", section.name, " step ", i,
                         " (", step.name, ") signals event ", step.signal,
                         ", which step ", owner, " signals too"));
      owner = static_cast<int64_t>(i);
    }
    last[step.stream] = static_cast<int64_t>(i);
  }
  return order;
}

bool HappensBefore::operator()(uint32_t a, uint32_t b) const {
  if (a >= stream_.size()) return false;
  if (b >= stream_.size()) return true;
  return clocks_[b * streams_ + stream_[a]] >= position_[a];
}

void ByteSet::Add(ByteRange range) {
  if (range.begin == range.end) return;
  auto it = ranges_.upper_bound(range.begin);
  if (it != ranges_.begin() && std::prev(it)->second >= range.begin) --it;
  while (it != ranges_.end() && it->first <= range.end) {
    range.begin = std::min(range.begin, it->first);
    range.end = std::max(range.end, it->second);
    it = ranges_.erase(it);
  }
  ranges_[range.begin] = range.end;
}

bool ByteSet::Covers(ByteRange range) const {
  if (range.begin == range.end) return true;
  auto it = ranges_.upper_bound(range.begin);
  return it != ranges_.begin() && std::prev(it)->second >= range.end;
}

bool ByteSet::Meets(ByteRange range) const {
  if (range.begin == range.end) return false;
  auto it = ranges_.lower_bound(range.end);
  return it != ranges_.begin() && std::prev(it)->second > range.begin;
}

std::vector<ByteRange> PiecesOf(const Plan& plan, const Access& access,
                                int64_t coordinate) {
  if (access.exact) return {access.bytes};
  return PiecesOf(plan.values[access.value], coordinate);
}

std::vector<ByteRange> PiecesOf(const Value& value, int64_t coordinate) {
  const ByteRange span = BytesOf(value, coordinate);
  if (span.begin == span.end) return {};
  if (IsDense(value)) return {span};
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (size_t d = 0; d < value.sizes.size(); ++d) {
    if (value.sizes[d] > 1 && value.strides[d] > 0)
      dims.emplace_back(value.strides[d], value.sizes[d]);
  }
  std::sort(dims.begin(), dims.end());
  // The innermost dimensions that are gap-free make one piece.
  uint64_t piece = 1;
  size_t inner = 0;
  for (;
       inner < dims.size() && dims[inner].first <= static_cast<int64_t>(piece);
       ++inner)
    piece =
        static_cast<uint64_t>(dims[inner].first * (dims[inner].second - 1)) +
        piece;
  size_t count = 1;
  for (size_t d = inner; d < dims.size(); ++d) {
    if (static_cast<uint64_t>(dims[d].second) > kMaxPieces ||
        (count *= static_cast<size_t>(dims[d].second)) > kMaxPieces)
      return {span};
  }
  const uint64_t element = static_cast<uint64_t>(ElementSize(value.dtype));
  std::vector<ByteRange> pieces;
  pieces.reserve(count);
  for (size_t n = 0; n < count; ++n) {
    uint64_t at = 0;
    size_t rest = n;
    for (size_t d = inner; d < dims.size(); ++d) {
      at += rest % static_cast<size_t>(dims[d].second) *
            static_cast<uint64_t>(dims[d].first);
      rest /= static_cast<size_t>(dims[d].second);
    }
    pieces.push_back(
        {span.begin + at * element, span.begin + (at + piece) * element});
  }
  return pieces;
}

}  // namespace heddle::plan
