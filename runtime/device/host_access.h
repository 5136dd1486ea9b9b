// Which memory the host cannot touch: a load from a GPU's address ends the
// process. Invariant: a device's probe is known before its memory is handed
// out. What would break it: memory of a device that nobody has created here.

#ifndef HEDDLE_RUNTIME_DEVICE_HOST_ACCESS_H_
#define HEDDLE_RUNTIME_DEVICE_HOST_ACCESS_H_

namespace heddle::device {

// The device's target ("cuda") if `address` is memory that only it can read,
// else nullptr. Any address, any thread.
using MemoryProbe = const char* (*)(const void* address);

// Asked for the rest of the process; the same probe is added once.
void AddMemoryProbe(MemoryProbe probe);

// The target of the device that alone can read `address`, nullptr if the host
// can, as far as any probe knows.
const char* DeviceOfMemory(const void* address);

}  // namespace heddle::device

#endif  // HEDDLE_RUNTIME_DEVICE_HOST_ACCESS_H_
