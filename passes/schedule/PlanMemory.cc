// Buffers -> offsets. Invariant: state, inputs and constants keep program
// order, scratch is planned per section from the steps that touch it, and what
// another stream may still be at work on is used again only where memory asks
// for it. A step that touched a buffer without naming it as an operand would
// lose its bytes.
#include <algorithm>
#include <deque>
#include <limits>
#include <numeric>

#include "llvm/ADT/DenseMap.h"
#include "passes/analysis/memory_planner.h"
#include "passes/analysis/step_order.h"
#include "passes/schedule/Passes.h"

namespace heddle {

#define GEN_PASS_DEF_PLANMEMORY
#include "passes/schedule/Passes.h.inc"

namespace {

// Which steps of other streams run beside those of the compute stream (0), by
// the values that steps hand on alone: offsets order nothing yet.
class Concurrency {
 public:
  Concurrency(sched::SectionOp section, size_t streams) : streams(streams) {
    StreamClock clock(streams);
    for (auto [index, step] : llvm::enumerate(stepsOf(section))) {
      clock.start(index, step);
      llvm::SmallVector<Access> accesses = accessesOf(step);
      for (const Access& access : accesses)
        waitForOthers(clock, step.getStream(), access);
      Step& known = steps.emplace_back();
      known.stream = step.getStream();
      for (size_t s = 0; s < streams; ++s)
        known.over.push_back(clock.lastOver(s));
      if (known.stream == 0) compute.push_back(index);
      for (const Access& access : accesses)
        touches[access.buffer].push_back({static_cast<int64_t>(index), access});
      if (known.stream != 0 && mlir::isa<sched::CollectiveOp>(*step))
        for (mlir::Value ref : step.getReads())
          sends[sched::bufferOf(ref)] +=
              sched::geometryOf(mlir::cast<sched::RefType>(ref.getType()))
                  .elements();
      clock.finish();
    }
  }

  BufferRequest request(sched::BufferOp buffer, Lifetime lifetime) const {
    BufferRequest request{static_cast<int64_t>(buffer.getBytes()),
                          lifetime.first, lifetime.last};
    auto known = touches.find(buffer);
    if (known == touches.end()) return request;
    const Step& first = steps[known->second.front().step];
    const int64_t last = known->second.back().step;
    request.firstStream = first.stream;
    request.lastStream = steps[last].stream;
    // A step that waits for computation runs as soon as that is over. One that
    // waits for none stands where it is meant to run.
    if (first.stream != 0 && first.over[0] >= 0)
      request.since = first.over[0] + 1;
    for (const Touch& touch : known->second) {
      const Step& step = steps[touch.step];
      if (step.over[first.stream] < lifetime.first &&
          step.stream != first.stream)
        request.firstStream = kSeveral;
      if (steps[last].over[step.stream] < touch.step &&
          step.stream != steps[last].stream)
        request.lastStream = kSeveral - 1;
      if (step.stream != 0)
        request.until = std::max(request.until, lastBeside(touch.step));
    }
    return request;
  }

  // Elements of `buffer` that collectives of other streams send.
  int64_t sent(sched::BufferOp buffer) const { return sends.lookup(buffer); }

  // The step at which other streams may begin to work on what the compute
  // stream left in `buffer`.
  int64_t ready(sched::BufferOp buffer) const {
    int64_t ready = 0;
    auto known = touches.find(buffer);
    if (known == touches.end()) return ready;
    for (const Touch& touch : known->second) {
      const Step& step = steps[touch.step];
      ready =
          std::max(ready, step.stream == 0 ? touch.step + 1 : step.over[0] + 1);
    }
    return ready;
  }

 private:
  // No stream: not all of the buffer's steps follow the first one's, or are
  // over with the last one's.
  static constexpr int kSeveral = -1;

  struct Step {
    uint64_t stream = 0;
    // Per stream, the last step that is over before this one starts.
    llvm::SmallVector<int64_t, 4> over;
  };
  struct Touch {
    int64_t step;
    Access access;
  };

  void waitForOthers(StreamClock& clock, uint64_t stream,
                     const Access& access) {
    auto known = touches.find(access.buffer);
    if (known == touches.end()) return;
    for (const Touch& touch : llvm::reverse(known->second)) {
      const uint64_t other = steps[touch.step].stream;
      if (other != stream && !clock.over(touch.step, other) &&
          conflict(touch.access, access))
        clock.join(touch.step);
    }
  }

  // The last step of the compute stream that may run beside `step`, or one past
  // the section's last.
  int64_t lastBeside(int64_t step) const {
    auto after = std::lower_bound(
        compute.begin(), compute.end(), step, [&](int64_t each, int64_t) {
          return steps[each].over[steps[step].stream] < step;
        });
    return after == compute.end() ? steps.size() : *after - 1;
  }

  size_t streams;
  std::vector<Step> steps;
  // Steps of the compute stream: what is over only grows along it.
  std::vector<int64_t> compute;
  llvm::DenseMap<mlir::Operation*, std::vector<Touch>> touches;
  llvm::DenseMap<mlir::Operation*, int64_t> sends;
};

// Scratch of one section, each buffer's bytes its own for as long as another
// stream may be at work on them.
class ScratchPlan {
 public:
  ScratchPlan(sched::SectionOp section, size_t streams) {
    Concurrency beside(section, streams);
    auto lifetimes = lifetimesOf(section);
    for (auto buffer : section.getBody().front().getOps<sched::BufferOp>()) {
      buffers.push_back(buffer);
      requests.push_back(beside.request(buffer, lifetimes.lookup(buffer)));
      sent.push_back(beside.sent(buffer));
      ready.push_back(beside.ready(buffer));
    }
    for (auto [i, request] : llvm::enumerate(requests))
      if (request.until > request.last) held.push_back(i);
    llvm::stable_sort(held, [&](int a, int b) {
      return requests[a].last < requests[b].last;
    });
  }

  // At most `most` elements on their way keep their bytes: fewer where the
  // arena would exceed `budget`, more where that makes it no larger.
  MemoryPlan plan(int64_t most, int64_t budget) const {
    const int64_t all = std::accumulate(sent.begin(), sent.end(), int64_t{0});
    std::vector<BufferRequest> touched;
    for (const BufferRequest& request : requests)
      touched.push_back({request.bytes, request.first, request.last});
    if (all == 0) return planMemory(touched, sched::kAlignment);
    for (int64_t some = std::min(most, all); some > 0; some /= 2) {
      MemoryPlan memory = planMemory(holding(some), sched::kAlignment);
      if (memory.arenaBytes > budget) continue;
      for (int64_t more = all; more > some; more /= 2) {
        MemoryPlan wider = planMemory(holding(more), sched::kAlignment);
        if (wider.arenaBytes <= memory.arenaBytes) return wider;
      }
      return memory;
    }
    return planMemory(touched, sched::kAlignment);
  }

  void write(sched::SectionOp section, const MemoryPlan& memory) {
    for (auto [buffer, offset] : llvm::zip(buffers, memory.offsets))
      buffer.setOffset(offset);
    section.setScratchBytes(memory.arenaBytes);
    section.setLiveLowerBound(memory.lowerBound);
  }

 private:
  // The requests where the oldest give up their bytes when more than `most`
  // elements would be on their way.
  std::vector<BufferRequest> holding(int64_t most) const {
    std::vector<BufferRequest> result = requests;
    std::deque<int> kept;
    int64_t elements = 0;
    auto drop = [&](int64_t until) {
      BufferRequest& oldest = result[kept.front()];
      oldest.until = std::max(oldest.last, std::min(oldest.until, until));
      elements -= sent[kept.front()];
      kept.pop_front();
    };
    for (int i : held) {
      while (!kept.empty() && result[kept.front()].until < ready[i])
        drop(ready[i] - 1);
      kept.push_back(i);
      elements += sent[i];
      while (elements > most) {
        drop(ready[i] - 1);
        // What they became goes with them.
        while (!kept.empty() && sent[kept.front()] == 0) drop(ready[i] - 1);
      }
    }
    return result;
  }

  llvm::SmallVector<sched::BufferOp> buffers;
  std::vector<BufferRequest> requests;
  // Of each buffer: elements that collectives send, and from which step on.
  std::vector<int64_t> sent, ready;
  // Buffers that other streams may be at work on after their last step in
  // program order, in the order of that step.
  std::vector<int> held;
};

struct PlanMemoryPass : impl::PlanMemoryBase<PlanMemoryPass> {
  using PlanMemoryBase::PlanMemoryBase;

  void runOnOperation() final {
    sched::PlanOp plan = getOperation();
    const int64_t resident = placeInOrder(plan);
    const int64_t limit = memory != 0 ? memory : deviceMemory / 10 * 9;
    const int64_t budget =
        limit == 0 ? std::numeric_limits<int64_t>::max() : limit - resident;
    for (auto section : plan.getBody().front().getOps<sched::SectionOp>()) {
      ScratchPlan scratch(section, plan.getStreams().size());
      scratch.write(section, scratch.plan(reducing, budget));
    }
  }

  // The bytes of all of them.
  static int64_t placeInOrder(sched::PlanOp plan) {
    int64_t all = 0;
    llvm::DenseMap<int, int64_t> end;
    for (auto buffer : plan.getBody().front().getOps<sched::BufferOp>()) {
      const int64_t bytes = sched::alignUp(buffer.getBytes());
      int64_t& at = end[static_cast<int>(buffer.getArena())];
      buffer.setOffset(at);
      at += bytes;
      all += bytes;
    }
    return all;
  }
};

}  // namespace
}  // namespace heddle
