// What a step reports -> the terminal, a JSONL file, TensorBoard.
// Invariant: every file has whole lines or records, one a step; on a terminal
// the progress bar is always the last line.

#ifndef HEDDLE_TOOLS_HEDDLE_RUN_STEP_LOG_H_
#define HEDDLE_TOOLS_HEDDLE_RUN_STEP_LOG_H_

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/heddle-run/options.h"
#include "tools/heddle-run/tensorboard.h"

namespace heddle::run {

struct StepReport {
  int64_t step = 0;
  double loss = 0;
  double gradNorm = 0;  // NaN: the plan does not compute it
  double lr = 0;
  double tokensPerSecond = 0;  // of one rank
  double mfu = 0;              // NaN: the device's peak is not known
  uint64_t memoryBytes = 0;
  bool skipped = false;
};

class StepLog {
 public:
  // Opens what `options` asks for. A run that goes on at `firstStep` drops the
  // lines of later steps, which a killed run may have left.
  static absl::StatusOr<std::unique_ptr<StepLog>> Open(
      const Options& options, const std::string& target, int64_t firstStep);
  ~StepLog();
  [[nodiscard]] absl::Status Write(const StepReport& report);
  // A line of its own, above the bar.
  void Say(const std::string& line);

 private:
  StepLog() = default;
  void DrawBar();
  void ClearBar();

  std::FILE* json_ = nullptr;
  std::string jsonPath_;
  std::unique_ptr<EventFile> events_;
  bool terminal_ = false;
  bool quiet_ = false;
  bool cuda_ = false;
  bool drawn_ = false;
  int64_t firstStep_ = 1;
  int64_t step_ = 0;
  int64_t steps_ = 0;
  std::chrono::steady_clock::time_point begin_;
};

// Peak of a device by its name and a plan's precision, in TFLOP/s of dense
// matrix products; 0 if it is not in the table.
double peakTflops(const std::string& device, const std::string& precision);

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_STEP_LOG_H_
