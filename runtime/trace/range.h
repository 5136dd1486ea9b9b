// Named ranges for profilers, in the NVTX domain "heddle". Invariant: every
// push has its pop on the same thread, on every way out of a scope. Without
// NVTX a range costs one atomic load.

#ifndef HEDDLE_RUNTIME_TRACE_RANGE_H_
#define HEDDLE_RUNTIME_TRACE_RANGE_H_

#include <string>

namespace heddle::trace {

// Where ranges go; for tests, and for a trace of our own.
class RangeSink {
 public:
  virtual ~RangeSink() = default;
  virtual void Push(const char* name) = 0;
  virtual void Pop() = 0;
};

// Replaces NVTX until called with nullptr. The sink outlives every range that
// was opened while it was set.
void SetRangeSink(RangeSink* sink);

// Whether anybody looks: names need not be made where nobody does.
bool Watched();

// Open from construction to destruction.
class Range {
 public:
  explicit Range(const char* name);
  explicit Range(const std::string& name) : Range(name.c_str()) {}
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  // The one that saw the push sees the pop, whatever is set in between.
  RangeSink* const sink_;
};

}  // namespace heddle::trace

#endif  // HEDDLE_RUNTIME_TRACE_RANGE_H_
