// heddle-run: trains a compiled step without Python.

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "api/errors/json_error.h"
#include "runtime/torch/process_world.h"
#include "tools/heddle-run/options.h"
#include "tools/heddle-run/train.h"

namespace {

std::atomic<bool> stopRequested{false};
std::atomic<int> stopSignal{0};

void onSignal(int signal) {
  // The second one ends the process at once.
  stopSignal = signal;
  stopRequested = true;
  std::signal(signal, SIG_DFL);
}

int report(const absl::Status& status, int code, bool json) {
  const std::string message(status.message());
  if (json) {
    std::fprintf(
        stderr, "%s\n",
        heddle::JsonError("heddle-run", code,
                          std::string(absl::StatusCodeToString(status.code())),
                          message)
            .c_str());
  } else {
    std::fprintf(stderr, "heddle-run: error: %s\n", message.c_str());
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  heddle::run::Options options;
  const absl::Status parsed = heddle::run::parseOptions(
      std::vector<std::string>(argv + 1, argv + argc), &options);
  if (!parsed.ok()) return report(parsed, 1, options.jsonErrors);
  if (options.help) {
    std::printf("%s", heddle::run::kUsage);
    return 0;
  }
  std::signal(SIGINT, onSignal);
  std::signal(SIGTERM, onSignal);
  const heddle::run::Outcome outcome =
      heddle::run::train(options, stopRequested);
  if (outcome.status.ok()) {
    heddle::torch_runtime::ProcessWorld::Leave();
    // The signal may have been another rank's.
    const int signal = stopSignal != 0 ? stopSignal.load() : SIGTERM;
    return outcome.stopped ? 128 + signal : 0;
  }
  // A rank that cannot go on tells the others, and ends with the verdict.
  if (auto* process = heddle::torch_runtime::ProcessWorld::Existing();
      process != nullptr && outcome.started)
    process->world()->Fail(outcome.status).IgnoreError();
  // A full disk is the caller's to fix, whenever it is noticed.
  const bool input =
      !outcome.started ||
      outcome.status.code() == absl::StatusCode::kResourceExhausted;
  return report(outcome.status, input ? 1 : 2, options.jsonErrors);
}
