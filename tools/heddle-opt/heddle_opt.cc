// mlir-opt's driver over Heddle's dialects and passes, plus the three flags
// that belong to the training pipeline. Invariant: those flags only rewrite the
// command line, `-o step.plan --stop-after=sched` being `--train-pipeline="...
// output=step.plan stop-after=sched"`; what a pipeline does is decided in
// passes/pipelines.
#include "tools/heddle-opt/heddle_opt.h"

#include <string>
#include <vector>

#include "llvm/ADT/StringRef.h"
#include "mlir/IR/DialectRegistry.h"
#include "mlir/Support/LogicalResult.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "passes/pipelines.h"
#include "passes/verify/Passes.h"

namespace heddle {
namespace {

constexpr llvm::StringLiteral kPipeline = "--train-pipeline";

// The value of `--name=value` or `--name value` at `i`, which it moves to the
// last argument it took.
bool takeFlag(llvm::ArrayRef<std::string> arguments, size_t& i,
              llvm::StringRef name, std::string& value) {
  llvm::StringRef argument = arguments[i];
  if (argument.consume_front(name) && argument.consume_front("=")) {
    value = argument.str();
    return true;
  }
  if (arguments[i] != name || i + 1 == arguments.size()) return false;
  value = arguments[++i];
  return true;
}

// Moves the training pipeline's flags into its option text. Leaves command
// lines without --train-pipeline alone.
std::vector<std::string> foldTrainingFlags(
    llvm::ArrayRef<std::string> arguments) {
  std::vector<std::string> folded;
  std::string text;
  std::string output;
  bool trains = false;
  bool stops = false;
  std::vector<std::pair<std::string, std::string>> extra;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string value;
    if (arguments[i] == kPipeline) {
      trains = true;
    } else if (llvm::StringRef(arguments[i]).starts_with("--train-pipeline=")) {
      trains = true;
      text = arguments[i].substr(kPipeline.size() + 1);
    } else if (takeFlag(arguments, i, "--stop-after", value)) {
      stops = true;
      extra.push_back({"stop-after", value});
    } else if (takeFlag(arguments, i, "--save-phases", value)) {
      extra.push_back({"save-phases", value});
    } else if (takeFlag(arguments, i, "-o", value)) {
      output = value;
    } else {
      folded.push_back(arguments[i]);
    }
  }
  if (!trains) return arguments.vec();
  for (auto& [key, value] : extra) text += " " + key + "='" + value + "'";
  // The plan is the pipeline's product; the module that is left is of no use to
  // whoever asked for a plan.
  bool wantsPlan = llvm::StringRef(output).ends_with(".plan") && !stops;
  if (wantsPlan) text += " output='" + output + "'";
  if (!output.empty())
    folded.insert(folded.end(), {"-o", wantsPlan ? "/dev/null" : output});
  folded.push_back(kPipeline.str() + "=" + text);
  return folded;
}

}  // namespace

int heddleOptMain(int argc, char** argv) {
  std::vector<std::string> arguments =
      foldTrainingFlags(std::vector<std::string>(argv, argv + argc));
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);

  mlir::DialectRegistry registry;
  registerDialects(registry);
  registerPassesAndPipelines();
  graph::registerVerifyPasses();
  return mlir::asMainReturnCode(mlir::MlirOptMain(
      static_cast<int>(arguments.size()), pointers.data(),
      "heddle-opt: runs passes over captured training steps\n", registry));
}

}  // namespace heddle
