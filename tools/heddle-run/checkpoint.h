// Weights in, checkpoints out.
// A version is a directory DIR/step-N that transformers' from_pretrained loads:
// model.safetensors in the dtypes of the weights it started from, config.json
// and the other small files of the weights directory; optimizer.safetensors and
// trainer.json beside them. versions.h says how it gets to the disk.

#ifndef HEDDLE_TOOLS_HEDDLE_RUN_CHECKPOINT_H_
#define HEDDLE_TOOLS_HEDDLE_RUN_CHECKPOINT_H_

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/safetensors/safetensors.h"
#include "runtime/torch/ranks.h"

namespace heddle::run {

// Fills parameters, masters and persistent buffers. NotFound / InvalidArgument
// name the tensor, both shapes and the directory.
absl::Status loadWeights(torch_runtime::Ranks& ranks,
                         const safetensors::Weights& weights,
                         const std::string& directory);

// How far a run is: the steps whose data it has taken, and those of them that
// were not skipped.
struct Position {
  int64_t steps = 0;
  int64_t updates = 0;
};

// Checks DIR/latest against its manifest, loads its weights and optimizer
// state; returns where it stands.
absl::StatusOr<Position> resume(torch_runtime::Ranks& ranks,
                                const std::string& directory);

// Creates DIR if need be and finds out that it can be written to, before any
// work is done.
absl::Status prepareDirectory(const std::string& directory);

// Everything that a version holds of the ranks' state, in host memory of its
// own.
struct Snapshot {
  struct Entry {
    std::string kind;
    std::vector<std::string> names;
    bool persistent = true;
    at::Tensor value;
  };
  std::vector<Entry> state;
  Position at;
};
absl::StatusOr<Snapshot> takeSnapshot(torch_runtime::Ranks& ranks,
                                      const Position& at);

// Returns the version's path when it is on the disk. Reads nothing of the
// ranks, so it may run while they go on.
absl::StatusOr<std::string> saveCheckpoint(const Snapshot& snapshot,
                                           const safetensors::Weights& weights,
                                           const std::string& weightsDirectory,
                                           const std::string& directory,
                                           int64_t keep);

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_CHECKPOINT_H_
