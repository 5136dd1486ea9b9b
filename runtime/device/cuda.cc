// Streams are non-blocking: nothing waits for the legacy default stream, so
// whoever fills inputs there calls Synchronize first.

#include "runtime/device/cuda.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/device/host_access.h"

#ifdef HEDDLE_HAVE_CUDA
#include <cuda_runtime_api.h>
#endif

namespace heddle::device {

#ifdef HEDDLE_HAVE_CUDA
namespace {

absl::Status FromCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message =
      absl::StrCat(what, ": ", cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation
             ? absl::ResourceExhaustedError(message)
             : absl::InternalError(message);
}

class CudaEvent : public Event {
 public:
  explicit CudaEvent(cudaEvent_t event) : event(event) {}
  ~CudaEvent() override { cudaEventDestroy(event); }
  const cudaEvent_t event;
};

class CudaStream : public Stream {
 public:
  CudaStream(cudaStream_t stream, bool owned)
      : stream_(stream), owned_(owned) {}
  ~CudaStream() override {
    if (owned_) cudaStreamDestroy(stream_);
  }
  void Enqueue(std::function<void()> work) override { work(); }
  // A failure is kept by CUDA and comes out of Synchronize.
  void Record(Event& event) override {
    Keep(cudaEventRecord(static_cast<CudaEvent&>(event).event, stream_));
  }
  void Wait(Event& event) override {
    Keep(cudaStreamWaitEvent(stream_, static_cast<CudaEvent&>(event).event, 0));
  }
  absl::Status Synchronize() override {
    Keep(cudaStreamSynchronize(stream_));
    return FromCuda(error_, "the GPU stream failed");
  }
  absl::Status Failure() override {
    return FromCuda(error_, "the GPU stream failed");
  }
  void* native() override { return stream_; }

 private:
  void Keep(cudaError_t error) {
    if (error_ == cudaSuccess) error_ = error;
  }
  cudaStream_t stream_;
  bool owned_;
  cudaError_t error_ = cudaSuccess;
};

class CudaGraph : public Graph {
 public:
  ~CudaGraph() override {
    if (executable != nullptr) cudaGraphExecDestroy(executable);
  }
  absl::Status Launch(Stream& stream) override {
    return FromCuda(
        cudaGraphLaunch(executable, static_cast<cudaStream_t>(stream.native())),
        "cannot launch the CUDA graph");
  }
  cudaGraphExec_t executable = nullptr;
};

class CudaAllocator : public Allocator {
 public:
  absl::StatusOr<void*> Allocate(size_t bytes,
                                 const std::string& what) override {
    void* address = nullptr;
    const size_t wanted = bytes == 0 ? 1 : bytes;
    cudaError_t error = cudaMalloc(&address, wanted);
    if (error != cudaSuccess) {
      cudaGetLastError();  // the failed allocation must not come out of the
                           // next call
      return FromCuda(error, absl::StrCat("cannot reserve ", bytes,
                                          " bytes of GPU memory for the ", what)
                                 .c_str());
    }
    error = cudaMemset(address, 0, wanted);
    if (error != cudaSuccess) return FromCuda(error, "cudaMemset");
    return address;
  }
  void Free(void* address) override { cudaFree(address); }
};

// Any GPU's memory, whoever reserved it; pinned and managed memory is the
// host's too.
const char* OnGpu(const void* address) {
  cudaPointerAttributes attributes;
  if (cudaPointerGetAttributes(&attributes, address) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  return attributes.type == cudaMemoryTypeDevice ? "cuda" : nullptr;
}

class CudaDevice : public Device {
 public:
  const char* target() const override { return "cuda"; }
  std::string name() const override {
    int device = 0;
    cudaDeviceProp properties;
    return cudaGetDevice(&device) == cudaSuccess &&
                   cudaGetDeviceProperties(&properties, device) == cudaSuccess
               ? properties.name
               : target();
  }
  Allocator& allocator() override { return allocator_; }
  uint64_t used_bytes() const override {
    size_t free = 0, total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? total - free : 0;
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(
      const std::string& name) override {
    cudaStream_t stream;
    if (absl::Status status =
            FromCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                     absl::StrCat("cannot create stream ", name).c_str());
        !status.ok())
      return status;
    return std::unique_ptr<Stream>(new CudaStream(stream, /*owned=*/true));
  }
  std::unique_ptr<Stream> Borrow(void* native) override {
    return std::make_unique<CudaStream>(static_cast<cudaStream_t>(native),
                                        /*owned=*/false);
  }
  absl::StatusOr<std::unique_ptr<Event>> CreateEvent() override {
    cudaEvent_t event;
    if (absl::Status status =
            FromCuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                     "cannot create an event");
        !status.ok())
      return status;
    return std::unique_ptr<Event>(new CudaEvent(event));
  }
  absl::Status CopyToHost(void* host, const void* device,
                          size_t bytes) override {
    return FromCuda(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost),
                    "copy to the host");
  }
  absl::Status CopyFromHost(void* device, const void* host,
                            size_t bytes) override {
    return FromCuda(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice),
                    "copy to the GPU");
  }
  absl::Status Synchronize() override {
    return FromCuda(cudaDeviceSynchronize(), "the GPU failed");
  }
  bool asynchronous() const override { return true; }
  // Thread-local: other threads may allocate meanwhile, and an allocation by
  // this one, which a graph could not repeat, is an error.
  absl::Status BeginCapture(Stream& stream) override {
    return FromCuda(
        cudaStreamBeginCapture(static_cast<cudaStream_t>(stream.native()),
                               cudaStreamCaptureModeThreadLocal),
        "cannot capture a CUDA graph");
  }
  absl::StatusOr<std::unique_ptr<Graph>> EndCapture(
      Stream& stream, std::unique_ptr<Graph> previous) override {
    cudaGraph_t captured = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(
        static_cast<cudaStream_t>(stream.native()), &captured);
    if (ended != cudaSuccess) {
      cudaGetLastError();  // of the capture, not of what comes next
      return FromCuda(ended, "the CUDA graph's capture failed");
    }
    auto graph = std::make_unique<CudaGraph>();
    if (previous != nullptr) {
      std::swap(graph->executable,
                static_cast<CudaGraph&>(*previous).executable);
      cudaGraphExecUpdateResultInfo info;
      if (cudaGraphExecUpdate(graph->executable, captured, &info) ==
          cudaSuccess) {
        cudaGraphDestroy(captured);
        return std::unique_ptr<Graph>(std::move(graph));
      }
      cudaGetLastError();
      graph = std::make_unique<CudaGraph>();
    }
    const cudaError_t made =
        cudaGraphInstantiate(&graph->executable, captured, 0);
    cudaGraphDestroy(captured);
    if (made != cudaSuccess) {
      cudaGetLastError();
      graph->executable = nullptr;
      return FromCuda(made, "cannot instantiate the CUDA graph");
    }
    return std::unique_ptr<Graph>(std::move(graph));
  }

 private:
  CudaAllocator allocator_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CreateCudaDevice(int index) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
    return absl::FailedPreconditionError(
        "the plan was compiled for cuda and this machine has no usable GPU; "
        "run it where there is one, or compile the step for cpu");
  if (index >= count)
    return absl::FailedPreconditionError(
        absl::StrCat("there is no GPU ", index, "; this machine has ", count));
  if (absl::Status status =
          FromCuda(cudaSetDevice(index), "cannot use the GPU");
      !status.ok())
    return status;
  AddMemoryProbe(&OnGpu);
  return std::unique_ptr<Device>(new CudaDevice());
}

#else

absl::StatusOr<std::unique_ptr<Device>> CreateCudaDevice(int) {
  return absl::FailedPreconditionError(
      "the plan was compiled for cuda and this Heddle was built without the "
      "CUDA toolkit; build it where there is one, or compile the step for cpu");
}

#endif

}  // namespace heddle::device
