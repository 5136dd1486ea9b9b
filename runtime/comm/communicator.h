// Collectives over one group of ranks. Invariant: every rank of the group
// issues the same collectives in the same order, from one stream at a time;
// then every backend (loopback, gloo, nccl) gives the same values, and the two
// host backends the same bits: they reduce in the order of positions 0, 1, 2 …,
// F32 and F64 in their own type, F16 and BF16 in F32 rounded once at the end.
// What would break it: two communicators of one group used without an order
// between them on a backend whose transport they share; give each its own name.

#ifndef HEDDLE_RUNTIME_COMM_COMMUNICATOR_H_
#define HEDDLE_RUNTIME_COMM_COMMUNICATOR_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/comm/collective.h"
#include "runtime/device/device.h"

namespace heddle::comm {

class Communicator {
 public:
  virtual ~Communicator() = default;

  const Group& group() const { return group_; }

  // Takes part in `collectives`, which run as one grouped call and must not
  // read what another of them writes. Memory stays valid until they are done.
  //
  // Host backends: memory of a GPU is InvalidArgument. With `stream` the call
  // enqueues and returns; a failure ends the communicator and shows up in
  // status() and in the next call. With nullptr the calling thread does the
  // work and gets the result: that is what a step handler wants, since it is
  // already on its stream's thread. NCCL: `stream` is required, the call
  // enqueues.
  [[nodiscard]] virtual absl::Status Issue(
      absl::Span<const Collective> collectives, device::Stream* stream) = 0;
  [[nodiscard]] absl::Status Issue(const Collective& collective,
                                   device::Stream* stream) {
    return Issue(absl::Span<const Collective>(&collective, 1), stream);
  }

  // Ends pending and later collectives of this rank with `why`, and those of
  // every rank that waits for it in the same process. May be called from any
  // thread, more than once; the first reason stays. `why` is not OK.
  virtual void Abort(const absl::Status& why) = 0;

  // A graph that holds collectives of this communicator is given to `stream`
  // between these two calls: one record stands for all of them, since what was
  // captured leaves none. `origin` outlives the calls.
  [[nodiscard]] virtual absl::Status BeginGraph(const std::string&,
                                                const Origin&,
                                                device::Stream&) {
    return absl::OkStatus();
  }
  [[nodiscard]] virtual absl::Status EndGraph(device::Stream&) {
    return absl::OkStatus();
  }

  // Brings the flight record up to date where nobody is told that work has
  // ended; the watchdog calls it.
  virtual void Poll() {}

  // OK, or why the communicator cannot be used any more.
  [[nodiscard]] virtual absl::Status status() = 0;

 protected:
  explicit Communicator(Group group) : group_(std::move(group)) {}

 private:
  Group group_;
};

// How one rank gets its communicators.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;
  // Every rank of the group connects to its groups in the same order.
  [[nodiscard]] virtual absl::StatusOr<std::unique_ptr<Communicator>> Connect(
      const Group& group) = 0;
};

// The group `name` of `ranks` as global rank `rank` sees it; InvalidArgument if
// ranks repeat or `rank` is not among them.
[[nodiscard]] absl::StatusOr<Group> MakeGroup(std::string name,
                                              std::vector<int> ranks, int rank);

}  // namespace heddle::comm

#endif  // HEDDLE_RUNTIME_COMM_COMMUNICATOR_H_
