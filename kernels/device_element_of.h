// A registry element -> what launches call it; apart from device_element.h,
// which CUDA code includes.

#ifndef HEDDLE_KERNELS_DEVICE_ELEMENT_OF_H_
#define HEDDLE_KERNELS_DEVICE_ELEMENT_OF_H_

#include "kernels/device_element.h"
#include "kernels/registry.h"

namespace heddle::kernels {

// -1 for a type that is not floating.
inline int DeviceElementOf(Element element) {
  switch (element) {
    case Element::kF16:
      return kDeviceF16;
    case Element::kBF16:
      return kDeviceBF16;
    case Element::kF32:
      return kDeviceF32;
    case Element::kF64:
      return kDeviceF64;
    default:
      return -1;
  }
}

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_DEVICE_ELEMENT_OF_H_
