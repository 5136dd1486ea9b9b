// What the steps of a section touch, byte for byte, and which steps are known
// to be over when another starts. Invariant: two steps conflict if at least one
// writes and they touch a common byte of one buffer, or two buffers that share
// bytes. What would break it: an access that is not an operand of its step.
#ifndef HEDDLE_PASSES_ANALYSIS_STEP_ORDER_H_
#define HEDDLE_PASSES_ANALYSIS_STEP_ORDER_H_

#include <cstdint>

#include "ir/sched/Sched.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/SmallVector.h"

namespace heddle {

struct Access {
  sched::BufferOp buffer;
  int64_t begin, end;  // bytes from the buffer's start
  bool write;
};

llvm::SmallVector<Access> accessesOf(sched::StepInterface step);
bool conflict(llvm::ArrayRef<Access> a, llvm::ArrayRef<Access> b);

// First and last step (indices in the section) that touch each scratch buffer;
// buffers of results last until one past the last step.
struct Lifetime {
  int64_t first = -1;
  int64_t last = -1;
};
llvm::DenseMap<mlir::Operation*, Lifetime> lifetimesOf(
    sched::SectionOp section);
llvm::SmallVector<sched::StepInterface> stepsOf(sched::SectionOp section);

// Per stream, the last step that is over before a step starts. Fed with steps
// in order.
class StreamClock {
 public:
  explicit StreamClock(size_t streams)
      : ofStream(streams, llvm::SmallVector<int64_t>(streams, -1)) {}

  // The clock that step `index` starts under: the previous steps of its stream
  // and what its waits bring.
  void start(int64_t index, sched::StepInterface step);
  // True if step `earlier` of `stream` is over before the step given to `start`
  // last.
  bool over(int64_t earlier, uint64_t stream) const {
    return lastOver(stream) >= earlier;
  }
  // The last step of `stream` that is over by then, -1 if none is.
  int64_t lastOver(uint64_t stream) const { return current[stream]; }
  // The running step also waits for step `earlier`, which signals `event`.
  void join(int64_t earlier);
  void finish();

 private:
  llvm::SmallVector<llvm::SmallVector<int64_t>> ofStream;
  // Clocks at the end of every step.
  llvm::SmallVector<llvm::SmallVector<int64_t>> ends;
  llvm::DenseMap<int64_t, int64_t> signalledBy;
  llvm::SmallVector<int64_t> current;
  sched::StepInterface running;
  int64_t runningIndex = -1;
};

}  // namespace heddle

#endif  // HEDDLE_PASSES_ANALYSIS_STEP_ORDER_H_
