// What several ranks' flight records say together: who keeps the others
// waiting, and where. Invariant: a pure function of the dumps; the ranks of a
// running job and heddle-inspect over their files reach the same verdict.

#ifndef HEDDLE_RUNTIME_TRACE_VERDICT_H_
#define HEDDLE_RUNTIME_TRACE_VERDICT_H_

#include <map>
#include <string>
#include <vector>

#include "runtime/trace/flight_recorder.h"

namespace heddle::trace {

enum class Finding {
  kNothing,   // no collective waits and no rank failed
  kFailed,    // `ranks` ended by an error of their own
  kMissing,   // a collective waits for `ranks`
  kMismatch,  // `ranks` issued something else than the others
  kCycle,     // `ranks` wait for each other in different groups
  kStuck      // all take part, and it does not end
};

struct Verdict {
  Finding finding = Finding::kNothing;
  std::vector<int> ranks;
  // The collective it is about; empty group if there is none.
  std::string group;
  int64_t sequence = 0;
  // One line for people.
  std::string text;
};

// `dumps` by rank; a rank of the `world` without a dump gave no sign of life.
Verdict Judge(int world, const std::map<int, Dump>& dumps);

// The collectives that one rank waits in, or that it waits in none.
std::string WaitingText(const Dump& dump);

}  // namespace heddle::trace

#endif  // HEDDLE_RUNTIME_TRACE_VERDICT_H_
