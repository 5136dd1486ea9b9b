// Named tensors in files, as the safetensors format has them: an 8-byte header
// length, a JSON header, bytes. Invariant: a File that opened has a header
// whose every entry agrees with its dtype, its shape and the file: ranges lie
// inside the file, follow each other without gap or overlap, and are as long as
// the shape says. Data is mapped, not read. What would break it: another
// process shortening the file while it is mapped.

#ifndef HEDDLE_RUNTIME_SAFETENSORS_SAFETENSORS_H_
#define HEDDLE_RUNTIME_SAFETENSORS_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heddle::safetensors {

struct Tensor {
  std::string dtype;  // as in the file: F32, BF16, I64, ...
  std::vector<int64_t> shape;
  const uint8_t* data = nullptr;
  uint64_t bytes = 0;
};

// Bytes of one element, 0 for a dtype that the format does not have.
uint64_t ElementSize(const std::string& dtype);

// "F32[2, 3]".
std::string ShapeText(const Tensor& tensor);

using TensorMap = std::map<std::string, Tensor>;

struct Header {
  TensorMap tensors;  // data points into the bytes that were parsed
  std::map<std::string, std::string> metadata;
};

// Checks and reads a whole file's bytes. `name` begins every error.
absl::StatusOr<Header> Parse(const uint8_t* data, size_t size,
                             const std::string& name);

// A mapped file.
class File {
 public:
  static absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path);
  ~File();
  const TensorMap& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const {
    return header_.metadata;
  }

 private:
  File() = default;
  void* mapping_ = nullptr;
  size_t size_ = 0;
  Header header_;
};

// A model's weights: model.safetensors, or the shards that
// model.safetensors.index.json names.
class Weights {
 public:
  static absl::StatusOr<Weights> Open(const std::string& directory);
  // nullptr if there is no such tensor.
  const Tensor* Find(const std::string& name) const;
  const TensorMap& tensors() const { return tensors_; }

 private:
  std::vector<std::unique_ptr<File>> files_;
  TensorMap tensors_;
};

// Writes tensors in the map's order and returns when the bytes are on the disk.
// The file is complete or, after an error, removed.
[[nodiscard]] absl::Status Write(
    const std::string& path, const TensorMap& tensors,
    const std::map<std::string, std::string>& metadata);

// Writes any bytes the same way.
[[nodiscard]] absl::Status WriteBytes(const std::string& path,
                                      const std::string& bytes);

// fsync of a directory, so that names in it survive a crash.
[[nodiscard]] absl::Status SyncDirectory(const std::string& path);

}  // namespace heddle::safetensors

#endif  // HEDDLE_RUNTIME_SAFETENSORS_SAFETENSORS_H_
