// heddle-opt: mlir-opt's driver over Heddle's dialects, passes and pipelines.
// The project's own flags are folded into --train-pipeline's options, so that
// every flag of mlir-opt keeps working beside them. Invariant: `-o FILE.plan`
// with --train-pipeline writes a plan; any other output is text.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "api/compiler/compiler.h"
#include "api/compiler/opt_config.h"
#include "api/errors/json_error.h"
#include "ir/graph/import.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"
#include "mlir/Support/ToolUtilities.h"
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

// The program's file: by its name's ending, else an argument that is a file and
// not where the result goes; empty for standard input.
std::string inputOf(const std::vector<std::string>& args) {
  for (size_t i = 1; i < args.size(); ++i)
    if (llvm::StringRef(args[i]).ends_with(".mlir") ||
        llvm::StringRef(args[i]).ends_with(".mlirbc"))
      if (args[i - 1] != "-o") return args[i];
  for (size_t i = 1; i < args.size(); ++i)
    if (!llvm::StringRef(args[i]).starts_with("-") && args[i - 1] != "-o" &&
        llvm::sys::fs::is_regular_file(args[i]))
      return args[i];
  return "";
}

bool takeSwitch(std::vector<std::string>& args, llvm::StringRef name) {
  for (size_t i = 1; i < args.size(); ++i) {
    llvm::StringRef arg = args[i];
    if (!arg.consume_front("-")) continue;
    arg.consume_front("-");
    if (arg != name) continue;
    args.erase(args.begin() + i);
    return true;
  }
  return false;
}

int fail(const std::string& message) {
  llvm::errs() << "heddle-opt: error: " << message << "\n";
  return 1;
}

// The bytes that mlir-opt is going to read, standard input included, which is
// put back for it.
std::unique_ptr<llvm::MemoryBuffer> peek(const std::string& input) {
  if (!input.empty()) {
    auto file = llvm::MemoryBuffer::getFile(input);
    return file ? std::move(*file) : nullptr;
  }
  if (isatty(STDIN_FILENO)) return nullptr;
  auto bytes = llvm::MemoryBuffer::getSTDIN();
  if (!bytes) return nullptr;
  int copy = memfd_create("heddle-opt-stdin", MFD_CLOEXEC);
  if (copy < 0) return nullptr;
  llvm::raw_fd_ostream(copy, /*shouldClose=*/false) << (*bytes)->getBuffer();
  lseek(copy, 0, SEEK_SET);
  dup2(copy, STDIN_FILENO);
  close(copy);
  return std::move(*bytes);
}

int run(std::vector<std::string> args) {
  std::string pipeline, stopAfter, phases, output, config;
  bool hasPipeline = takeFlag(args, "train-pipeline", pipeline);
  const std::string input = inputOf(args);
  if (takeFlag(args, "config", config)) {
    hasPipeline = true;
    std::vector<std::string> warnings;
    std::string configured;
    if (std::string error =
            pipelineOfConfig(config, input, pipeline, configured, warnings);
        !error.empty())
      return fail(error);
    for (const std::string& warning : warnings)
      llvm::errs() << "heddle-opt: warning: " << warning << "\n";
    pipeline = configured;
  }
  bool asksOnly = false;
  for (const std::string& arg : args)
    asksOnly |= llvm::StringRef(arg).ltrim('-').starts_with("help") ||
                llvm::StringRef(arg).ltrim('-').starts_with("version") ||
                llvm::StringRef(arg).ltrim('-').starts_with("show-dialects");
  if (auto bytes = asksOnly ? nullptr : peek(input)) {
    llvm::SmallVector<llvm::StringRef> texts{bytes->getBuffer()};
    for (const std::string& arg : args)
      if (llvm::StringRef(arg).ltrim('-').starts_with("split-input-file")) {
        texts.clear();
        bytes->getBuffer().split(texts, mlir::kDefaultSplitMarker);
      }
    unsigned before = 0;
    for (llvm::StringRef text : texts) {
      if (graph::Hazard hazard = graph::hazardIn(text))
        return fail((input.empty() ? "<stdin>" : input) + ":" +
                    std::to_string(before + hazard.line) + ": " + hazard.what);
      before += text.count('\n');
    }
  }
  if (hasPipeline) {
    if (takeFlag(args, "stop-after", stopAfter))
      pipeline += " stop-after=" + stopAfter;
    if (takeFlag(args, "save-phases", phases))
      pipeline += " save-phases='" + phases + "'";
    TrainingPipelineOptions options;
    if (std::string error = parseTrainingOptions(pipeline, options);
        !error.empty())
      return fail(error);
    if (options.sidecar.empty()) {
      llvm::SmallString<128> sidecar(input);
      llvm::sys::path::replace_extension(sidecar, "safetensors");
      if (llvm::sys::fs::exists(sidecar))
        pipeline += " sidecar='" + sidecar.str().str() + "'";
    }
    if (takeFlag(args, "o", output)) {
      bool toPlan = llvm::StringRef(output).ends_with(".plan");
      if (toPlan && !options.stopAfter.empty())
        return fail("--stop-after=" + options.stopAfter +
                    " ends before there is a plan to write to '" + output +
                    "'; give it a name that ends in .mlir");
      if (toPlan) pipeline += " output='" + output + "'";
      args.push_back("-o");
      args.push_back(toPlan ? "/dev/null" : output);
    }
    args.push_back("--train-pipeline=" + pipeline);
  }
  // A whole step behind every error helps nobody.
  if (llvm::none_of(args, [](llvm::StringRef arg) {
        return arg.ltrim('-').starts_with("mlir-print-op-on-diagnostic");
      }))
    args.push_back("--mlir-print-op-on-diagnostic=false");
  std::vector<char*> rewritten;
  for (std::string& arg : args) rewritten.push_back(arg.data());
  rewritten.push_back(nullptr);

  mlir::DialectRegistry registry;
  registerDialects(registry);
  registerPassesAndPipelines();
  int code = mlir::asMainReturnCode(
      mlir::MlirOptMain(static_cast<int>(args.size()), rewritten.data(),
                        "heddle-opt: runs passes over captured training steps, "
                        "or compiles one to a plan\n",
                        registry));
  // Operations without a location have diagnostics without a file.
  if (code != 0 && !input.empty())
    llvm::errs() << "heddle-opt: " << input << " was refused\n";
  return code;
}

// Runs `body` in a child process, because mlir-opt's command line ends the
// process that it finds wrong flags in; `text` is what it wrote to standard
// error.
int captured(const std::function<int()>& body, std::string& text) {
  int file = memfd_create("heddle-opt-stderr", MFD_CLOEXEC);
  pid_t child = file < 0 ? -1 : fork();
  if (child < 0) return fail(std::string("--json-errors: ") + strerror(errno));
  if (child == 0) {
    dup2(file, STDERR_FILENO);
    std::exit(body());
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  lseek(file, 0, SEEK_SET);
  char block[4096];
  for (ssize_t n; (n = read(file, block, sizeof(block))) > 0;)
    text.append(block, static_cast<size_t>(n));
  close(file);
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  text = "heddle-opt: error: ended by signal " +
         std::to_string(WTERMSIG(status)) + "\n" + text;
  return 2;
}

int optMain(int argc, char** argv) {
  std::vector<std::string> args(argv, argv + argc);
  if (!takeSwitch(args, "json-errors")) return run(std::move(args));
  std::string text;
  int code = captured([&] { return run(args); }, text);
  llvm::StringRef message = llvm::StringRef(text).trim();
  if (code == 0) {
    llvm::errs() << text;
    return 0;
  }
  // Warnings stay as they are; the error is the object.
  while (message.starts_with("heddle-opt: warning: ")) {
    auto [line, rest] = message.split('\n');
    llvm::errs() << line << "\n";
    message = rest.ltrim();
  }
  message.consume_front("heddle-opt: error: ");
  std::string input = inputOf(args);
  message.consume_back("heddle-opt: " + input + " was refused");
  std::string placed = message.rtrim().str();
  if (message.starts_with("<unknown>:0: ") && !input.empty())
    placed.replace(0, strlen("<unknown>:0"), input);
  llvm::errs() << JsonError("heddle-opt", code,
                            code == 1 ? "INVALID_ARGUMENT" : "INTERNAL", placed)
               << "\n";
  return code;
}

}  // namespace
}  // namespace heddle

extern "C" int heddle_opt_main(int argc, char** argv) {
  return heddle::optMain(argc, argv);
}
