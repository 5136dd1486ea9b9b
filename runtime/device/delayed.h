// A device whose streams dawdle: before about half of what they are given they
// sleep for a random time drawn from a seed. Work that is ordered by streams
// and events gives the same bits under every seed; what is not, shows.

#ifndef HEDDLE_RUNTIME_DEVICE_DELAYED_H_
#define HEDDLE_RUNTIME_DEVICE_DELAYED_H_

#include <chrono>
#include <cstdint>
#include <memory>

#include "runtime/device/device.h"

namespace heddle::device {

// `device` runs work on threads of its own streams (the CPU); on a GPU the
// sleeps would stop the host and prove nothing.
std::unique_ptr<Device> CreateDelayedDevice(std::unique_ptr<Device> device,
                                            uint64_t seed,
                                            std::chrono::microseconds longest);

}  // namespace heddle::device

#endif  // HEDDLE_RUNTIME_DEVICE_DELAYED_H_
