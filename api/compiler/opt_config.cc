// Goes through the options that heddle_compile takes, so that both doors refuse
// the same things.
#include "api/compiler/opt_config.h"

#include "api/compiler/deepspeed.h"
#include "api/compiler/options.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Regex.h"

namespace heddle {
namespace {

using llvm::json::Object;
using llvm::json::Value;

// The number of ranks that "mesh=dp:4,ep:2" makes.
int64_t ranksOf(llvm::StringRef pipeline) {
  int64_t ranks = 1;
  llvm::SmallVector<llvm::StringRef> match;
  if (!llvm::Regex("(^| )mesh=([^ ]*)").match(pipeline, &match)) return 1;
  llvm::SmallVector<llvm::StringRef> axes;
  match[2].split(axes, ',');
  for (llvm::StringRef axis : axes) {
    int64_t size = 0;
    if (!axis.split(':').second.getAsInteger(10, size) && size > 0)
      ranks *= size;
  }
  return ranks;
}

std::string checkPrecision(const std::string& config,
                           const std::string& program, llvm::StringRef asked) {
  auto file = llvm::MemoryBuffer::getFile(program);
  if (!file) return "";  // reading the program says so
  llvm::StringRef text = (*file)->getBuffer();
  if (text.starts_with("ML\xefR"))
    return config + ": it asks for " + asked.str() + ", and " + program +
           " is bytecode, which does not show its precision before it is "
           "read; give the text";
  llvm::SmallVector<llvm::StringRef> match;
  if (!llvm::Regex("precision = \"([a-z0-9]+)\"").match(text, &match) ||
      match[1] == asked)
    return "";
  return config + ": it asks for " + asked.str() + " and " + program +
         " was captured in " + match[1].str() + "; capture it in " +
         asked.str();
}

}  // namespace

std::string pipelineOfConfig(const std::string& config,
                             const std::string& program,
                             const std::string& given, std::string& pipeline,
                             std::vector<std::string>& warnings) {
  auto file = llvm::MemoryBuffer::getFile(config);
  if (!file) return config + ": " + file.getError().message();
  std::string read;
  std::string context =
      "{\"world_size\": " + std::to_string(ranksOf(given)) + "}";
  if (std::string error =
          ReadDeepSpeed((*file)->getBuffer().str(), context, &read);
      !error.empty())
    return config + ": " + error;
  llvm::Expected<Value> parsed = llvm::json::parse(read);
  if (!parsed) return llvm::toString(parsed.takeError());
  Object& root = *parsed->getAsObject();
  for (const Value& warning : *root.getArray("warnings"))
    warnings.push_back(config + ": " + warning.getAsString()->str());

  Object options{{"mode", "train"}}, recorded;
  for (auto& [keyRef, value] : *root.getObject("plan")) {
    llvm::StringRef key = keyRef;
    if (key == "precision") {
      if (std::string error =
              checkPrecision(config, program, *value.getAsString());
          !error.empty())
        return error;
      recorded[key] = value;
    } else if (key == "dp") {
      options["mesh"] = "dp:" + std::to_string(*value.getAsInteger());
    } else if (isCompileOption(key)) {
      options[key] = value;
    } else {
      warnings.push_back(
          llvm::formatv("{0}: {1} = {2} has no effect on one rank", config, key,
                        value)
              .str());
    }
  }
  if (Object* optimizer = root.getObject("optimizer")) {
    Object update = *optimizer;
    recorded["lr"] = *update.get("lr");
    update.erase("lr");
    if (const Value* dtype = update.get("state_dtype")) {
      options["state_dtype"] = *dtype;
      update.erase("state_dtype");
    }
    options["optimizer"] = Value(std::move(update));
  }
  if (Object* schedule = root.getObject("schedule"))
    recorded["schedule"] = Value(Object(*schedule));
  if (const Value* clip = options.get("clip")) recorded["clip"] = *clip;
  recorded["batch"] = *root.get("batch");
  options["config"] = Value(std::move(recorded));

  CompileOptions compiled;
  if (std::string error = parseCompileOptions(
          llvm::formatv("{0}", Value(std::move(options))).str(), compiled);
      !error.empty())
    return config + ": " + error;
  const TrainingPipelineOptions& o = compiled.pipeline;
  const std::pair<const char*, std::string> settings[] = {
      {"zero", std::to_string(o.zero)}, {"ep", std::to_string(o.ep)},
      {"sp", std::to_string(o.sp)},     {"mesh", o.mesh},
      {"optimizer", o.optimizer},       {"config", o.config}};
  pipeline = "mode=train";
  for (const auto& [key, value] : settings) {
    pipeline += std::string(" ") + key + "=" + value;
    if (llvm::Regex(std::string("(^| )") + key + "=").match(given))
      warnings.push_back(std::string("--train-pipeline's ") + key +
                         " is taken instead of " + config + "'s");
  }
  pipeline += placementFlags(o);
  if (!o.reduceDtype.empty()) pipeline += " reduce-dtype=" + o.reduceDtype;
  pipeline += " " + given;
  return "";
}

}  // namespace heddle
