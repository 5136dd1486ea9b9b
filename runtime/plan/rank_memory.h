// The memory of all ranks as the checker sees it that runs a plan without
// numbers (verify_ranks.cc): what each byte is, not what it holds.

#ifndef HEDDLE_RUNTIME_PLAN_RANK_MEMORY_H_
#define HEDDLE_RUNTIME_PLAN_RANK_MEMORY_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/plan/contents.h"
#include "runtime/plan/plan.h"

namespace heddle::plan {

// Where a value lies on a rank: addresses count from its arena's start.
struct Place {
  bool exists = false;
  int64_t begin = 0;
  int64_t end = 0;
  bool operator==(const Place& other) const {
    return exists == other.exists && begin == other.begin && end == other.end;
  }
};

class RankMemory {
 public:
  explicit RankMemory(const Plan& plan);

  // As a section finds it: nothing in scratch, every tensor in the state.
  void Reset();

  int64_t ranks() const { return static_cast<int64_t>(memory_.size()); }
  // Tensors of the state are numbered from 0; everybody else's come after.
  int64_t names() const { return static_cast<int64_t>(names_.size()); }
  int64_t NumberOf(const StateEntry& entry) const {
    return names_.at(entry.names[0]);
  }
  bool IsNamed(const Content& content) const {
    return content.tensor >= 0 && content.tensor < names();
  }
  std::string TensorName(int64_t tensor) const;

  const Value& ValueAt(int64_t index) const {
    return plan_.values[static_cast<size_t>(index)];
  }
  Arena ArenaOf(const Value& value) const {
    return plan_.buffers[value.buffer].arena;
  }
  // Does not exist for -1, for a value that the rank does not have and for one
  // without elements.
  Place PlaceOf(int64_t value, int64_t rank) const;

  // What the value's bytes are; those that nobody wrote are left out.
  std::vector<Piece> Read(int64_t value, int64_t rank) const;
  // Elements [from, to) of a dense value.
  std::vector<Piece> ReadElements(int64_t value, int64_t rank, int64_t from,
                                  int64_t to) const;
  // Makes all of the value's bytes the same.
  void Write(int64_t value, int64_t rank, Content content);
  // Makes the value's first `bytes` these pieces, and of no tensor between
  // them.
  void Put(int64_t value, int64_t rank, int64_t bytes,
           const std::vector<Piece>& pieces);

  // The bytes of the entry's own tensor on the rank, and where its first
  // element is or would be; empty where the rank holds none.
  Piece OwnPart(const StateEntry& entry, int64_t rank) const;
  std::vector<Piece> ReadState(const Piece& range, int64_t rank) const;

 private:
  struct Memory {
    Contents scratch;
    Contents state;
  };

  // nullptr for arenas that no step writes.
  const Contents* ContentsOf(const Value& value, int64_t rank) const;
  Contents* ContentsOf(const Value& value, int64_t rank);
  // The value's gap-free pieces at a place of it.
  std::vector<ByteRange> GapFree(const Value& value, Place place) const;
  void FillState(int64_t rank);

  const Plan& plan_;
  std::vector<Memory> memory_;
  std::map<std::string, int64_t> names_;
};

}  // namespace heddle::plan

#endif  // HEDDLE_RUNTIME_PLAN_RANK_MEMORY_H_
