// The host memory allocated while a capture runs.
#ifndef HEDDLE_CAPTURE_HOST_ALLOCATIONS_H_
#define HEDDLE_CAPTURE_HOST_ALLOCATIONS_H_

#include <torch/csrc/profiler/orchestration/observer.h>

#include <unordered_set>

#include "capture/session.h"

namespace heddle::capture {

// Addresses of the host memory that was allocated while the capture ran: what
// lies there was made inside the step. Allocators report to the thread's
// profiler state, and autograd takes that state for a full profiler's, so this
// is one that is disabled for all but memory.
struct Session::HostAllocations : torch::profiler::impl::ProfilerStateBase {
  HostAllocations()
      : ProfilerStateBase(torch::profiler::impl::ProfilerConfig(
            torch::profiler::impl::ProfilerState::Disabled)) {}
  torch::profiler::impl::ActiveProfilerType profilerType() override {
    return torch::profiler::impl::ActiveProfilerType::NONE;
  }
  void reportMemoryUsage(void* ptr, int64_t alloc_size, size_t, size_t,
                         c10::Device) override {
    if (alloc_size > 0) addresses.insert(ptr);
  }
  bool memoryProfilingEnabled() const override { return true; }
  std::unordered_set<const void*> addresses;
};

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_HOST_ALLOCATIONS_H_
