// A rank's value with tables lies where its row of them says; everything else
// is one address for all ranks, or a stride apart.

#include "runtime/plan/rank_memory.h"

#include <algorithm>

#include "runtime/plan/access.h"

namespace heddle::plan {
namespace {

// More pieces than this are written as their span.
constexpr size_t kMaxWritten = 64;

int64_t Signed(uint64_t bytes) { return static_cast<int64_t>(bytes); }

}  // namespace

RankMemory::RankMemory(const Plan& plan)
    : plan_(plan), memory_(AxisSize(plan, "dp")) {
  for (const StateEntry& entry : plan.state)
    names_.emplace(entry.names[0], names());
}

void RankMemory::Reset() {
  for (Memory& memory : memory_) {
    memory.scratch.Clear();
    memory.state.Clear();
  }
  for (int64_t rank = 0; rank < ranks(); ++rank) FillState(rank);
}

std::string RankMemory::TensorName(int64_t tensor) const {
  for (const auto& [name, number] : names_) {
    if (number == tensor) return name;
  }
  return "a value";
}

Place RankMemory::PlaceOf(int64_t index, int64_t rank) const {
  if (index < 0) return {};
  const Value& value = ValueAt(index);
  const auto r = static_cast<size_t>(rank);
  int64_t first = value.offset + rank * value.rank_stride;
  if (!value.rank_offsets.empty()) {
    if (value.rank_offsets[r] < 0) return {};
    first += value.rank_offsets[r];
  }
  const int64_t count = value.rank_sizes.empty()
                            ? StorageElements(value.sizes, value.strides)
                            : value.rank_sizes[r];
  if (count == 0) return {};
  const int64_t element = ElementSize(value.dtype);
  const int64_t base = ArenaOf(value) == Arena::kInput
                           ? 0
                           : Signed(plan_.buffers[value.buffer].offset);
  return {true, base + first * element, base + (first + count) * element};
}

const Contents* RankMemory::ContentsOf(const Value& value, int64_t rank) const {
  const Memory& memory = memory_[static_cast<size_t>(rank)];
  switch (ArenaOf(value)) {
    case Arena::kScratch:
      return &memory.scratch;
    case Arena::kState:
      return &memory.state;
    default:
      return nullptr;
  }
}

Contents* RankMemory::ContentsOf(const Value& value, int64_t rank) {
  return const_cast<Contents*>(
      static_cast<const RankMemory*>(this)->ContentsOf(value, rank));
}

std::vector<ByteRange> RankMemory::GapFree(const Value& value,
                                           Place place) const {
  const auto begin = static_cast<uint64_t>(place.begin);
  if (IsDense(value) || !value.rank_sizes.empty())
    return {{begin, static_cast<uint64_t>(place.end)}};
  std::vector<ByteRange> pieces = PiecesOf(value);
  const uint64_t first = BytesOf(value).begin;
  for (ByteRange& piece : pieces) {
    piece.begin += begin - first;
    piece.end += begin - first;
  }
  return pieces;
}

std::vector<Piece> RankMemory::Read(int64_t index, int64_t rank) const {
  const Place place = PlaceOf(index, rank);
  if (!place.exists) return {};
  const Value& value = ValueAt(index);
  const Contents* contents = ContentsOf(value, rank);
  if (contents == nullptr) {
    Content content;
    if (ArenaOf(value) == Arena::kInput) content.agreement = Agreement::kOwn;
    return {{place.begin, place.end, content}};
  }
  std::vector<Piece> whole = contents->Get(place.begin, place.end);
  if (whole.size() <= 1) return whole;
  std::vector<Piece> found;
  for (ByteRange piece : GapFree(value, place)) {
    for (const Piece& part :
         contents->Get(Signed(piece.begin), Signed(piece.end)))
      found.push_back(part);
  }
  return found;
}

std::vector<Piece> RankMemory::ReadElements(int64_t value, int64_t rank,
                                            int64_t from, int64_t to) const {
  const Place place = PlaceOf(value, rank);
  const int64_t element = ElementSize(ValueAt(value).dtype);
  std::vector<Piece> found;
  for (Piece piece : Read(value, rank)) {
    piece.begin = std::max(piece.begin, place.begin + from * element);
    piece.end = std::min(piece.end, place.begin + to * element);
    if (piece.begin < piece.end) found.push_back(piece);
  }
  return found;
}

void RankMemory::Write(int64_t index, int64_t rank, Content content) {
  const Place place = PlaceOf(index, rank);
  if (!place.exists) return;
  const Value& value = ValueAt(index);
  Contents* contents = ContentsOf(value, rank);
  if (contents == nullptr) return;
  const std::vector<ByteRange> pieces = GapFree(value, place);
  if (pieces.size() <= kMaxWritten) {
    for (ByteRange piece : pieces)
      contents->Set({Signed(piece.begin), Signed(piece.end), content});
    return;
  }
  for (const Piece& old : contents->Get(place.begin, place.end))
    content.agreement = std::max(content.agreement, old.content.agreement);
  content.tensor = -1;
  contents->Set({place.begin, place.end, content});
}

void RankMemory::Put(int64_t index, int64_t rank, int64_t bytes,
                     const std::vector<Piece>& pieces) {
  const Place place = PlaceOf(index, rank);
  Contents* contents = ContentsOf(ValueAt(index), rank);
  if (!place.exists || contents == nullptr) return;
  contents->Set({place.begin, place.begin + bytes, {}});
  for (const Piece& piece : pieces) contents->Set(piece);
}

Piece RankMemory::OwnPart(const StateEntry& entry, int64_t rank) const {
  const Place place = PlaceOf(entry.value, rank);
  if (!place.exists) return {};
  const int64_t element = ElementSize(ValueAt(entry.value).dtype);
  Piece own = {place.begin, place.end, {}};
  own.content.tensor = NumberOf(entry);
  own.content.element = element;
  own.content.origin = place.begin;
  if (entry.bounds.empty()) return own;
  const int64_t begin = entry.bounds[static_cast<size_t>(rank)];
  const int64_t end = entry.bounds[static_cast<size_t>(rank) + 1];
  const int64_t slot_end =
      entry.slot_offset + StorageElements(entry.sizes, entry.strides);
  own.begin =
      place.begin + (std::max(begin, entry.slot_offset) - begin) * element;
  own.end = place.begin + (std::min(end, slot_end) - begin) * element;
  own.content.origin = place.begin + (entry.slot_offset - begin) * element;
  own.content.agreement = Agreement::kPart;
  return own;
}

std::vector<Piece> RankMemory::ReadState(const Piece& range,
                                         int64_t rank) const {
  return memory_[static_cast<size_t>(rank)].state.Get(range.begin, range.end);
}

void RankMemory::FillState(int64_t rank) {
  Contents& state = memory_[static_cast<size_t>(rank)].state;
  // What lies between the slots of a shard is the rank's as well.
  for (const StateEntry& entry : plan_.state) {
    const Place place = PlaceOf(entry.value, rank);
    if (entry.bounds.empty() || !place.exists) continue;
    Content padding;
    padding.agreement = Agreement::kPart;
    state.Set({place.begin, place.end, padding});
  }
  for (const StateEntry& entry : plan_.state) {
    Piece own = OwnPart(entry, rank);
    if (own.begin >= own.end) continue;
    if (!entry.bounds.empty()) {
      state.Set(own);
      continue;
    }
    // What was summed over micro-batches only.
    if (entry.kind == "accumulator") own.content.agreement = Agreement::kOwn;
    for (ByteRange part :
         GapFree(ValueAt(entry.value), {true, own.begin, own.end})) {
      own.begin = Signed(part.begin);
      own.end = Signed(part.end);
      state.Set(own);
    }
  }
}

}  // namespace heddle::plan
