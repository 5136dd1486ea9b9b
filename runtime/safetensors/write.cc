// The writer. A short write (no space left) is an error that names the file,
// and leaves none.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/safetensors/safetensors.h"

namespace heddle::safetensors {
namespace {

class Output {
 public:
  explicit Output(const std::string& path)
      : path_(path),
        fd_(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                 0644)) {
    if (fd_ < 0) Fail("cannot create");
    // Only a file of ours may be removed again; a device or a pipe belongs to
    // somebody else.
    struct stat info;
    regular_ = fstat(fd_, &info) == 0 && S_ISREG(info.st_mode);
  }
  ~Output() {
    if (fd_ >= 0) close(fd_);
    if (!status_.ok() && regular_) unlink(path_.c_str());
  }
  void Append(const void* data, size_t bytes) {
    const char* p = static_cast<const char*>(data);
    while (status_.ok() && bytes > 0) {
      const ssize_t n = write(fd_, p, std::min<size_t>(bytes, size_t{1} << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return Fail("cannot write");
      p += n;
      bytes -= static_cast<size_t>(n);
    }
  }
  absl::Status Finish() {
    if (status_.ok() && fsync(fd_) != 0) Fail("cannot sync");
    if (status_.ok() && close(fd_) != 0) {
      fd_ = -1;
      Fail("cannot close");
    }
    if (status_.ok()) fd_ = -1;
    return status_;
  }

 private:
  void Fail(const char* what) {
    const std::string message =
        absl::StrCat(path_, ": ", what, ": ", std::strerror(errno));
    status_ = errno == ENOSPC || errno == EDQUOT
                  ? absl::ResourceExhaustedError(absl::StrCat(
                        message, "; free some space or write elsewhere"))
                  : absl::InvalidArgumentError(message);
  }
  std::string path_;
  int fd_;
  bool regular_ = false;
  absl::Status status_;
};

}  // namespace

absl::Status Write(const std::string& path, const TensorMap& tensors,
                   const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {at, at + tensor.bytes}}};
    at += tensor.bytes;
  }
  std::string text = header.is_null() ? "{}" : header.dump();
  // Readers map the data: it begins at a multiple of 8.
  text.resize((text.size() + 7) / 8 * 8, ' ');
  uint8_t length[8];
  for (int i = 0; i < 8; ++i)
    length[i] = static_cast<uint8_t>(text.size() >> (8 * i));
  Output output(path);
  output.Append(length, sizeof(length));
  output.Append(text.data(), text.size());
  for (const auto& [name, tensor] : tensors)
    output.Append(tensor.data, tensor.bytes);
  return output.Finish();
}

absl::Status WriteBytes(const std::string& path, const std::string& bytes) {
  Output output(path);
  output.Append(bytes.data(), bytes.size());
  return output.Finish();
}

absl::Status SyncDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": cannot open: ", std::strerror(errno)));
  const bool synced = fsync(fd) == 0;
  const int error = errno;
  close(fd);
  return synced ? absl::OkStatus()
                : absl::InternalError(absl::StrCat(
                      path, ": cannot sync: ", std::strerror(error)));
}

}  // namespace heddle::safetensors
