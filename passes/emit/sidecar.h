// step.safetensors -> constants by name. The file is read whole: it holds small
// tensors only. Invariant: every tensor returned lies inside the file and its
// bytes match its shape and dtype; anything else is an error that names the
// file and the tensor.
#ifndef HEDDLE_PASSES_EMIT_SIDECAR_H_
#define HEDDLE_PASSES_EMIT_SIDECAR_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace heddle {

struct SidecarTensor {
  std::string dtype;  // as safetensors spells it: "F32", "I64", "BOOL"
  std::vector<int64_t> shape;
  std::string data;
};

using Sidecar = std::map<std::string, SidecarTensor>;

// Returns "" or the error.
std::string readSidecar(const std::string& path, Sidecar& sidecar);

}  // namespace heddle

#endif  // HEDDLE_PASSES_EMIT_SIDECAR_H_
