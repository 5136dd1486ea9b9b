// One collective as plain data: what every rank of a group states when it takes
// part. Invariant: whatever Validate accepts, a backend carries out without
// reading or writing a byte outside the ranges computed here. What would break
// it: input and output that overlap in any other way than "in place" below.
//
// Counts are elements of `dtype`, positions are places in the group (not global
// ranks). Layouts, with W the size of the group and r the own position:
//
//   all_gather      input[count], output[W * count], slot i from position i.
//                   In place: input == output + r * count. `counts` instead of
//                   `count`: position i gives counts[i], slots lie end to end.
//   reduce_scatter  input[W * count], output[count]. In place: output == input
//                   + r * count. `counts`: position i receives counts[i].
//   all_reduce      input[count], output[count]. In place: the same address.
//   broadcast       input[count] at the root, output[count] everywhere. In
//   reduce          place: the same address. reduce writes at the root only.
//   all_to_all      even: slot i of input[W * count] goes to position i. Uneven
//                   (`send_counts`, `recv_counts`): slots lie end to end. With
//                   device counts slots are `count` apart (the capacity), the
//                   first device_send_counts[i] elements of slot i are sent,
//                   and device_recv_counts[i] is written beside the data; the
//                   rest of an output slot holds nothing that may be read.
//                   Never in place.
//
// Reductions: sum, max, min of F16, BF16, F32, F64, I8, U8, I32, I64; max and
// min of Bool (or, and). Integers wrap. Every other dtype moves but does not
// reduce. What max and min make of a NaN depends on the backend.

#ifndef HEDDLE_RUNTIME_COMM_COLLECTIVE_H_
#define HEDDLE_RUNTIME_COMM_COLLECTIVE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/plan/plan.h"

namespace heddle::comm {

enum class Kind : int8_t {
  kAllGather,
  kReduceScatter,
  kAllReduce,
  kAllToAll,
  kBroadcast,
  kReduce
};
enum class Reduction : int8_t { kSum, kMax, kMin };

// Where in the model a collective comes from; for messages and dumps.
struct Origin {
  std::string op;
  std::string module;
  std::string source;
};

struct Collective {
  Kind kind = Kind::kAllReduce;
  plan::DType dtype = plan::DType::kF32;
  Reduction reduction = Reduction::kSum;
  int root = 0;
  const void* input = nullptr;
  void* output = nullptr;
  int64_t count = 0;
  std::vector<int64_t> counts;
  std::vector<int64_t> send_counts;
  std::vector<int64_t> recv_counts;
  const int64_t* device_send_counts = nullptr;
  int64_t* device_recv_counts = nullptr;
  // Outlives the collective; nullptr if unknown.
  const Origin* origin = nullptr;
};

// A group of ranks as one of them sees it.
struct Group {
  std::string name;        // unique in the world, e.g. "dp.gather"
  std::vector<int> ranks;  // global ranks by position
  int position = 0;        // this rank's

  int size() const { return static_cast<int>(ranks.size()); }
  int rank() const { return ranks[position]; }
};

const char* KindName(Kind kind);
const char* ReductionName(Reduction reduction);
bool Reduces(Kind kind);

// Elements that `position` contributes to (all_gather) or receives from
// (reduce_scatter) the whole, and where its slot starts.
int64_t SlotCount(const Collective& c, int position);
int64_t SlotOffset(const Collective& c, int position);
// The same for the two sides of an all_to_all without device counts.
int64_t SendOffset(const Collective& c, int position);
int64_t SendCount(const Collective& c, int position);
int64_t RecvOffset(const Collective& c, int position);
int64_t RecvCount(const Collective& c, int position);

// Elements of the whole input and output of the rank at `position`; 0 where it
// has none.
int64_t InputElements(const Collective& c, int size, int position);
int64_t OutputElements(const Collective& c, int size, int position);
// Bytes of the larger of both: the figure that dumps and messages show.
int64_t PayloadBytes(const Collective& c, int size);

// InvalidArgument says what is wrong with the rank's own statement.
[[nodiscard]] absl::Status Validate(const Collective& c, const Group& group);

// What all positions must agree on as one line, e.g. "all_gather bf16 [3,4]";
// two collectives with equal signatures (and an all_to_all whose counts match
// crosswise) belong together.
std::string Signature(const Collective& c);

// Statements in the order of the layouts above.
Collective AllGather(const void* input, void* output, int64_t count,
                     plan::DType dtype);
Collective ReduceScatter(const void* input, void* output, int64_t count,
                         plan::DType dtype,
                         Reduction reduction = Reduction::kSum);
Collective AllReduce(const void* input, void* output, int64_t count,
                     plan::DType dtype, Reduction reduction = Reduction::kSum);
Collective AllToAll(const void* input, void* output, int64_t count,
                    plan::DType dtype);
Collective Broadcast(const void* input, void* output, int64_t count,
                     plan::DType dtype, int root);
Collective Reduce(const void* input, void* output, int64_t count,
                  plan::DType dtype, int root,
                  Reduction reduction = Reduction::kSum);

}  // namespace heddle::comm

#endif  // HEDDLE_RUNTIME_COMM_COLLECTIVE_H_
