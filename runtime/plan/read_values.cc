// Buffers lie in their arenas, values in their buffers, on every rank.

#include "runtime/plan/read_values.h"

#include <algorithm>

namespace heddle::plan {
namespace {

// A tensor has at most this many dimensions: ATen's own kernels stop at 25
// (TensorIterator) and nothing longer is meaningful.
constexpr size_t kMaxRank = 64;

}  // namespace

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

namespace {

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

}  // namespace

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
  // The last rank's elements lie furthest. One rank is no reason for a stride
  // that no plan could use.
  const int64_t ranks = AxisSize(plan, "dp");
  if (absl::Status status = ReadRankTables(ranks, what, to, &needed);
      !status.ok())
    return status;
  int64_t shift = 0;
  if (to->rank_stride < 0 ||
      static_cast<uint64_t>(to->rank_stride) > kMaxBytes ||
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

}  // namespace heddle::plan
