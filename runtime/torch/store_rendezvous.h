// A launcher's environment -> the store that all ranks meet in, over c10d's
// TCPStore. Invariant: no exception of LibTorch leaves this file; a store that
// cannot be reached is an error that names the address.

#ifndef HEDDLE_RUNTIME_TORCH_STORE_RENDEZVOUS_H_
#define HEDDLE_RUNTIME_TORCH_STORE_RENDEZVOUS_H_

#include <memory>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/comm/rank_environment.h"
#include "runtime/comm/store.h"

namespace heddle::torch_runtime {

// Two connections to one server: transports wait in theirs while connecting,
// and the watchdog must be heard meanwhile.
struct Meeting {
  std::shared_ptr<comm::Store> control;
  c10::intrusive_ptr<c10d::Store> transport;
  // The rank whose process is the server, or -1 for torchrun's agent.
  int store_host = -1;
};

// Rank 0 becomes the server unless torchrun's agent is one. Unavailable after
// `timeout`.
absl::StatusOr<Meeting> Rendezvous(const comm::RankEnvironment& environment,
                                   absl::Duration timeout);

// Any store of c10d as one of ours.
std::shared_ptr<comm::Store> WrapStore(c10::intrusive_ptr<c10d::Store> store);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_STORE_RENDEZVOUS_H_
