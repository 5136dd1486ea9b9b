// What Heddle calls of NCCL, as a table that a test can fill with something
// else. Invariant: nothing of nccl.h shows here; data that is only moved is
// bytes, data that is reduced has a dtype. Codes are NCCL's: 0 is success.

#ifndef HEDDLE_RUNTIME_COMM_NCCL_NCCL_API_H_
#define HEDDLE_RUNTIME_COMM_NCCL_NCCL_API_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/comm/collective.h"
#include "runtime/device/device.h"

namespace heddle::comm::nccl {

struct UniqueId {
  char bytes[128];
};

// A point in a stream.
class Mark {
 public:
  virtual ~Mark() = default;
  virtual int Record(device::Stream& stream) = 0;
  // Whether the stream has passed the last Record; true before the first.
  virtual bool Passed() = 0;
};

class NcclApi {
 public:
  using Comm = void*;

  virtual ~NcclApi() = default;
  virtual std::string ErrorText(int code, Comm comm) = 0;

  virtual int GetUniqueId(UniqueId* id) = 0;
  // Binds the communicator to the device of the calling thread.
  virtual int SetDevice(int index) = 0;
  virtual int CommInit(Comm* comm, int size, const UniqueId& id, int rank) = 0;
  virtual int CommDestroy(Comm comm) = 0;
  virtual int CommAbort(Comm comm) = 0;
  // An error that came up after a call had returned.
  virtual int AsyncError(Comm comm, int* error) = 0;

  virtual int GroupStart() = 0;
  virtual int GroupEnd() = 0;
  virtual int AllGather(const void* input, void* output, size_t bytes,
                        Comm comm, device::Stream& stream) = 0;
  virtual int Broadcast(const void* input, void* output, size_t bytes, int root,
                        Comm comm, device::Stream& stream) = 0;
  virtual int Send(const void* input, size_t bytes, int peer, Comm comm,
                   device::Stream& stream) = 0;
  virtual int Recv(void* output, size_t bytes, int peer, Comm comm,
                   device::Stream& stream) = 0;
  virtual int ReduceScatter(const void* input, void* output, size_t count,
                            plan::DType dtype, Reduction reduction, Comm comm,
                            device::Stream& stream) = 0;
  virtual int AllReduce(const void* input, void* output, size_t count,
                        plan::DType dtype, Reduction reduction, Comm comm,
                        device::Stream& stream) = 0;
  virtual int Reduce(const void* input, void* output, size_t count,
                     plan::DType dtype, Reduction reduction, int root,
                     Comm comm, device::Stream& stream) = 0;

  // True while the stream's work goes into a CUDA graph.
  virtual bool Capturing(device::Stream& stream) = 0;
  virtual absl::StatusOr<std::unique_ptr<Mark>> CreateMark() = 0;
};

// The real one: libnccl.so.2 as the process has it loaded (torch brings it), or
// out of the first of `folders` that has it. FailedPrecondition if there is
// none, if it is too old, or if this Heddle was built without CUDA.
absl::StatusOr<std::shared_ptr<NcclApi>> LoadNccl(
    const std::vector<std::string>& folders);

}  // namespace heddle::comm::nccl

#endif  // HEDDLE_RUNTIME_COMM_NCCL_NCCL_API_H_
