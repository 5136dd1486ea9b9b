// heddle-opt: mlir-opt's driver over Heddle's dialects, passes and pipelines.
// The project's own flags are folded into --train-pipeline's options, so that
// every flag of mlir-opt keeps working beside them. Invariant: `-o FILE.plan`
// with --train-pipeline writes a plan; any other output is text.
#include <string>
#include <vector>

#include "api/compiler/compiler.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "passes/pipelines.h"

namespace heddle {
namespace {

// Takes `--name=value`, `--name value` and the same with one dash out of
// `args`.
bool takeFlag(std::vector<std::string>& args, llvm::StringRef name,
              std::string& value) {
  for (size_t i = 1; i < args.size(); ++i) {
    llvm::StringRef arg = args[i];
    if (!arg.consume_front("-")) continue;
    arg.consume_front("-");
    if (!arg.consume_front(name)) continue;
    if (arg.consume_front("=")) {
      value = arg.str();
      args.erase(args.begin() + i);
      return true;
    }
    if (!arg.empty() || i + 1 == args.size()) continue;
    value = args[i + 1];
    args.erase(args.begin() + i, args.begin() + i + 2);
    return true;
  }
  return false;
}

// The first argument that is no flag and no flag's value.
std::string inputOf(const std::vector<std::string>& args) {
  for (size_t i = 1; i < args.size(); ++i)
    if (llvm::StringRef(args[i]).ends_with(".mlir") ||
        llvm::StringRef(args[i]).ends_with(".mlirbc"))
      return args[i];
  return "";
}

int run(int argc, char** argv) {
  std::vector<std::string> args(argv, argv + argc);
  std::string pipeline, stopAfter, phases, output;
  if (takeFlag(args, "train-pipeline", pipeline)) {
    if (takeFlag(args, "stop-after", stopAfter))
      pipeline += " stop-after=" + stopAfter;
    if (takeFlag(args, "save-phases", phases))
      pipeline += " save-phases='" + phases + "'";
    TrainingPipelineOptions options;
    if (std::string error = parseTrainingOptions(pipeline, options);
        !error.empty()) {
      llvm::errs() << "heddle-opt: " << error << "\n";
      return 1;
    }
    if (options.sidecar.empty()) {
      llvm::SmallString<128> sidecar(inputOf(args));
      llvm::sys::path::replace_extension(sidecar, "safetensors");
      if (llvm::sys::fs::exists(sidecar))
        pipeline += " sidecar='" + sidecar.str().str() + "'";
    }
    if (takeFlag(args, "o", output)) {
      bool toPlan = llvm::StringRef(output).ends_with(".plan");
      if (toPlan && !options.stopAfter.empty()) {
        llvm::errs() << "heddle-opt: --stop-after=" << options.stopAfter
                     << " ends before there is a plan to write to '" << output
                     << "'; give it a name that ends in .mlir\n";
        return 1;
      }
      if (toPlan) pipeline += " output='" + output + "'";
      args.push_back("-o");
      args.push_back(toPlan ? "/dev/null" : output);
    }
    args.push_back("--train-pipeline=" + pipeline);
  }
  std::vector<char*> rewritten;
  for (std::string& arg : args) rewritten.push_back(arg.data());
  rewritten.push_back(nullptr);

  mlir::DialectRegistry registry;
  registerDialects(registry);
  registerPassesAndPipelines();
  return mlir::asMainReturnCode(
      mlir::MlirOptMain(static_cast<int>(args.size()), rewritten.data(),
                        "heddle-opt: runs passes over captured training steps, "
                        "or compiles one to a plan\n",
                        registry));
}

}  // namespace
}  // namespace heddle

extern "C" int heddle_opt_main(int argc, char** argv) {
  return heddle::run(argc, argv);
}
