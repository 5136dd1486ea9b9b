// The command line of heddle-run.

#ifndef HEDDLE_TOOLS_HEDDLE_RUN_OPTIONS_H_
#define HEDDLE_TOOLS_HEDDLE_RUN_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace heddle::run {

struct Options {
  std::string plan;
  std::string weights;
  std::string data;
  std::string checkpoint;
  std::string log;
  std::string tensorboard;
  std::string device;
  std::string schedule;
  std::string tokenType;
  std::optional<double> lr;
  std::optional<double> peakTflops;
  std::optional<double> deadline;
  std::string dumps;
  int64_t steps = 0;
  int64_t warmup = -1;
  int64_t seq = 0;
  int64_t microBatches = 1;
  int64_t checkpointEvery = 0;
  int64_t keep = 2;
  int64_t ranks = 0;  // 0: as many as the plan is for
  int64_t seed = 0;
  bool resume = false;
  bool measure = false;
  bool jsonErrors = false;
  bool help = false;
  // Not of the command line: writes nothing to the terminal.
  bool quiet = false;
};

extern const char* const kUsage;

// InvalidArgument names the nearest known option. `jsonErrors` of `*options` is
// set even if parsing fails later.
absl::Status parseOptions(const std::vector<std::string>& args,
                          Options* options);

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_OPTIONS_H_
