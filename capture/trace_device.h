// The device that captures: tensors on it have shapes, strides and storages but
// no bytes, and every operator on it is recorded. Which of PyTorch's reserved
// device slots it occupies is these three constants and nothing else. The slot
// must not be one that PyTorch calls an accelerator (at::getAccelerator): such
// a device takes the stream bookkeeping of CUDA's backward away in the same
// process.
#ifndef HEDDLE_CAPTURE_TRACE_DEVICE_H_
#define HEDDLE_CAPTURE_TRACE_DEVICE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKey.h>

namespace heddle::capture {

constexpr c10::DeviceType kTraceType = c10::DeviceType::MAIA;
constexpr c10::DispatchKey kTraceKey = c10::DispatchKey::MAIA;
constexpr c10::DispatchKey kTraceAutograd = c10::DispatchKey::AutogradMAIA;

inline c10::Device TraceDevice() { return c10::Device(kTraceType, 0); }

inline bool IsTraced(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kTraceType;
}

// A tensor without bytes over `storage`. Sizes and strides in elements.
at::Tensor MakeTraceTensor(const c10::Storage& storage, at::ScalarType dtype,
                           at::IntArrayRef sizes, at::IntArrayRef strides,
                           int64_t offset);

// A storage without bytes. Reading its data pointer raises.
c10::Storage MakeTraceStorage(int64_t bytes);

// Registers the recorder for every operator that autograd does not decompose.
// Idempotent; called when the library is loaded.
void RegisterTraceDevice();

// The same for operators of other namespaces that appeared since the last call:
// users define them at any time.
void RegisterCustomOperators();

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_TRACE_DEVICE_H_
