// Checkpoints off the step's path: the state is copied to host memory between
// two steps, and a thread writes it while the next ones run. Invariant: one
// version is being written at a time, and what went wrong with it is said
// before the next begins.

#ifndef HEDDLE_TOOLS_HEDDLE_RUN_WRITER_H_
#define HEDDLE_TOOLS_HEDDLE_RUN_WRITER_H_

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace heddle::run {

class BackgroundWriter {
 public:
  BackgroundWriter() = default;
  BackgroundWriter(const BackgroundWriter&) = delete;
  BackgroundWriter& operator=(const BackgroundWriter&) = delete;
  // Ends with what is being written.
  ~BackgroundWriter();

  // Runs `write`, which returns the version's path, on a thread. There must be
  // no other under way: Wait first.
  void Start(std::function<absl::StatusOr<std::string>()> write);
  // Whether a started write has come to its end and was not waited for yet.
  bool Finished() const { return thread_.joinable() && done_; }
  // The path of the version that was written, "" where none was started since
  // the last Wait, or what went wrong.
  absl::StatusOr<std::string> Wait();

 private:
  std::thread thread_;
  std::atomic<bool> done_{false};
  absl::StatusOr<std::string> result_;
};

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_WRITER_H_
