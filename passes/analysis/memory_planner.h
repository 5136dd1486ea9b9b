// Buffers with lifetimes -> offsets in one arena.
// Invariant: two requests whose lifetimes meet never share a byte; every offset
// is a multiple of the alignment; equal requests give equal offsets on every
// machine. What would break it: a lifetime that ends before the last step that
// touches the buffer.
#ifndef HEDDLE_PASSES_ANALYSIS_MEMORY_PLANNER_H_
#define HEDDLE_PASSES_ANALYSIS_MEMORY_PLANNER_H_

#include <cstdint>
#include <vector>

namespace heddle {

struct BufferRequest {
  int64_t bytes = 0;
  // First and last step that touch the buffer, both included.
  int64_t first = 0;
  int64_t last = 0;
  // Steps, around those two, in which another stream may be at work on it: a
  // buffer that shares bytes with this one before `since` or after `until`
  // makes no stream wait for another. Two buffers of which the first is over on
  // the stream that the second begins on follow each other in any case.
  int64_t since = first;
  int64_t until = last;
  int firstStream = 0;
  int lastStream = 0;
};

struct MemoryPlan {
  std::vector<int64_t> offsets;
  int64_t arenaBytes = 0;
  // The largest sum of (aligned) bytes touched at or around one step, other
  // streams left aside: no plan can be smaller.
  int64_t lowerBound = 0;
};

MemoryPlan planMemory(const std::vector<BufferRequest>& requests,
                      int64_t alignment);

}  // namespace heddle

#endif  // HEDDLE_PASSES_ANALYSIS_MEMORY_PLANNER_H_
