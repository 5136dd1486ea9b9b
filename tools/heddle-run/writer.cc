// See the header: a thread, its result, and nothing shared but those.

#include "tools/heddle-run/writer.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"

namespace heddle::run {

BackgroundWriter::~BackgroundWriter() {
  if (thread_.joinable()) thread_.join();
}

void BackgroundWriter::Start(
    std::function<absl::StatusOr<std::string>()> write) {
  done_ = false;
  thread_ = std::thread([this, write = std::move(write)] {
    // LibTorch and the file system library throw where memory ends.
    try {
      result_ = write();
    } catch (const std::exception& error) {
      result_ = absl::InternalError(
          absl::StrCat("a checkpoint was not written: ", error.what()));
    }
    done_ = true;
  });
}

absl::StatusOr<std::string> BackgroundWriter::Wait() {
  if (!thread_.joinable()) return std::string();
  thread_.join();
  return std::exchange(result_, std::string());
}

}  // namespace heddle::run
