// Checks a placed schedule and changes nothing. Invariant: the same rules as
// the plan checker's, on IR, with both places named in every error. It trusts
// operands: an access that is not an operand is invisible to it.
#include <set>

#include "passes/analysis/step_order.h"
#include "passes/schedule/Passes.h"

namespace heddle {

#define GEN_PASS_DEF_VERIFYSCHEDULE
#include "passes/schedule/Passes.h.inc"

namespace {

using mlir::failure;
using mlir::LogicalResult;
using mlir::success;

struct Placed {
  sched::BufferOp buffer;
  Lifetime lifetime;
};

LogicalResult overlapError(sched::BufferOp a, sched::BufferOp b) {
  auto error = b.emitOpError("at ")
               << *b.getOffset() << " with " << b.getBytes()
               << " bytes overlaps a live buffer at " << *a.getOffset()
               << " with " << a.getBytes() << " bytes (sched_verify_r2)";
  error.attachNote(a.getLoc()) << "other buffer here";
  return error;
}

// sched_verify_r2 for buffers sorted by what happens when: a sweep over steps
// keeps the live ones sorted by offset.
LogicalResult verifyDisjoint(llvm::ArrayRef<Placed> placed) {
  llvm::SmallVector<std::tuple<int64_t, int, size_t>> changes;
  for (auto [i, p] : llvm::enumerate(placed)) {
    sched::BufferOp buffer = p.buffer;
    if (buffer.getBytes() == 0 || p.lifetime.first < 0) continue;
    changes.push_back({p.lifetime.first, 1, i});
    changes.push_back({p.lifetime.last + 1, 0, i});
  }
  llvm::sort(changes);
  std::set<std::pair<uint64_t, size_t>> live;
  for (auto [step, starts, i] : changes) {
    sched::BufferOp buffer = placed[i].buffer;
    uint64_t begin = *buffer.getOffset();
    if (!starts) {
      live.erase({begin, i});
      continue;
    }
    auto next = live.lower_bound({begin, 0});
    if (next != live.end() && next->first < begin + buffer.getBytes())
      return overlapError(placed[next->second].buffer, buffer);
    if (next != live.begin()) {
      sched::BufferOp before = placed[std::prev(next)->second].buffer;
      if (*before.getOffset() + before.getBytes() > begin)
        return overlapError(before, buffer);
    }
    live.insert({begin, i});
  }
  return success();
}

LogicalResult verifySection(sched::SectionOp section, size_t streams) {
  auto lifetimes = lifetimesOf(section);
  llvm::SmallVector<Placed> placed;
  for (auto buffer : section.getBody().front().getOps<sched::BufferOp>())
    placed.push_back({buffer, lifetimes.lookup(buffer)});
  if (failed(verifyDisjoint(placed))) return failure();

  auto steps = stepsOf(section);
  llvm::DenseSet<mlir::Operation*> written;
  llvm::SmallVector<llvm::SmallVector<Access>> accesses;
  StreamClock clock(streams);
  for (auto [index, step] : llvm::enumerate(steps)) {
    accesses.push_back(accessesOf(step));
    for (const Access& access : accesses.back()) {
      sched::BufferOp buffer = access.buffer;
      if (access.write || buffer.getArena() != sched::Arena::Scratch ||
          access.begin >= access.end || written.contains(buffer))
        continue;
      auto error = step->emitOpError(
          "reads scratch bytes that no earlier step wrote (sched_verify_r3)");
      error.attachNote(buffer.getLoc()) << "buffer named here";
      return error;
    }
    for (const Access& access : accesses.back())
      if (access.write) written.insert(access.buffer);
    if (streams == 1) continue;
    clock.start(index, step);
    for (size_t earlier = 0; earlier < index; ++earlier) {
      if (clock.over(earlier, steps[earlier].getStream()) ||
          !conflict(accesses[earlier], accesses[index]))
        continue;
      auto error = step->emitOpError("touches the bytes of a step on stream ")
                   << steps[earlier].getStream()
                   << " without waiting for it (sched_verify_r4)";
      error.attachNote(steps[earlier]->getLoc()) << "other step here";
      return error;
    }
    clock.finish();
  }
  return success();
}

struct VerifySchedulePass : impl::VerifyScheduleBase<VerifySchedulePass> {
  void runOnOperation() final {
    sched::PlanOp plan = getOperation();
    auto result = plan.walk([](sched::BufferOp buffer) {
      if (buffer.getOffset()) return mlir::WalkResult::advance();
      buffer.emitOpError("has no offset (sched_verify_r1)");
      return mlir::WalkResult::interrupt();
    });
    if (result.wasInterrupted()) return signalPassFailure();
    std::array<llvm::SmallVector<Placed>, 4> arenas;
    for (auto buffer : plan.getBody().front().getOps<sched::BufferOp>())
      arenas[static_cast<size_t>(buffer.getArena())].push_back(
          {buffer, {0, 0}});
    for (auto& arena : arenas)
      if (failed(verifyDisjoint(arena))) return signalPassFailure();
    for (auto section : plan.getBody().front().getOps<sched::SectionOp>())
      if (failed(verifySection(section, plan.getStreams().size())))
        return signalPassFailure();
    markAllAnalysesPreserved();
  }
};

}  // namespace
}  // namespace heddle
