#include "runtime/device/host_access.h"

#include <array>
#include <atomic>

namespace heddle::device {
namespace {

// Read without a lock by every collective; there are as many as kinds of
// devices.
std::array<std::atomic<MemoryProbe>, 4>& Probes() {
  static std::array<std::atomic<MemoryProbe>, 4> probes{};
  return probes;
}

}  // namespace

void AddMemoryProbe(MemoryProbe probe) {
  for (std::atomic<MemoryProbe>& place : Probes()) {
    MemoryProbe known = nullptr;
    if (place.compare_exchange_strong(known, probe) || known == probe) return;
  }
}

const char* DeviceOfMemory(const void* address) {
  for (const std::atomic<MemoryProbe>& place : Probes()) {
    const MemoryProbe probe = place.load(std::memory_order_acquire);
    if (probe == nullptr) return nullptr;
    if (const char* target = probe(address); target != nullptr) return target;
  }
  return nullptr;
}

}  // namespace heddle::device
