// Weights in, checkpoints out.
// A version is a directory DIR/step-N that transformers' from_pretrained loads:
// model.safetensors in the dtypes of the weights it started from, config.json
// and the other small files of the weights directory; optimizer.safetensors and
// trainer.json beside them. versions.h says how it gets to the disk.

#ifndef HEDDLE_TOOLS_HEDDLE_RUN_CHECKPOINT_H_
#define HEDDLE_TOOLS_HEDDLE_RUN_CHECKPOINT_H_

#include <string>

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

// Checks DIR/latest against its manifest, loads its weights and optimizer
// state; returns its step.
absl::StatusOr<int64_t> resume(torch_runtime::Ranks& ranks,
                               const std::string& directory);

// Creates DIR if need be and finds out that it can be written to, before any
// work is done.
absl::Status prepareDirectory(const std::string& directory);

// Returns the version's path when it is on the disk.
absl::StatusOr<std::string> saveCheckpoint(torch_runtime::Ranks& ranks,
                                           const safetensors::Weights& weights,
                                           const std::string& weightsDirectory,
                                           const std::string& directory,
                                           int64_t step, int64_t keep);

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_CHECKPOINT_H_
