// The training loop of heddle-run.

#ifndef HEDDLE_TOOLS_HEDDLE_RUN_TRAIN_H_
#define HEDDLE_TOOLS_HEDDLE_RUN_TRAIN_H_

#include <atomic>

#include "absl/status/status.h"
#include "tools/heddle-run/options.h"

namespace heddle::run {

struct Outcome {
  absl::Status status;
  // True once the first step began: an error after that is a failed run, not a
  // wrong input.
  bool started = false;
  // True if `stop` ended it before its last step.
  bool stopped = false;
};

// Loads, trains, logs and writes. `stop` set: ends after the step in hand, with
// a checkpoint.
Outcome train(const Options& options, const std::atomic<bool>& stop);

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_TRAIN_H_
