// Byte accesses, lifetimes and vector clocks of a section's steps. Invariant:
// clocks only grow; a step's end clock holds its own index under its stream.
// Feeding steps out of order would lose what their waits bring.
#include "passes/analysis/step_order.h"

#include <algorithm>

namespace heddle {

llvm::SmallVector<Access> accessesOf(sched::StepInterface step) {
  llvm::SmallVector<Access> result;
  auto add = [&](mlir::Value ref, bool write) {
    sched::Extent extent = sched::extentOf(ref);
    result.push_back({sched::bufferOf(ref), extent.begin, extent.end, write});
  };
  for (mlir::Value ref : step.getReads()) add(ref, false);
  for (mlir::Value ref : step.getWrites()) add(ref, true);
  return result;
}

bool conflict(llvm::ArrayRef<Access> a, llvm::ArrayRef<Access> b) {
  for (const Access& x : a) {
    for (const Access& y : b) {
      if (!x.write && !y.write) continue;
      sched::BufferOp p = x.buffer, q = y.buffer;
      if (p.getArena() != q.getArena() || p.getSpace() != q.getSpace())
        continue;
      if (p == q) {
        if (x.begin < y.end && y.begin < x.end) return true;
        continue;
      }
      // Unplaced buffers share nothing. Placed ones do as wholes: what lies in
      // one must be over before anything of the other begins.
      if (!p.getOffset() || !q.getOffset()) continue;
      int64_t pBegin = *p.getOffset(), qBegin = *q.getOffset();
      if (pBegin < qBegin + static_cast<int64_t>(q.getBytes()) &&
          qBegin < pBegin + static_cast<int64_t>(p.getBytes()))
        return true;
    }
  }
  return false;
}

llvm::SmallVector<sched::StepInterface> stepsOf(sched::SectionOp section) {
  llvm::SmallVector<sched::StepInterface> steps;
  for (mlir::Operation& op : section.getBody().front())
    if (auto step = mlir::dyn_cast<sched::StepInterface>(op))
      steps.push_back(step);
  return steps;
}

llvm::DenseMap<mlir::Operation*, Lifetime> lifetimesOf(
    sched::SectionOp section) {
  llvm::DenseMap<mlir::Operation*, Lifetime> lifetimes;
  auto touch = [&](mlir::Value ref, int64_t index) {
    sched::BufferOp buffer = sched::bufferOf(ref);
    if (buffer.getArena() != sched::Arena::Scratch) return;
    Lifetime& lifetime = lifetimes[buffer];
    if (lifetime.first < 0) lifetime.first = index;
    lifetime.last = index;
  };
  int64_t index = 0;
  for (sched::StepInterface step : stepsOf(section)) {
    for (mlir::Value operand : step->getOperands()) touch(operand, index);
    ++index;
  }
  for (auto result : section.getBody().front().getOps<sched::ResultOp>())
    touch(result.getValue(), index);
  return lifetimes;
}

void StreamClock::start(int64_t index, sched::StepInterface step) {
  running = step;
  runningIndex = index;
  current = ofStream[step.getStream()];
  for (int64_t event : step.getWaits()) join(signalledBy.lookup(event));
}

void StreamClock::join(int64_t earlier) {
  for (size_t s = 0; s < current.size(); ++s)
    current[s] = std::max(current[s], ends[earlier][s]);
}

void StreamClock::finish() {
  current[running.getStream()] = runningIndex;
  ofStream[running.getStream()] = current;
  ends.push_back(current);
  if (std::optional<uint64_t> event = running.getSignal())
    signalledBy[*event] = runningIndex;
}

}  // namespace heddle
