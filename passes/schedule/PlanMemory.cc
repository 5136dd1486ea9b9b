// Buffers -> offsets. Invariant: state, inputs and constants keep program
// order, scratch is planned per section from the steps that touch it. A step
// that touched a buffer without naming it as an operand would lose its bytes.
#include "passes/analysis/memory_planner.h"
#include "passes/analysis/step_order.h"
#include "passes/schedule/Passes.h"

namespace heddle {

#define GEN_PASS_DEF_PLANMEMORY
#include "passes/schedule/Passes.h.inc"

namespace {

struct PlanMemoryPass : impl::PlanMemoryBase<PlanMemoryPass> {
  void runOnOperation() final {
    placeInOrder(getOperation());
    for (auto section :
         getOperation().getBody().front().getOps<sched::SectionOp>())
      placeScratch(section);
  }

  static void placeInOrder(sched::PlanOp plan) {
    llvm::DenseMap<int, int64_t> end;
    for (auto buffer : plan.getBody().front().getOps<sched::BufferOp>()) {
      int64_t& at = end[static_cast<int>(buffer.getArena())];
      buffer.setOffset(at);
      at += sched::alignUp(buffer.getBytes());
    }
  }

  static void placeScratch(sched::SectionOp section) {
    auto lifetimes = lifetimesOf(section);
    llvm::SmallVector<sched::BufferOp> buffers;
    std::vector<BufferRequest> requests;
    for (auto buffer : section.getBody().front().getOps<sched::BufferOp>()) {
      Lifetime lifetime = lifetimes.lookup(buffer);
      buffers.push_back(buffer);
      requests.push_back({static_cast<int64_t>(buffer.getBytes()),
                          lifetime.first, lifetime.last});
    }
    MemoryPlan memory = planMemory(requests, sched::kAlignment);
    for (auto [buffer, offset] : llvm::zip(buffers, memory.offsets))
      buffer.setOffset(offset);
    section.setScratchBytes(memory.arenaBytes);
    section.setLiveLowerBound(memory.lowerBound);
  }
};

}  // namespace
}  // namespace heddle
