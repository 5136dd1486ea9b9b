// Which bytes a step touches and which step is known to come before which: the
// two facts that the checker's rules are made of.

#ifndef HEDDLE_RUNTIME_PLAN_ACCESS_H_
#define HEDDLE_RUNTIME_PLAN_ACCESS_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/plan/plan.h"

namespace heddle::plan {

// One use of one value by one step. `step` equal to the number of steps stands
// for the caller, who reads the results when all streams are done.
struct Access {
  uint32_t step = 0;
  uint32_t value = 0;
  bool write = false;
  ByteRange bytes;
  // True if it is exactly `bytes`, not the value's elements, that are touched:
  // a rank's part of what a collective names.
  bool exact = false;
};

// The uses of every buffer of a section on the rank with this coordinate, in
// the section's global order; within a step reads come before writes.
std::map<uint32_t, std::vector<Access>> CollectAccesses(const Plan& plan,
                                                        const Section& section,
                                                        int64_t coordinate = 0);

// True if some value of the buffer lies elsewhere on another rank, or if a
// collective touches it: its accesses differ between ranks.
std::vector<bool> BuffersThatDifferByRank(const Plan& plan);

// Vector clocks over the streams of a section.
class HappensBefore {
 public:
  // FailedPrecondition (plan_event) if an event is signalled twice, never, or
  // after somebody waits for it.
  static absl::StatusOr<HappensBefore> Create(const Plan& plan,
                                              const Section& section);
  // True if step `a` is done before step `b` starts, whatever the streams'
  // speeds. A step is not before itself; everything is before the caller.
  bool operator()(uint32_t a, uint32_t b) const;

 private:
  size_t streams_ = 0;
  std::vector<uint16_t> stream_;
  std::vector<uint32_t> position_;  // 1-based place of a step in its stream
  std::vector<uint32_t> clocks_;    // [step][stream]: how many steps of the
                                    // stream are done before the step starts
};

// A set of bytes.
class ByteSet {
 public:
  void Add(ByteRange range);
  bool Covers(ByteRange range) const;
  // True if any byte is in both.
  bool Meets(ByteRange range) const;

 private:
  std::map<uint64_t, uint64_t>
      ranges_;  // begin -> end, disjoint and not touching
};

// The value's bytes as gap-free pieces. A value of very many pieces is given as
// its span: right for a layout that leaves gaps only in padding.
std::vector<ByteRange> PiecesOf(const Value& value, int64_t coordinate = 0);
std::vector<ByteRange> PiecesOf(const Plan& plan, const Access& access,
                                int64_t coordinate = 0);

}  // namespace heddle::plan

#endif  // HEDDLE_RUNTIME_PLAN_ACCESS_H_
