// Names -> kernels: how a plan's kernel steps find their code, and what each of
// them computes in plain loops. Contract of every kernel: it reads tensors by
// argument name and scalars, strings and lists by name, writes results by
// position and nothing else but its workspace, and on a device only enqueues
// (no allocation, no waiting), so it may be recorded into a graph. Where sizes
// and strides are not given, tensors are dense and of one layout, walked in
// memory order; kernels that speak of rows and columns need them row-major. The
// host reference defines the result; a device kernel may differ from it by
// rounding only where kernels/README.md says so.

#ifndef HEDDLE_KERNELS_REGISTRY_H_
#define HEDDLE_KERNELS_REGISTRY_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heddle::kernels {

enum class Element : int8_t { kBool, kI64, kF16, kBF16, kF32, kF64 };

struct Operand {
  void* data = nullptr;
  Element element = Element::kF32;
  int64_t count = 0;
  // Of each dimension, in elements; empty: dense.
  std::vector<int64_t> sizes = {};
  std::vector<int64_t> strides = {};
};

struct Call {
  std::map<std::string, std::vector<Operand>> tensors;
  std::map<std::string, double> scalars;
  std::map<std::string, std::vector<int64_t>> ints;
  std::map<std::string, std::string> strings;
  std::map<std::string, std::vector<double>> lists;
  // Scalars that the kernel reads from device memory when it runs, for the
  // kernels and names of which kernels/README.md says so; these come before
  // `scalars` of the same name.
  std::map<std::string, const double*> device_scalars;
  std::vector<Operand> results;
  // cudaStream_t for a device launch.
  void* stream = nullptr;
  // Device scratch of at least what Kernel::workspace asks for, 256-byte
  // aligned. The launch owns it until the stream has passed it.
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
};

using Launch = absl::Status (*)(const Call& call);
// Bytes of device scratch that `call` needs; only its sizes and attributes are
// read.
using Workspace = absl::StatusOr<int64_t> (*)(const Call& call);

struct Kernel {
  // The reference, on host memory.
  Launch host = nullptr;
  // nullptr where the kernel has no device code in this build.
  Launch device = nullptr;
  // nullptr: the device code needs no scratch.
  Workspace workspace = nullptr;
};

// nullptr for an unknown name.
const Kernel* Find(const std::string& name);

// "accumulate, adamw, ...", for errors.
std::string KnownNames();

// Called by static initialisers of the files that define kernels.
struct Registration {
  Registration(const char* name, Launch host, Launch device);
};

// Adds device code to a kernel that another file registers on the host.
struct DeviceRegistration {
  DeviceRegistration(const char* name, Launch device,
                     Workspace workspace = nullptr);
};

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_REGISTRY_H_
