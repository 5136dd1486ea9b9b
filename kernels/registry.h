// Names -> kernels: how a plan's kernel steps find their code, and what each of
// them computes in plain loops. Contract of every kernel: tensors by argument
// name and results by position are dense and of one layout, so a kernel walks
// `count` elements in memory order (`sizes` where a kernel's text speaks of
// rows and columns: row-major); scalars, strings and lists by name; nothing
// else but the workspace is read or written. The host reference defines the
// result; a device kernel may differ from it by rounding only where its header
// says so.

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
  // Row-major; left empty by callers of kernels that need only the count.
  std::vector<int64_t> sizes = {};
};

struct Call {
  std::map<std::string, std::vector<Operand>> tensors;
  std::map<std::string, double> scalars;
  std::map<std::string, std::vector<int64_t>> ints;
  std::map<std::string, std::string> strings;
  std::map<std::string, std::vector<double>> lists;
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
