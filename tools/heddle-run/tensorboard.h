// Scalars -> a TensorBoard event file. Invariant: after every Write the file
// holds whole records only, so that TensorBoard can read it while it grows.

#ifndef HEDDLE_TOOLS_HEDDLE_RUN_TENSORBOARD_H_
#define HEDDLE_TOOLS_HEDDLE_RUN_TENSORBOARD_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heddle::run {

class EventFile {
 public:
  // Creates DIR and DIR/events.out.tfevents.TIME.HOST.PID.
  static absl::StatusOr<std::unique_ptr<EventFile>> Create(
      const std::string& directory);
  ~EventFile();

  [[nodiscard]] absl::Status Write(
      int64_t step, double wall_time,
      const std::vector<std::pair<std::string, double>>& scalars);

 private:
  EventFile() = default;
  absl::Status Append(const std::string& event);

  std::FILE* file_ = nullptr;
  std::string path_;
};

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_TENSORBOARD_H_
