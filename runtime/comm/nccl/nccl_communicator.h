// Collectives over NCCL, enqueued on CUDA streams. Invariant: one Issue is one
// NCCL call or one NCCL group and launches nothing else. How far a collective
// got is read off two marks in the stream, in Poll; work that is captured into
// a CUDA graph leaves no record, since it runs when the graph does: each launch
// has two marks and a record instead.

#ifndef HEDDLE_RUNTIME_COMM_NCCL_NCCL_COMMUNICATOR_H_
#define HEDDLE_RUNTIME_COMM_NCCL_NCCL_COMMUNICATOR_H_

#include <memory>

#include "absl/time/time.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/nccl/nccl_api.h"
#include "runtime/comm/store.h"
#include "runtime/trace/flight_recorder.h"

namespace heddle::comm::nccl {

// Ranks exchange NCCL's ids over `store`, waiting `timeout` for each other.
// `device_index` is this rank's GPU; `recorder` may be null and outlives the
// backend.
std::unique_ptr<Backend> CreateNcclBackend(std::shared_ptr<NcclApi> api,
                                           std::shared_ptr<Store> store,
                                           int device_index,
                                           absl::Duration timeout,
                                           trace::FlightRecorder* recorder);

}  // namespace heddle::comm::nccl

#endif  // HEDDLE_RUNTIME_COMM_NCCL_NCCL_COMMUNICATOR_H_
