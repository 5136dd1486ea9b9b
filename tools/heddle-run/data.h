// Token files as rows: safetensors columns, or a flat .bin cut into rows.

#ifndef HEDDLE_TOOLS_HEDDLE_RUN_DATA_H_
#define HEDDLE_TOOLS_HEDDLE_RUN_DATA_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/plan/plan.h"
#include "runtime/safetensors/safetensors.h"
#include "runtime/torch/session.h"
#include "tools/heddle-run/options.h"

namespace heddle::run {

// The size of the vocabulary that DIR/config.json declares. NotFound if there
// is no config.json.
absl::StatusOr<int64_t> vocabularySize(const std::string& directory);

class Data {
 public:
  // Opens the file and checks it against the plan's inputs: columns, shapes,
  // and that every token the run will read is in the vocabulary.
  static absl::StatusOr<Data> open(const Options& options,
                                   const plan::Plan& plan, int64_t vocabulary);

  // The plan's inputs for micro-batch number `index` of the run; rows go round
  // when the file ends.
  torch_runtime::TensorMap batch(int64_t index) const;
  int64_t tokensPerBatch() const { return tokensPerBatch_; }

 private:
  struct Column {
    at::Tensor rows;  // [N, ...]
    c10::ScalarType type = c10::ScalarType::Long;
  };
  absl::Status checkTokens(const Options& options, int64_t vocabulary) const;

  std::shared_ptr<safetensors::File> file_;
  std::map<std::string, Column> columns_;
  int64_t rows_ = 0;
  int64_t batchRows_ = 0;
  int64_t batchesPerStep_ = 0;  // of all ranks
  int64_t tokensPerBatch_ = 0;
};

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_DATA_H_
