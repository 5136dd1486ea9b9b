#include "passes/schedule/plan_config.h"

#include "llvm/Support/FormatVariadic.h"

namespace heddle {

void recordInConfig(sched::PlanOp plan, llvm::StringRef key,
                    llvm::json::Value value) {
  llvm::Expected<llvm::json::Value> config =
      llvm::json::parse(plan.getConfig());
  llvm::json::Object object;
  if (!config) {
    llvm::consumeError(config.takeError());
  } else if (llvm::json::Object* parsed = config->getAsObject()) {
    object = std::move(*parsed);
  }
  object[key] = std::move(value);
  plan.setConfig(
      llvm::formatv("{0}", llvm::json::Value(std::move(object))).str());
}

}  // namespace heddle
