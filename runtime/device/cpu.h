// The host as a device: streams are threads, events are condition variables.

#ifndef HEDDLE_RUNTIME_DEVICE_CPU_H_
#define HEDDLE_RUNTIME_DEVICE_CPU_H_

#include <memory>

#include "runtime/device/device.h"

namespace heddle::device {

std::unique_ptr<Device> CreateCpuDevice();

}  // namespace heddle::device

#endif  // HEDDLE_RUNTIME_DEVICE_CPU_H_
