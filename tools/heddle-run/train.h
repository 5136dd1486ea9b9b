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
};

// Loads, trains, logs and writes. `stop` set: ends after the step in hand, with
// a checkpoint.
Outcome train(const Options& options, const std::atomic<bool>& stop);

// The factor on the learning rate at 1-based `step` of `total`: linear warm-up,
// then constant, linear to 0 or cosine to 0.
double scheduleFactor(const std::string& schedule, int64_t step, int64_t warmup,
                      int64_t total);

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_TRAIN_H_
