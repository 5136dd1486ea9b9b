// What the host backends share: checks, records and streams around a blocking
// call. Invariant: RunBlocking sees only validated collectives, one grouped
// call at a time, in the order of Issue.

#ifndef HEDDLE_RUNTIME_COMM_HOST_COMMUNICATOR_H_
#define HEDDLE_RUNTIME_COMM_HOST_COMMUNICATOR_H_

#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/comm/communicator.h"
#include "runtime/trace/flight_recorder.h"

namespace heddle::comm {

class HostCommunicator : public Communicator {
 public:
  using Communicator::Issue;
  [[nodiscard]] absl::Status Issue(absl::Span<const Collective> collectives,
                                   device::Stream* stream) final;
  [[nodiscard]] absl::Status status() final;

 protected:
  // `recorder` may be null; it outlives the communicator.
  HostCommunicator(Group group, trace::FlightRecorder* recorder);

  // Carries out one grouped call on the calling thread.
  [[nodiscard]] virtual absl::Status RunBlocking(
      absl::Span<const Collective> collectives) = 0;
  // Whether Abort has been called, on this rank or on one that shares its fate.
  virtual bool Aborted() const = 0;
  // Makes `why` the status unless there is one.
  void Break(const absl::Status& why);

 private:
  absl::Status RunRecorded(absl::Span<const Collective> collectives,
                           uint64_t ticket);

  trace::FlightRecorder* const recorder_;
  mutable std::mutex mutex_;
  absl::Status status_;
};

// The record of one grouped call.
trace::Record RecordOf(absl::Span<const Collective> collectives,
                       const Group& group);

// Validates a grouped call; errors name the group, and the place in the model.
[[nodiscard]] absl::Status ValidateAll(absl::Span<const Collective> collectives,
                                       const Group& group);

}  // namespace heddle::comm

#endif  // HEDDLE_RUNTIME_COMM_HOST_COMMUNICATOR_H_
