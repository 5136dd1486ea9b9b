// Reads tokens. A wrong token is found before the first step: the embedding
// would read outside its table.

#include "tools/heddle-run/data.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tools/heddle-run/tensors.h"

namespace heddle::run {
namespace {

absl::StatusOr<at::Tensor> readBin(const Options& options, int64_t vocabulary) {
  if (options.seq == 0)
    return absl::InvalidArgumentError(
        absl::StrCat(options.data, ": a flat token file needs --seq S"));
  std::ifstream file(options.data, std::ios::binary | std::ios::ate);
  if (!file)
    return absl::NotFoundError(
        absl::StrCat(options.data, ": no such data file"));
  const bool wide = options.tokenType.empty() ? vocabulary > 65536
                                              : options.tokenType == "uint32";
  const int64_t bytes = static_cast<int64_t>(file.tellg());
  const int64_t element = wide ? 4 : 2;
  if (bytes % element != 0)
    return absl::InvalidArgumentError(absl::StrCat(
        options.data, ": ", bytes, " bytes are no whole number of ", element,
        "-byte tokens; is --token-type right?"));
  const int64_t rows = bytes / element / options.seq;
  if (rows == 0)
    return absl::InvalidArgumentError(
        absl::StrCat(options.data, ": too short: ", bytes / element,
                     " tokens do not fill one row of ", options.seq));
  at::Tensor tokens = at::empty({rows, options.seq}, at::kLong);
  int64_t* out = tokens.mutable_data_ptr<int64_t>();
  file.seekg(0);
  std::vector<char> block(1 << 20);
  for (int64_t left = rows * options.seq * element; left > 0;) {
    const int64_t now =
        std::min<int64_t>(left, static_cast<int64_t>(block.size()));
    if (!file.read(block.data(), now))
      return absl::InvalidArgumentError(
          absl::StrCat(options.data, ": cannot be read"));
    for (int64_t at = 0; at < now; at += element) {
      uint32_t token = 0;
      for (int64_t b = element; b-- > 0;)
        token = token << 8 |
                static_cast<uint8_t>(block[static_cast<size_t>(at + b)]);
      *out++ = token;
    }
    left -= now;
  }
  return tokens;
}

}  // namespace

absl::StatusOr<int64_t> vocabularySize(const std::string& directory) {
  const std::string path = directory + "/config.json";
  std::ifstream file(path);
  if (!file)
    return absl::NotFoundError(
        absl::StrCat(path,
                     ": there is no config.json; --weights must be a Hugging "
                     "Face model directory"));
  std::stringstream text;
  text << file.rdbuf();
  const nlohmann::json config =
      nlohmann::json::parse(text.str(), nullptr, false);
  if (!config.is_object())
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a JSON object"));
  for (const nlohmann::json* at :
       {&config,
        config.contains("text_config") ? &config["text_config"] : &config}) {
    if (at->is_object() && at->contains("vocab_size") &&
        (*at)["vocab_size"].is_number_unsigned())
      return (*at)["vocab_size"].get<int64_t>();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": there is no vocab_size"));
}

absl::StatusOr<Data> Data::open(const Options& options, const plan::Plan& plan,
                                int64_t vocabulary) {
  Data data;
  std::map<std::string, at::Tensor> columns;
  const bool bin =
      options.data.size() > 4 &&
      options.data.compare(options.data.size() - 4, 4, ".bin") == 0;
  if (bin) {
    absl::StatusOr<at::Tensor> tokens = readBin(options, vocabulary);
    if (!tokens.ok()) return tokens.status();
    columns["input_ids"] = *tokens;
  } else {
    absl::StatusOr<std::unique_ptr<safetensors::File>> file =
        safetensors::File::Open(options.data);
    if (!file.ok()) return file.status();
    data.file_ = *std::move(file);
    for (const auto& [name, tensor] : data.file_->tensors()) {
      absl::StatusOr<at::Tensor> view = tensorOver(tensor);
      if (!view.ok())
        return absl::InvalidArgumentError(absl::StrCat(
            options.data, ": column ", name, ": ", view.status().message()));
      columns[name] = *view;
    }
  }
  if (columns.count("input_ids") == 0)
    return absl::InvalidArgumentError(
        absl::StrCat(options.data, ": there is no column input_ids"));
  // A causal language model shifts its labels itself: they are the tokens.
  if (columns.count("labels") == 0) columns["labels"] = columns["input_ids"];
  for (const plan::Binding& input : plan.inputs) {
    const plan::Value& value = plan.values[input.value];
    const auto column = columns.find(input.name);
    if (column == columns.end())
      return absl::InvalidArgumentError(
          absl::StrCat(options.data, ": the step has an input ", input.name,
                       " and the data has no such column"));
    const at::Tensor& rows = column->second;
    bool fits = rows.dim() >= 1 &&
                static_cast<size_t>(rows.dim()) == value.sizes.size();
    for (int64_t d = 1; fits && d < rows.dim(); ++d)
      fits = rows.size(d) == value.sizes[static_cast<size_t>(d)];
    if (!fits) {
      return absl::InvalidArgumentError(absl::StrCat(
          options.data, ": column ", input.name, " has shape ",
          sizesText(rows.sizes()), " and the step takes batches of ",
          sizesText(value.sizes), bin ? "; is --seq right?" : ""));
    }
    if (data.batchRows_ != 0 && data.batchRows_ != value.sizes[0])
      return absl::UnimplementedError(
          absl::StrCat("input ", input.name,
                       " has another leading dimension than the other inputs"));
    data.batchRows_ = value.sizes[0];
    if (data.rows_ != 0 && data.rows_ != rows.size(0))
      return absl::InvalidArgumentError(
          absl::StrCat(options.data, ": column ", input.name, " has ",
                       rows.size(0), " rows and another has ", data.rows_));
    data.rows_ = rows.size(0);
    data.columns_[input.name] = {rows,
                                 torch_runtime::ToScalarType(value.dtype)};
    if (input.name == "input_ids")
      data.tokensPerBatch_ = plan::ElementCount(value);
  }
  if (data.columns_.count("input_ids") == 0)
    return absl::InvalidArgumentError(
        absl::StrCat(options.plan,
                     ": the step has no input input_ids; heddle-run trains "
                     "language models"));
  data.batchesPerStep_ =
      options.microBatches * static_cast<int64_t>(plan::WorldSize(plan));
  const int64_t needed = data.batchRows_ * data.batchesPerStep_;
  if (data.rows_ < needed)
    return absl::InvalidArgumentError(
        absl::StrCat(options.data, ": too short: one step takes ", needed,
                     " rows and the file has ", data.rows_));
  if (absl::Status status = data.checkTokens(options, vocabulary); !status.ok())
    return status;
  return data;
}

absl::Status Data::checkTokens(const Options& options,
                               int64_t vocabulary) const {
  for (const char* name : {"input_ids", "labels"}) {
    const auto column = columns_.find(name);
    if (column == columns_.end()) continue;
    const int64_t used =
        std::min(rows_, options.steps * batchesPerStep_ * batchRows_);
    const at::Tensor tokens =
        column->second.rows.narrow(0, 0, used).to(at::kLong).contiguous();
    const int64_t* p = tokens.const_data_ptr<int64_t>();
    const int64_t width = tokens.numel() / std::max<int64_t>(used, 1);
    for (int64_t i = 0; i < tokens.numel(); ++i) {
      const bool ignored = std::string(name) == "labels" && p[i] == -100;
      if (ignored || (p[i] >= 0 && p[i] < vocabulary)) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          options.data, ": ", name, " row ", i / width, " position ", i % width,
          ": token ", p[i], " is outside the model's vocabulary of ",
          vocabulary, "; tokenize with the model's own tokenizer"));
    }
  }
  return absl::OkStatus();
}

torch_runtime::TensorMap Data::batch(int64_t index) const {
  torch_runtime::TensorMap batch;
  const int64_t first = index * batchRows_ % rows_;
  for (const auto& [name, column] : columns_) {
    at::Tensor rows =
        column.rows.narrow(0, first, std::min(batchRows_, rows_ - first));
    if (rows.size(0) < batchRows_)
      rows =
          at::cat({rows, column.rows.narrow(0, 0, batchRows_ - rows.size(0))});
    batch[name] = rows.to(column.type);
  }
  return batch;
}

}  // namespace heddle::run
