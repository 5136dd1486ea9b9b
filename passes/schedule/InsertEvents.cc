// Conflicts between streams -> events. Invariant: after it, every two
// conflicting steps of different streams are ordered by waits and stream order
// alone. Running it before memory is planned would miss conflicts between
// buffers that share bytes.
#include "passes/analysis/step_order.h"
#include "passes/schedule/Passes.h"

namespace heddle {

#define GEN_PASS_DEF_INSERTEVENTS
#include "passes/schedule/Passes.h.inc"

namespace {

struct InsertEventsPass : impl::InsertEventsBase<InsertEventsPass> {
  void runOnOperation() final {
    size_t streams = getOperation().getStreams().size();
    if (streams == 1) return;
    for (auto section :
         getOperation().getBody().front().getOps<sched::SectionOp>())
      order(section, streams);
  }

  static void order(sched::SectionOp section, size_t streams) {
    auto steps = stepsOf(section);
    llvm::SmallVector<llvm::SmallVector<Access>> accesses;
    StreamClock clock(streams);
    int64_t events = section.getEvents();
    for (auto [index, step] : llvm::enumerate(steps)) {
      accesses.push_back(accessesOf(step));
      clock.start(index, step);
      llvm::SmallVector<int64_t> waits(step.getWaits());
      // Latest first: waiting for it often covers the earlier ones.
      for (int64_t earlier = static_cast<int64_t>(index) - 1; earlier >= 0;
           --earlier) {
        if (clock.over(earlier, steps[earlier].getStream()) ||
            !conflict(accesses[earlier], accesses[index]))
          continue;
        if (!steps[earlier].getSignal()) steps[earlier].setSignal(events++);
        waits.push_back(*steps[earlier].getSignal());
        clock.join(earlier);
      }
      step.setWaits(waits);
      clock.finish();
    }
    section.setEvents(events);
  }
};

}  // namespace
}  // namespace heddle
