// Checks keys and kinds; the optimizer's own keys are checked by the pass that
// uses them. A key accepted here and used nowhere would be a silent default.
#include "api/compiler/options.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

namespace heddle {
namespace {

using llvm::json::Object;
using llvm::json::Value;

constexpr llvm::StringRef kKeys[] = {"mode",
                                     "sidecar",
                                     "eval_sidecar",
                                     "optimizer",
                                     "clip",
                                     "skip_nonfinite",
                                     "loss_average",
                                     "loss_scale",
                                     "accumulate_dtype",
                                     "master_dtype",
                                     "state_dtype",
                                     "reproducer_dir",
                                     "zero",
                                     "ep",
                                     "sp",
                                     "mesh",
                                     "reduce_dtype",
                                     "overlap",
                                     "prefetch",
                                     "max_live",
                                     "reducing",
                                     "memory",
                                     "device_memory",
                                     "unshard",
                                     "costs",
                                     "save_phases",
                                     "fuse",
                                     "config"};
// Keys that go to graph-append-optimizer as they are.
constexpr llvm::StringRef kUpdateKeys[] = {
    "clip",       "skip_nonfinite",   "loss_average",
    "loss_scale", "accumulate_dtype", "master_dtype",
    "state_dtype"};

std::string wrongKind(llvm::StringRef key, llvm::StringRef expected) {
  return "compile option '" + key.str() + "' must be " + expected.str();
}

}  // namespace

bool isCompileOption(llvm::StringRef key) {
  return llvm::is_contained(kKeys, key);
}

std::string parseCompileOptions(llvm::StringRef json, CompileOptions& options) {
  llvm::Expected<Value> parsed =
      llvm::json::parse(json.trim().empty() ? "{}" : json);
  if (!parsed)
    return "compile options are no JSON: " + llvm::toString(parsed.takeError());
  Object* object = parsed->getAsObject();
  if (!object) return "compile options must be a JSON object";

  Object update{{"skip_nonfinite", true}};
  for (auto& [keyRef, value] : *object) {
    llvm::StringRef key = keyRef;
    if (!llvm::is_contained(kKeys, key)) {
      std::string nearest = nearestName(key, kKeys);
      return "unknown compile option '" + key.str() + "'" +
             (nearest.empty() ? "" : "; did you mean '" + nearest + "'?");
    }
    if (value.kind() == Value::Null) continue;
    TrainingPipelineOptions& pipeline = options.pipeline;
    std::string* text = key == "mode"             ? &pipeline.mode
                        : key == "sidecar"        ? &pipeline.sidecar
                        : key == "eval_sidecar"   ? &pipeline.evalSidecar
                        : key == "mesh"           ? &pipeline.mesh
                        : key == "reduce_dtype"   ? &pipeline.reduceDtype
                        : key == "save_phases"    ? &pipeline.savePhases
                        : key == "fuse"           ? &pipeline.fuse
                        : key == "costs"          ? &pipeline.costs
                        : key == "reproducer_dir" ? &options.reproducerDir
                                                  : nullptr;
    int* number = key == "zero" ? &pipeline.zero
                  : key == "ep" ? &pipeline.ep
                  : key == "sp" ? &pipeline.sp
                                : nullptr;
    int64_t* count = key == "prefetch"        ? &pipeline.prefetch
                     : key == "max_live"      ? &pipeline.maxLive
                     : key == "reducing"      ? &pipeline.reducing
                     : key == "memory"        ? &pipeline.memory
                     : key == "device_memory" ? &pipeline.deviceMemory
                                              : nullptr;
    bool* flag = key == "overlap"   ? &pipeline.overlap
                 : key == "unshard" ? &pipeline.unshard
                                    : nullptr;
    if (text) {
      if (!value.getAsString()) return wrongKind(key, "a string");
      *text = value.getAsString()->str();
    } else if (number) {
      if (!value.getAsInteger()) return wrongKind(key, "an integer");
      *number = static_cast<int>(*value.getAsInteger());
    } else if (count) {
      if (!value.getAsInteger()) return wrongKind(key, "an integer");
      *count = *value.getAsInteger();
    } else if (flag) {
      if (!value.getAsBoolean()) return wrongKind(key, "true or false");
      *flag = *value.getAsBoolean();
    } else if (key == "config") {
      if (!value.getAsObject()) return wrongKind(key, "an object");
      pipeline.config = llvm::formatv("{0}", value).str();
    } else if (key == "optimizer") {
      Object* optimizer = value.getAsObject();
      if (!optimizer) return wrongKind(key, "an object");
      for (auto& [nameRef, setting] : *optimizer) {
        llvm::StringRef name = nameRef;
        if (name == "kind") {
          if (setting.getAsString() != llvm::StringRef("adamw") &&
              setting.getAsString() != llvm::StringRef("muon"))
            return llvm::formatv(
                       "optimizer kind {0} is not known to this compiler; use "
                       "\"adamw\" or \"muon\"",
                       setting)
                .str();
        } else {
          update[name] = setting;
        }
      }
    } else if (llvm::is_contained(kUpdateKeys, key)) {
      update[key] = value;
    }
  }
  options.pipeline.optimizer =
      llvm::formatv("{0}", Value(Object(update))).str();
  if (options.pipeline.mode == "train") {
    // The plan says what it was made with, whoever reads it later.
    llvm::Expected<Value> config = llvm::json::parse(options.pipeline.config);
    if (!config) return llvm::toString(config.takeError());
    (*config->getAsObject())["update"] = std::move(update);
    options.pipeline.config = llvm::formatv("{0}", *config).str();
  }
  return checkTrainingOptions(options.pipeline);
}

}  // namespace heddle
