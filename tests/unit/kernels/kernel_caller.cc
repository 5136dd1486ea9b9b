// Calls a kernel of the registry by name from plain C: what the tests of
// kernels in Python go through (kernel_caller.py). Invariant: nothing is
// checked here that a kernel should check itself.

#include <cstdint>
#include <string>

#include "kernels/registry.h"

extern "C" {

struct HeddleKernelTensor {
  const char* name;  // nullptr for results
  void* data;
  int32_t element;  // heddle::kernels::Element
  int32_t rank;
  const int64_t* sizes;
  const int64_t* strides;
};

// A number, a text or a list of integers.
struct HeddleKernelScalar {
  const char* name;
  double value;
  const double* address;  // in device memory; nullptr: `value`
  const char* text;       // nullptr: not a text
  const int64_t* integers;
  int32_t count;  // of the list; -1: not a list
};

// nullptr, or what went wrong, valid until the thread's next call. With
// `needed` nothing runs and it becomes the bytes of the workspace that the call
// takes.
__attribute__((visibility("default"))) const char* heddle_call_kernel(
    const char* name, int device, const HeddleKernelTensor* tensors,
    int tensor_count, const HeddleKernelTensor* results, int result_count,
    const HeddleKernelScalar* scalars, int scalar_count, void* workspace,
    int64_t workspace_bytes, int64_t* needed, void* stream) {
  using namespace heddle::kernels;
  static thread_local std::string error;
  const Kernel* kernel = Find(name);
  if (kernel == nullptr) {
    error = std::string("no kernel '") + name + "'; there are " + KnownNames();
    return error.c_str();
  }
  const Launch launch = device != 0 ? kernel->device : kernel->host;
  if (launch == nullptr) {
    error = std::string("kernel ") + name + " has no code for this";
    return error.c_str();
  }
  auto operand = [](const HeddleKernelTensor& t) {
    Operand result;
    result.data = t.data;
    result.element = static_cast<Element>(t.element);
    result.sizes.assign(t.sizes, t.sizes + t.rank);
    result.strides.assign(t.strides, t.strides + t.rank);
    result.count = 1;
    for (int64_t size : result.sizes) result.count *= size;
    return result;
  };
  Call call;
  for (int i = 0; i < tensor_count; ++i)
    call.tensors[tensors[i].name].push_back(operand(tensors[i]));
  for (int i = 0; i < result_count; ++i)
    call.results.push_back(results[i].data == nullptr ? Operand()
                                                      : operand(results[i]));
  for (int i = 0; i < scalar_count; ++i) {
    if (scalars[i].text != nullptr) {
      call.strings[scalars[i].name] = scalars[i].text;
    } else if (scalars[i].count >= 0) {
      call.ints[scalars[i].name].assign(scalars[i].integers,
                                        scalars[i].integers + scalars[i].count);
    } else if (scalars[i].address != nullptr) {
      call.device_scalars[scalars[i].name] = scalars[i].address;
    } else {
      call.scalars[scalars[i].name] = scalars[i].value;
    }
  }
  call.stream = stream;
  call.workspace = workspace;
  call.workspace_bytes = workspace_bytes;
  absl::Status status;
  if (needed == nullptr) {
    status = launch(call);
  } else if (device != 0 && kernel->workspace != nullptr) {
    const absl::StatusOr<int64_t> bytes = kernel->workspace(call);
    status = bytes.status();
    if (bytes.ok()) *needed = *bytes;
  }
  if (status.ok()) return nullptr;
  error = std::string(status.message());
  return error.c_str();
}
}
