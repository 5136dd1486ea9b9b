// What bytes hold, as far as ranks are concerned: the memory of the checker
// that runs a plan without numbers (verify_ranks.cc).

#ifndef HEDDLE_RUNTIME_PLAN_CONTENTS_H_
#define HEDDLE_RUNTIME_PLAN_CONTENTS_H_

#include <cstdint>
#include <map>
#include <vector>

#include "runtime/plan/plan.h"

namespace heddle::plan {

// Ascending: what is made of several is as different as the most different.
enum class Agreement : int8_t {
  kSame,  // the same on every rank
  kPart,  // the rank's part of something that all ranks agree on
  kOwn,   // the rank's own: made from its inputs or its random numbers
};

// Bytes of one tensor: the element at address `a` is number
// (a - origin) / element of `tensor`, -1 for bytes of no tensor.
struct Content {
  Agreement agreement = Agreement::kSame;
  bool reduced = false;  // a sum over the ranks, as it came out of a reduction
  bool summed = false;   // made from such sums
  bool picked = false;   // made from what one rank alone has
  int64_t tensor = -1;
  int64_t origin = 0;
  int64_t element = 1;
};

struct Piece {
  int64_t begin = 0;
  int64_t end = 0;
  Content content;
};

// The bytes of one arena on one rank.
class Contents {
 public:
  void Set(Piece piece);
  // What [begin, end) holds, clipped to it, in ascending order; bytes that
  // nothing was set for are left out.
  std::vector<Piece> Get(int64_t begin, int64_t end) const;
  void Clear() { pieces_.clear(); }

 private:
  std::map<int64_t, Piece> pieces_;  // by begin, disjoint
};

// Pieces moved by `bytes`; elements keep their numbers.
std::vector<Piece> Moved(std::vector<Piece> pieces, int64_t bytes);

}  // namespace heddle::plan

#endif  // HEDDLE_RUNTIME_PLAN_CONTENTS_H_
