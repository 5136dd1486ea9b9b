// The registered newton_schulz kernel as one C function, for benchmarks that
// call it through ctypes with another framework's device memory.

#include <cstdio>
#include <string>

#include "kernels/registry.h"

// Types: 0 fp16, 1 bf16, 2 fp32, 3 fp64. workspace nullptr: returns the bytes
// that the call needs. Else 0, or -1 with the reason on stderr.
extern "C" __attribute__((visibility("default"))) long long
heddle_newton_schulz(const void* x, void* result, int x_type, int result_type,
                     long long batch, long long rows, long long columns,
                     const char* form, const char* coefficients, int steps,
                     const char* dtype, double eps, const char* norm_eps,
                     void* workspace, long long workspace_bytes, void* stream) {
  using namespace heddle::kernels;
  static const Element kElements[] = {Element::kF16, Element::kBF16,
                                      Element::kF32, Element::kF64};
  const auto fail = [](const std::string& why) {
    std::fprintf(stderr, "%s\n", why.c_str());
    return -1;
  };
  if (x_type < 0 || x_type > 3 || result_type < 0 || result_type > 3)
    return fail("unknown type");
  const Kernel* kernel = Find("newton_schulz");
  if (kernel == nullptr || kernel->device == nullptr)
    return fail("newton_schulz has no device code in this build");
  Call call;
  call.tensors["x"] = {{const_cast<void*>(x),
                        kElements[x_type],
                        batch * rows * columns,
                        {batch, rows, columns}}};
  call.results = {{result,
                   kElements[result_type],
                   batch * rows * columns,
                   {batch, rows, columns}}};
  call.strings = {{"ns", form},
                  {"coefficients", coefficients},
                  {"dtype", dtype},
                  {"norm_eps", norm_eps}};
  call.scalars = {{"steps", steps}, {"eps", eps}};
  call.stream = stream;
  if (workspace == nullptr) {
    const absl::StatusOr<int64_t> bytes = kernel->workspace(call);
    return bytes.ok() ? *bytes : fail(bytes.status().ToString());
  }
  call.workspace = workspace;
  call.workspace_bytes = workspace_bytes;
  const absl::Status status = kernel->device(call);
  return status.ok() ? 0 : fail(status.ToString());
}
