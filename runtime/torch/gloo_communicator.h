// Ranks as processes (or threads) without a GPU: bytes travel through
// LibTorch's gloo, sums are taken here in the order of positions, so results
// have the bits of the loopback ranks and every dtype moves. Invariant: nothing
// that gloo's threads touch belongs to the caller, so an aborted call may
// return at once.

#ifndef HEDDLE_RUNTIME_TORCH_GLOO_COMMUNICATOR_H_
#define HEDDLE_RUNTIME_TORCH_GLOO_COMMUNICATOR_H_

#include <memory>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "absl/time/time.h"
#include "runtime/comm/communicator.h"
#include "runtime/trace/flight_recorder.h"

namespace heddle::torch_runtime {

// `timeout`: after which gloo itself gives up on a peer; also the longest that
// the destructor of an aborted communicator waits. The network interface is
// that of GLOO_SOCKET_IFNAME, or the one that the host's name resolves to.
std::unique_ptr<comm::Backend> CreateGlooBackend(
    c10::intrusive_ptr<c10d::Store> store, absl::Duration timeout,
    trace::FlightRecorder* recorder);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_GLOO_COMMUNICATOR_H_
