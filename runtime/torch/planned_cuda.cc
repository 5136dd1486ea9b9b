// The wrapper forwards everything but allocate. A block from a workspace is
// used by one stream only, so it needs none of the caching allocator's stream
// bookkeeping.

#include "runtime/torch/planned_cuda.h"

#include "absl/strings/str_cat.h"

#ifdef HEDDLE_HAVE_CUDA

#include <ATen/Context.h>
#include <c10/core/CPUAllocator.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <dlfcn.h>

#include <mutex>
#include <utility>

namespace heddle::torch_runtime {
namespace {

namespace cca = c10::cuda::CUDACachingAllocator;

class PlannedCudaAllocator final : public cca::CUDAAllocator, public Source {
 public:
  explicit PlannedCudaAllocator(cca::CUDAAllocator* inner) : inner_(inner) {}

  c10::DataPtr allocate(size_t bytes) override {
    Scope* scope = Scope::Current(*this);
    if (scope == nullptr || bytes == 0) return inner_->allocate(bytes);
    bool planned = false;
    void* address = scope->Allocate(bytes, &planned);
    if (address == nullptr) return inner_->allocate(bytes);
    return {address, address, planned ? &c10::NoDelete : &Delete,
            c10::Device(c10::DeviceType::CUDA, c10::cuda::current_device())};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return inner_->raw_deleter();
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    inner_->copy_data(to, from, bytes);
  }

  void* Take(size_t bytes) override { return inner_->raw_alloc(bytes); }
  void GiveBack(void* address) override { inner_->raw_delete(address); }

  bool initialized() override { return inner_->initialized(); }
  void emptyCache(c10::MempoolId_t pool) override { inner_->emptyCache(pool); }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(
      c10::DeviceIndex device) override {
    return inner_->getDeviceStats(device);
  }
  void resetAccumulatedStats(c10::DeviceIndex device) override {
    inner_->resetAccumulatedStats(device);
  }
  void resetPeakStats(c10::DeviceIndex device) override {
    inner_->resetPeakStats(device);
  }
  void* raw_alloc(size_t bytes) override { return inner_->raw_alloc(bytes); }
  void* raw_alloc_with_stream(size_t bytes, cudaStream_t stream) override {
    return inner_->raw_alloc_with_stream(bytes, stream);
  }
  void raw_delete(void* address) override { inner_->raw_delete(address); }
  void init(int count) override { inner_->init(count); }
  double getMemoryFraction(c10::DeviceIndex device) override {
    return inner_->getMemoryFraction(device);
  }
  void setMemoryFraction(double fraction, c10::DeviceIndex device) override {
    inner_->setMemoryFraction(fraction, device);
  }
  std::vector<cca::StreamSegmentSize> getExpandableSegmentSizes(
      c10::DeviceIndex device) override {
    return inner_->getExpandableSegmentSizes(device);
  }
  void enable(bool value) override { inner_->enable(value); }
  bool isEnabled() const override { return inner_->isEnabled(); }
  void cacheInfo(c10::DeviceIndex device, size_t* largest) override {
    inner_->cacheInfo(device, largest);
  }
  void* getBaseAllocation(void* address, size_t* size) override {
    return inner_->getBaseAllocation(address, size);
  }
  void recordStream(const c10::DataPtr& pointer,
                    c10::cuda::CUDAStream stream) override {
    inner_->recordStream(pointer, stream);
  }
  cca::SnapshotInfo snapshot(c10::MempoolId_t pool, bool traces) override {
    return inner_->snapshot(pool, traces);
  }
  void beginAllocateToPool(c10::DeviceIndex device, c10::MempoolId_t pool,
                           std::function<bool(cudaStream_t)> filter) override {
    inner_->beginAllocateToPool(device, pool, std::move(filter));
  }
  void endAllocateToPool(c10::DeviceIndex device,
                         c10::MempoolId_t pool) override {
    inner_->endAllocateToPool(device, pool);
  }
  void releasePool(c10::DeviceIndex device, c10::MempoolId_t pool) override {
    inner_->releasePool(device, pool);
  }
  int getPoolUseCount(c10::DeviceIndex device, c10::MempoolId_t pool) override {
    return inner_->getPoolUseCount(device, pool);
  }
  void createOrIncrefPool(
      c10::DeviceIndex device, c10::MempoolId_t pool,
      std::shared_ptr<cca::CUDAAllocator> allocator) override {
    inner_->createOrIncrefPool(device, pool, std::move(allocator));
  }
  void setUseOnOOM(c10::DeviceIndex device, c10::MempoolId_t pool,
                   bool use) override {
    inner_->setUseOnOOM(device, pool, use);
  }
  void setNoSplit(c10::DeviceIndex device, c10::MempoolId_t pool) override {
    inner_->setNoSplit(device, pool);
  }
  bool checkPoolLiveAllocations(
      c10::DeviceIndex device, c10::MempoolId_t pool,
      const std::unordered_set<void*>& live) override {
    return inner_->checkPoolLiveAllocations(device, pool, live);
  }
  cca::ShareableHandle shareIpcHandle(void* address) override {
    return inner_->shareIpcHandle(address);
  }
  std::shared_ptr<void> getIpcDevPtr(std::string handle) override {
    return inner_->getIpcDevPtr(std::move(handle));
  }
  bool isHistoryEnabled() override { return inner_->isHistoryEnabled(); }
  void recordHistory(bool enabled, cca::CreateContextFn recorder,
                     size_t entries, cca::RecordContext when, bool clear,
                     const std::vector<std::string>& skip) override {
    inner_->recordHistory(enabled, recorder, entries, when, clear, skip);
  }
  void recordAnnotation(const std::vector<std::pair<std::string, std::string>>&
                            metadata) override {
    inner_->recordAnnotation(metadata);
  }
  void pushCompileContext(std::string& metadata) override {
    inner_->pushCompileContext(metadata);
  }
  void popCompileContext() override { inner_->popCompileContext(); }
  void setUserMetadata(const std::string& metadata) override {
    inner_->setUserMetadata(metadata);
  }
  std::string getUserMetadata() override { return inner_->getUserMetadata(); }
  void attachOutOfMemoryObserver(cca::OutOfMemoryObserver observer) override {
    inner_->attachOutOfMemoryObserver(std::move(observer));
  }
  void attachAllocatorTraceTracker(
      cca::AllocatorTraceTracker tracker) override {
    inner_->attachAllocatorTraceTracker(std::move(tracker));
  }
  void enablePeerAccess(c10::DeviceIndex device,
                        c10::DeviceIndex other) override {
    inner_->enablePeerAccess(device, other);
  }
  cudaError_t memcpyAsync(void* to, int to_device, const void* from,
                          int from_device, size_t bytes, cudaStream_t stream,
                          bool p2p) override {
    return inner_->memcpyAsync(to, to_device, from, from_device, bytes, stream,
                               p2p);
  }
  std::shared_ptr<cca::AllocatorState> getCheckpointState(
      c10::DeviceIndex device, c10::MempoolId_t id) override {
    return inner_->getCheckpointState(device, id);
  }
  cca::CheckpointDelta setCheckpointPoolState(
      c10::DeviceIndex device,
      std::shared_ptr<cca::AllocatorState> state) override {
    return inner_->setCheckpointPoolState(device, std::move(state));
  }
  std::string name() override { return inner_->name(); }

  static PlannedCudaAllocator* instance;

 private:
  static void Delete(void* address) {
    if (Scope* scope = Scope::Current(*instance)) scope->OnFree(address);
    if (!FreeInWorkspaces(address)) instance->GiveBack(address);
  }
  cca::CUDAAllocator* inner_;
};

PlannedCudaAllocator* PlannedCudaAllocator::instance = nullptr;

}  // namespace

absl::StatusOr<Source*> InstallPlannedCudaAllocator() {
  static std::mutex& mutex = *new std::mutex();
  std::lock_guard<std::mutex> lock(mutex);
  if (!at::hasCUDA() &&
      dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr)
    return absl::FailedPreconditionError(
        absl::StrCat("this torch has no CUDA part: ", dlerror()));
  if (PlannedCudaAllocator::instance == nullptr) {
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    PlannedCudaAllocator::instance =
        new PlannedCudaAllocator(cca::allocator.load());
    cca::allocator.store(PlannedCudaAllocator::instance);
  }
  if (cca::allocator.load() != PlannedCudaAllocator::instance)
    return absl::FailedPreconditionError(
        "libtorch's CUDA allocator was replaced by another library after "
        "Heddle was loaded; planned memory cannot be enforced");
  return PlannedCudaAllocator::instance;
}

c10::Stream AtenStream(void* native, int device) {
  return c10::cuda::getStreamFromExternal(static_cast<cudaStream_t>(native),
                                          static_cast<c10::DeviceIndex>(device))
      .unwrap();
}

void* CurrentStream(int device) {
  return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device))
      .stream();
}

}  // namespace heddle::torch_runtime

#else

#include <stdexcept>

namespace heddle::torch_runtime {

absl::StatusOr<Source*> InstallPlannedCudaAllocator() {
  return absl::FailedPreconditionError(
      "the plan was compiled for cuda and this Heddle was built without the "
      "CUDA toolkit; build it where there is one, or compile the step for cpu");
}

c10::Stream AtenStream(void*, int) {
  throw std::logic_error("a build without CUDA has no CUDA streams");
}

void* CurrentStream(int) { return nullptr; }

}  // namespace heddle::torch_runtime

#endif
