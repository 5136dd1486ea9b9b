// The table of nccl_api.h over libnccl.so.2, found at run time: a build with
// CUDA starts on a machine without NCCL or a driver. The only file that
// includes nccl.h.

#include "runtime/comm/nccl/nccl_api.h"

#ifndef HEDDLE_HAVE_CUDA

#include "absl/status/status.h"

namespace heddle::comm::nccl {

absl::StatusOr<std::shared_ptr<NcclApi>> LoadNccl(
    const std::vector<std::string>&) {
  return absl::FailedPreconditionError(
      "this Heddle was built without CUDA and cannot use NCCL; build it where "
      "a CUDA toolkit is installed");
}

}  // namespace heddle::comm::nccl

#else

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <nccl.h>

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace heddle::comm::nccl {
namespace {

static_assert(sizeof(UniqueId) == sizeof(ncclUniqueId));

// The first version with everything that is called here.
constexpr int kOldest = NCCL_VERSION(2, 18, 0);
// CUDA's codes are told apart from NCCL's by their sign.
int FromCuda(cudaError_t code) { return -static_cast<int>(code); }

struct Functions {
#define HEDDLE_NCCL_FUNCTIONS(X) \
  X(GetVersion)                  \
  X(GetErrorString)              \
  X(GetLastError)                \
  X(GetUniqueId)                 \
  X(CommInitRank)                \
  X(CommDestroy)                 \
  X(CommAbort)                   \
  X(CommGetAsyncError)           \
  X(GroupStart)                  \
  X(GroupEnd)                    \
  X(AllGather)                   \
  X(Broadcast) X(Send) X(Recv) X(ReduceScatter) X(AllReduce) X(Reduce)
#define X(name) decltype(&nccl##name) name = nullptr;
  HEDDLE_NCCL_FUNCTIONS(X)
#undef X
};

ncclDataType_t TypeOf(plan::DType dtype) {
  switch (dtype) {
    case plan::DType::kF16:
      return ncclFloat16;
    case plan::DType::kBF16:
      return ncclBfloat16;
    case plan::DType::kF32:
      return ncclFloat32;
    case plan::DType::kF64:
      return ncclFloat64;
    case plan::DType::kI8:
      return ncclInt8;
    case plan::DType::kI32:
      return ncclInt32;
    case plan::DType::kI64:
      return ncclInt64;
    default:
      // U8, and Bool for max and min; Validate lets nothing else reduce.
      return ncclUint8;
  }
}

ncclRedOp_t OpOf(Reduction reduction) {
  switch (reduction) {
    case Reduction::kMax:
      return ncclMax;
    case Reduction::kMin:
      return ncclMin;
    case Reduction::kSum:
      break;
  }
  return ncclSum;
}

cudaStream_t StreamOf(device::Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

ncclComm_t CommOf(void* comm) { return static_cast<ncclComm_t>(comm); }

class CudaMark : public Mark {
 public:
  explicit CudaMark(cudaEvent_t event) : event_(event) {}
  ~CudaMark() override { cudaEventDestroy(event_); }
  int Record(device::Stream& stream) override {
    return FromCuda(cudaEventRecord(event_, StreamOf(stream)));
  }
  bool Passed() override { return cudaEventQuery(event_) == cudaSuccess; }

 private:
  const cudaEvent_t event_;
};

class NcclLibrary : public NcclApi {
 public:
  explicit NcclLibrary(const Functions& f) : f_(f) {}

  std::string ErrorText(int code, Comm comm) override {
    if (code < 0) return cudaGetErrorString(static_cast<cudaError_t>(-code));
    std::string text = f_.GetErrorString(static_cast<ncclResult_t>(code));
    const char* detail = f_.GetLastError(CommOf(comm));
    if (detail != nullptr && *detail != '\0')
      absl::StrAppend(&text, " (", detail, ")");
    return text;
  }
  int GetUniqueId(UniqueId* id) override {
    return f_.GetUniqueId(reinterpret_cast<ncclUniqueId*>(id));
  }
  int SetDevice(int index) override { return FromCuda(cudaSetDevice(index)); }
  int CommInit(Comm* comm, int size, const UniqueId& id, int rank) override {
    ncclUniqueId copy;
    std::memcpy(&copy, &id, sizeof copy);
    ncclComm_t made = nullptr;
    const int code = f_.CommInitRank(&made, size, copy, rank);
    *comm = made;
    return code;
  }
  int CommDestroy(Comm comm) override { return f_.CommDestroy(CommOf(comm)); }
  int CommAbort(Comm comm) override { return f_.CommAbort(CommOf(comm)); }
  int AsyncError(Comm comm, int* error) override {
    ncclResult_t result = ncclSuccess;
    const int code = f_.CommGetAsyncError(CommOf(comm), &result);
    *error = result == ncclInProgress ? 0 : result;
    return code;
  }
  int GroupStart() override { return f_.GroupStart(); }
  int GroupEnd() override { return f_.GroupEnd(); }
  int AllGather(const void* input, void* output, size_t bytes, Comm comm,
                device::Stream& stream) override {
    return f_.AllGather(input, output, bytes, ncclInt8, CommOf(comm),
                        StreamOf(stream));
  }
  int Broadcast(const void* input, void* output, size_t bytes, int root,
                Comm comm, device::Stream& stream) override {
    return f_.Broadcast(input, output, bytes, ncclInt8, root, CommOf(comm),
                        StreamOf(stream));
  }
  int Send(const void* input, size_t bytes, int peer, Comm comm,
           device::Stream& stream) override {
    return f_.Send(input, bytes, ncclInt8, peer, CommOf(comm),
                   StreamOf(stream));
  }
  int Recv(void* output, size_t bytes, int peer, Comm comm,
           device::Stream& stream) override {
    return f_.Recv(output, bytes, ncclInt8, peer, CommOf(comm),
                   StreamOf(stream));
  }
  int ReduceScatter(const void* input, void* output, size_t count,
                    plan::DType dtype, Reduction reduction, Comm comm,
                    device::Stream& stream) override {
    return f_.ReduceScatter(input, output, count, TypeOf(dtype),
                            OpOf(reduction), CommOf(comm), StreamOf(stream));
  }
  int AllReduce(const void* input, void* output, size_t count,
                plan::DType dtype, Reduction reduction, Comm comm,
                device::Stream& stream) override {
    return f_.AllReduce(input, output, count, TypeOf(dtype), OpOf(reduction),
                        CommOf(comm), StreamOf(stream));
  }
  int Reduce(const void* input, void* output, size_t count, plan::DType dtype,
             Reduction reduction, int root, Comm comm,
             device::Stream& stream) override {
    return f_.Reduce(input, output, count, TypeOf(dtype), OpOf(reduction), root,
                     CommOf(comm), StreamOf(stream));
  }
  bool Capturing(device::Stream& stream) override {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    return cudaStreamIsCapturing(StreamOf(stream), &status) == cudaSuccess &&
           status != cudaStreamCaptureStatusNone;
  }
  absl::StatusOr<std::unique_ptr<Mark>> CreateMark() override {
    cudaEvent_t event = nullptr;
    const cudaError_t code =
        cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (code != cudaSuccess)
      return absl::InternalError(absl::StrCat("cannot create a CUDA event: ",
                                              cudaGetErrorString(code)));
    return std::unique_ptr<Mark>(new CudaMark(event));
  }

 private:
  const Functions f_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<NcclApi>> LoadNccl(
    const std::vector<std::string>& folders) {
  constexpr char kName[] = "libnccl.so.2";
  // Never closed: NCCL's threads may still run when the last user goes.
  void* library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  std::string tried = library == nullptr ? dlerror() : "";
  for (size_t i = 0; library == nullptr && i < folders.size(); ++i) {
    library = dlopen(absl::StrCat(folders[i], "/", kName).c_str(),
                     RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) absl::StrAppend(&tried, "; ", dlerror());
  }
  if (library == nullptr)
    return absl::FailedPreconditionError(absl::StrCat(
        "NCCL cannot be loaded; install the wheel nvidia-nccl-cu13 that "
        "PyTorch uses (",
        tried, ")"));
  Functions f;
#define X(name)                                                              \
  f.name = reinterpret_cast<decltype(f.name)>(dlsym(library, "nccl" #name)); \
  if (f.name == nullptr)                                                     \
    return absl::FailedPreconditionError(                                    \
        "the NCCL that this process has loaded lacks nccl" #name);
  HEDDLE_NCCL_FUNCTIONS(X)
#undef X
#undef HEDDLE_NCCL_FUNCTIONS
  int version = 0;
  if (f.GetVersion(&version) != ncclSuccess || version < kOldest)
    return absl::FailedPreconditionError(
        absl::StrCat("this process has loaded NCCL version ", version,
                     "; Heddle needs ", kOldest, " or newer"));
  return std::shared_ptr<NcclApi>(std::make_shared<NcclLibrary>(f));
}

}  // namespace heddle::comm::nccl

#endif  // HEDDLE_HAVE_CUDA
