// The floating element types as launches name them to CUDA code, which includes
// no other header of the project but such borders.

#ifndef HEDDLE_KERNELS_DEVICE_ELEMENT_H_
#define HEDDLE_KERNELS_DEVICE_ELEMENT_H_

namespace heddle::kernels {

enum DeviceElement { kDeviceF16, kDeviceBF16, kDeviceF32, kDeviceF64 };

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_DEVICE_ELEMENT_H_
