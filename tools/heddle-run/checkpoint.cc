// See the header for the layout. Optimizer tensors are named "kind/NAME".

#include "tools/heddle-run/checkpoint.h"

#include <filesystem>
#include <memory>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tools/heddle-run/tensors.h"
#include "tools/heddle-run/versions.h"

namespace heddle::run {
namespace {

namespace fs = std::filesystem;

constexpr int kFormatVersion = 1;

template <typename Entry>
bool isWeight(const Entry& entry) {
  return entry.kind == "parameter" || entry.kind == "master" ||
         (entry.kind == "buffer" && entry.persistent);
}
template <typename Entry>
bool isOptimizer(const Entry& entry) {
  return entry.kind == "exp_avg" || entry.kind == "exp_avg_sq" ||
         entry.kind == "momentum" || entry.kind == "master" ||
         entry.kind == "scaler";
}

// The name under which tied weights lie in the file.
const safetensors::Tensor* findTied(const safetensors::Weights& weights,
                                    const plan::StateEntry& entry) {
  for (const std::string& name : entry.names) {
    if (const safetensors::Tensor* tensor = weights.Find(name)) return tensor;
  }
  return nullptr;
}

absl::Status writeModel(const Snapshot& snapshot,
                        const safetensors::Weights& weights,
                        const std::string& path) {
  safetensors::TensorMap out = weights.tensors();
  std::vector<at::Tensor> keep;
  for (const Snapshot::Entry& entry : snapshot.state) {
    if (!isWeight(entry)) continue;
    for (const std::string& name : entry.names) {
      const auto tensor = out.find(name);
      if (tensor == out.end()) continue;
      absl::StatusOr<at::Tensor> original = tensorOver(tensor->second);
      if (!original.ok()) return original.status();
      keep.push_back(entry.value.to(original->scalar_type()).contiguous());
      absl::StatusOr<safetensors::Tensor> written = entryOver(keep.back());
      if (!written.ok()) return written.status();
      tensor->second = *written;
    }
  }
  return safetensors::Write(path, out, {{"format", "pt"}});
}

absl::Status writeOptimizer(const Snapshot& snapshot, const std::string& path) {
  safetensors::TensorMap out;
  std::vector<at::Tensor> keep;
  for (const Snapshot::Entry& entry : snapshot.state) {
    if (!isOptimizer(entry)) continue;
    keep.push_back(entry.value.contiguous());
    absl::StatusOr<safetensors::Tensor> written = entryOver(keep.back());
    if (!written.ok()) return written.status();
    out[entry.kind + "/" + entry.names[0]] = *written;
  }
  return safetensors::Write(path, out, {});
}

// optimizer.safetensors, or the parts that several processes wrote. Opened,
// tensors point into the files.
struct OptimizerFiles {
  std::vector<std::unique_ptr<safetensors::File>> files;
  safetensors::TensorMap tensors;
};
absl::StatusOr<OptimizerFiles> openOptimizer(const std::string& version) {
  std::set<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& file :
       fs::directory_iterator(version, error)) {
    const std::string name = file.path().filename().string();
    if (name.rfind("optimizer", 0) == 0 &&
        file.path().extension() == ".safetensors")
      names.insert(name);
  }
  if (names.empty()) names.insert("optimizer.safetensors");  // Open says so
  OptimizerFiles opened;
  for (const std::string& name : names) {
    absl::StatusOr<std::unique_ptr<safetensors::File>> file =
        safetensors::File::Open(version + "/" + name);
    if (!file.ok()) return file.status();
    for (const auto& [key, tensor] : (*file)->tensors())
      opened.tensors[key] = tensor;
    opened.files.push_back(*std::move(file));
  }
  return opened;
}

// config.json, generation_config.json, the tokenizer: everything small beside
// the weights.
absl::Status copySmallFiles(const std::string& from, const std::string& to) {
  std::error_code error;
  for (const fs::directory_entry& file : fs::directory_iterator(from, error)) {
    const std::string name = file.path().filename().string();
    const std::string extension = file.path().extension().string();
    const bool wanted =
        (extension == ".json" || extension == ".txt" || extension == ".model" ||
         extension == ".jinja" || extension == ".py") &&
        name != "model.safetensors.index.json" && name != "trainer.json" &&
        name != "manifest.json";
    if (!wanted || !file.is_regular_file()) continue;
    if (absl::Status status = safetensors::WriteBytes(
            to + "/" + name, readFile(file.path().string()));
        !status.ok())
      return status;
  }
  return error ? filesystemError(from, error) : absl::OkStatus();
}

}  // namespace

absl::Status loadWeights(torch_runtime::Ranks& ranks,
                         const safetensors::Weights& weights,
                         const std::string& directory) {
  for (const plan::StateEntry& entry : ranks.plan().state) {
    if (!isWeight(entry)) continue;
    const safetensors::Tensor* found = findTied(weights, entry);
    if (found == nullptr)
      return absl::NotFoundError(absl::StrCat(
          directory, ": weights are missing: there is no tensor ",
          entry.names[0], "; is this the model that the plan was made from?"));
    const std::vector<int64_t>& sizes =
        entry.bounds.empty() ? ranks.plan().values[entry.value].sizes
                             : entry.sizes;
    if (found->shape != sizes)
      return absl::InvalidArgumentError(absl::StrCat(
          directory, ": tensor ", entry.names[0], " has shape ",
          sizesText(found->shape), " and the plan needs ", sizesText(sizes)));
    absl::StatusOr<at::Tensor> tensor = tensorOver(*found);
    if (!tensor.ok())
      return absl::InvalidArgumentError(
          absl::StrCat(directory, ": tensor ", entry.names[0], ": ",
                       tensor.status().message()));
    if (absl::Status status =
            ranks.SetState(entry.kind, entry.names[0], *tensor);
        !status.ok())
      return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<Position> resume(torch_runtime::Ranks& ranks,
                                const std::string& directory) {
  const std::string latest = directory + "/latest";
  const nlohmann::json trainer =
      nlohmann::json::parse(readFile(latest + "/trainer.json"), nullptr, false);
  if (!trainer.is_object() || !trainer.contains("format_version") ||
      !trainer.contains("step") || !trainer["step"].is_number_unsigned())
    return absl::NotFoundError(
        absl::StrCat(latest, ": there is no checkpoint to resume from"));
  if (trainer["format_version"] != kFormatVersion)
    return absl::InvalidArgumentError(absl::StrCat(
        latest, ": checkpoint format version ",
        trainer["format_version"].dump(),
        " cannot be read, this heddle-run reads version ", kFormatVersion));
  if (absl::Status status = checkVersion(latest); !status.ok()) return status;
  absl::StatusOr<safetensors::Weights> weights =
      safetensors::Weights::Open(latest);
  if (!weights.ok()) return weights.status();
  if (absl::Status status = loadWeights(ranks, *weights, latest); !status.ok())
    return status;
  absl::StatusOr<OptimizerFiles> optimizer = openOptimizer(latest);
  if (!optimizer.ok()) return optimizer.status();
  for (const plan::StateEntry& entry : ranks.plan().state) {
    if (!isOptimizer(entry)) continue;
    const std::string name = entry.kind + "/" + entry.names[0];
    const auto found = optimizer->tensors.find(name);
    // A run that did not scale its loss: the scale begins anew.
    if (entry.kind == "scaler" && found == optimizer->tensors.end()) continue;
    if (found == optimizer->tensors.end())
      return absl::NotFoundError(
          absl::StrCat(latest, ": the optimizer's files have no tensor ", name,
                       "; is this a checkpoint of the same plan?"));
    absl::StatusOr<at::Tensor> tensor = tensorOver(found->second);
    if (!tensor.ok()) return tensor.status();
    if (absl::Status status =
            ranks.SetState(entry.kind, entry.names[0], *tensor);
        !status.ok())
      return status;
  }
  Position position;
  position.updates = position.steps = trainer["step"].get<int64_t>();
  const nlohmann::json extra = trainer.value("extra", nlohmann::json());
  if (extra.is_object() && extra.contains("steps_run") &&
      extra["steps_run"].is_number_unsigned())
    position.steps = extra["steps_run"].get<int64_t>();
  return position;
}

absl::Status prepareDirectory(const std::string& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error)
    return filesystemError(
        absl::StrCat(directory, ": cannot create the checkpoint directory"),
        error);
  const std::string probe = directory + "/.writable";
  if (absl::Status status = safetensors::WriteBytes(probe, "1"); !status.ok())
    return status;
  fs::remove(probe, error);
  return absl::OkStatus();
}

absl::StatusOr<Snapshot> takeSnapshot(torch_runtime::Ranks& ranks,
                                      const Position& at) {
  Snapshot snapshot;
  snapshot.at = at;
  std::set<std::string> masters;
  for (const plan::StateEntry& entry : ranks.plan().state) {
    if (entry.kind == "master") masters.insert(entry.names[0]);
  }
  for (const plan::StateEntry& entry : ranks.plan().state) {
    // A parameter follows from its master.
    if ((!isWeight(entry) && !isOptimizer(entry)) ||
        (entry.kind == "parameter" && masters.count(entry.names[0]) != 0))
      continue;
    absl::StatusOr<at::Tensor> value =
        ranks.GetState(entry.kind, entry.names[0]);
    if (!value.ok()) return value.status();
    snapshot.state.push_back(
        {entry.kind, entry.names, entry.persistent, value->cpu()});
  }
  return snapshot;
}

absl::StatusOr<std::string> saveCheckpoint(const Snapshot& snapshot,
                                           const safetensors::Weights& weights,
                                           const std::string& weightsDirectory,
                                           const std::string& directory,
                                           int64_t keep) {
  const Position& at = snapshot.at;
  return addVersion(
      directory, at.steps, keep, [&](const std::string& into) -> absl::Status {
        if (absl::Status status =
                writeModel(snapshot, weights, into + "/model.safetensors");
            !status.ok())
          return status;
        if (absl::Status status =
                writeOptimizer(snapshot, into + "/optimizer.safetensors");
            !status.ok())
          return status;
        if (absl::Status status = copySmallFiles(weightsDirectory, into);
            !status.ok())
          return status;
        const nlohmann::json trainer = {{"format_version", kFormatVersion},
                                        {"step", at.updates},
                                        {"extra", {{"steps_run", at.steps}}}};
        return safetensors::WriteBytes(into + "/trainer.json",
                                       trainer.dump(2) + "\n");
      });
}

}  // namespace heddle::run
