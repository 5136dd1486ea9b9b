#include "runtime/trace/range.h"

#include <atomic>

#ifdef HEDDLE_HAVE_CUDA
#include <nvtx3/nvToolsExt.h>
#endif

namespace heddle::trace {
namespace {

std::atomic<RangeSink*> replaced{nullptr};

#ifdef HEDDLE_HAVE_CUDA

// Header-only NVTX: it does nothing unless a profiler has asked for it, and
// makes no CUDA call.
class Nvtx : public RangeSink {
 public:
  void Push(const char* name) override {
    nvtxEventAttributes_t event = {};
    event.version = NVTX_VERSION;
    event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    event.messageType = NVTX_MESSAGE_TYPE_ASCII;
    event.message.ascii = name;
    nvtxDomainRangePushEx(domain_, &event);
  }
  void Pop() override { nvtxDomainRangePop(domain_); }
  // Without a profiler there are no domains.
  bool watched() const { return domain_ != nullptr; }

 private:
  const nvtxDomainHandle_t domain_ = nvtxDomainCreateA("heddle");
};

RangeSink* Profiler() {
  // Never destroyed: ranges may close while the process ends.
  static Nvtx* const nvtx = new Nvtx();
  return nvtx->watched() ? nvtx : nullptr;
}

#else

RangeSink* Profiler() { return nullptr; }

#endif

RangeSink* Current() {
  RangeSink* sink = replaced.load(std::memory_order_acquire);
  return sink != nullptr ? sink : Profiler();
}

}  // namespace

void SetRangeSink(RangeSink* sink) {
  replaced.store(sink, std::memory_order_release);
}

bool Watched() { return Current() != nullptr; }

Range::Range(const char* name) : sink_(Current()) {
  if (sink_ != nullptr) sink_->Push(name);
}

Range::~Range() {
  if (sink_ != nullptr) sink_->Pop();
}

}  // namespace heddle::trace
