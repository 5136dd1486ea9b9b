// Streams as queues: when steps run, what of the collectives nobody hides, and
// where collectives should stand so that work does. Plain arithmetic, no IR.
// Invariant: a placement never reorders collectives of one stream and never
// puts one behind what needs it. What would break it: a position counted in
// steps that themselves move.
#ifndef HEDDLE_PASSES_ANALYSIS_OVERLAP_H_
#define HEDDLE_PASSES_ANALYSIS_OVERLAP_H_

#include <cstdint>
#include <vector>

namespace heddle {

// ---- When things run ----

struct Task {
  int stream = 0;
  double seconds = 0;
  // Moves data between ranks.
  bool collective = false;
  // Earlier tasks that must be over first.
  std::vector<int> after;
};

struct Timeline {
  std::vector<double> start;
  // The end of the last task.
  double end = 0;
  // Of all collectives, added up.
  double collectives = 0;
  // Time in which a collective runs and nothing else does.
  double exposed = 0;
};

// Tasks in one order; a stream runs its own one after another.
Timeline simulate(const std::vector<Task>& tasks);

// ---- Where collectives stand ----

// Work that stays where it is is counted in slots: slot i begins at begins[i],
// and begins has one entry more, the end of all work.

struct Limits {
  // Elements on their way ahead of their use at which no further gather is
  // issued, and elements gathered at which none is issued ahead.
  int64_t prefetch = 0;
  int64_t maxLive = 0;
  // Elements of gradients being reduced beside work.
  int64_t reducing = 0;
};

struct Gather {
  // First slot it may stand before, the one that first reads it, the last one.
  int earliest = 0;
  int use = 0;
  int last = 0;
  int64_t elements = 0;
  double seconds = 0;
};

// The slot that each gather, given in order, is issued before: as late as hides
// it behind the work up to its use, as early as the limits allow.
std::vector<int> placeGathers(const std::vector<double>& begins,
                              const std::vector<Gather>& gathers,
                              const Limits& limits);

struct Reduction {
  // The slot before which its operand is complete, and the last it may stand
  // before.
  int ready = 0;
  int latest = 0;
  int64_t elements = 0;
  double seconds = 0;
};

// The slot that each reduction, given in order, keeps its bytes until: the
// first that begins when the reduction is over.
std::vector<int> placeReductions(const std::vector<double>& begins,
                                 const std::vector<Reduction>& reductions,
                                 const Limits& limits);

// ---- What stays gathered ----

struct Keepable {
  int64_t bytes = 0;
  double seconds = 0;  // saved by keeping it
};

// The choice of most seconds: of items 0 to k together no more than room[k]
// bytes, for every k. Items stand outermost first: what one is kept over
// contains what the next is kept over. Exact to a thousandth of a promille of
// the room.
std::vector<bool> chooseKept(const std::vector<Keepable>& items,
                             const std::vector<int64_t>& room);

}  // namespace heddle

#endif  // HEDDLE_PASSES_ANALYSIS_OVERLAP_H_
