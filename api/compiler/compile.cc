// heddle_compile and heddle_run_passes: parse, run the pipeline, emit.
// Invariant: every diagnostic of a failing run reaches the caller's message,
// errors first said first. Printing to stderr instead would lose them for a
// library's user.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "api/compiler/compiler.h"
#include "api/compiler/options.h"
#include "ir/graph/GraphOps.h"
#include "ir/graph/import.h"
#include "ir/sched/Sched.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/raw_ostream.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassRegistry.h"
#include "passes/emit/emit.h"

namespace heddle {
namespace {

void fill(HeddleBuffer* buffer, llvm::StringRef bytes) {
  if (!buffer) return;
  buffer->data = static_cast<char*>(std::malloc(bytes.size() + 1));
  std::memcpy(buffer->data, bytes.data(), bytes.size());
  buffer->data[bytes.size()] = 0;
  buffer->size = bytes.size();
}

int fail(HeddleBuffer* errorOut, llvm::StringRef message) {
  fill(errorOut, message);
  return 1;
}

// "model.layers.0.mlp (model.py:88)", as much of it as is known.
std::string placeOf(mlir::Location loc) {
  std::string path, source;
  if (auto name = mlir::dyn_cast<mlir::NameLoc>(loc)) {
    path = name.getName().str();
    loc = name.getChildLoc();
  }
  if (auto file = mlir::dyn_cast<mlir::FileLineColLoc>(loc))
    source = file.getFilename().str() + ":" + std::to_string(file.getLine());
  if (path.empty() || source.empty()) return path + source;
  return path + " (" + source + ")";
}

// Collects errors with their notes; remarks and warnings are the pass author's
// business.
class Messages {
 public:
  explicit Messages(mlir::MLIRContext* context)
      : handler(context, [this](mlir::Diagnostic& diagnostic) {
          if (diagnostic.getSeverity() != mlir::DiagnosticSeverity::Error)
            return mlir::success();
          add(diagnostic, "");
          for (mlir::Diagnostic& note : diagnostic.getNotes())
            add(note, "  note: ");
          return mlir::success();
        }) {}

  const std::string& str() const { return text; }

 private:
  void add(mlir::Diagnostic& diagnostic, llvm::StringRef prefix) {
    std::string place = placeOf(diagnostic.getLocation());
    text += (text.empty() ? "" : "\n") + prefix.str() +
            (place.empty() ? "" : place + ": ") + diagnostic.str();
  }

  std::string text;
  mlir::ScopedDiagnosticHandler handler;
};

std::string shellQuoted(llvm::StringRef text) {
  std::string quoted = "'";
  for (char c : text)
    quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

// Writes the program that failed; returns the lines that say how to run it
// again.
std::string writeReproducer(const CompileOptions& options,
                            const std::string& text) {
  llvm::SmallString<128> path(options.reproducerDir);
  if (path.empty())
    llvm::sys::path::system_temp_directory(/*ErasedOnReboot=*/true, path);
  llvm::sys::fs::create_directories(path);
  static int count = 0;
  llvm::sys::path::append(path, "heddle-reproducer-" +
                                    std::to_string(getpid()) + "-" +
                                    std::to_string(count++) + ".mlir");
  std::error_code code;
  llvm::raw_fd_ostream file(path, code);
  if (code)
    return "\n(no reproducer: cannot write " + path.str().str() + ": " +
           code.message() + ")";
  file << text;
  TrainingPipelineOptions pipeline = options.pipeline;
  // Whoever compiles may remove his sidecars as soon as he hears of the error.
  for (auto [sidecar, name] :
       {std::pair(&pipeline.sidecar, ".safetensors"),
        std::pair(&pipeline.evalSidecar, ".eval.safetensors")}) {
    if (sidecar->empty()) continue;
    llvm::SmallString<128> copy(path);
    llvm::sys::path::replace_extension(copy, name);
    if (!llvm::sys::fs::copy_file(*sidecar, copy)) *sidecar = copy.str().str();
  }
  std::string flags = "mode=" + pipeline.mode + " mesh=" + pipeline.mesh +
                      " zero=" + std::to_string(pipeline.zero);
  flags += placementFlags(pipeline);
  if (!pipeline.reduceDtype.empty())
    flags += " reduce-dtype=" + pipeline.reduceDtype;
  if (pipeline.mode == "train") flags += " optimizer=" + pipeline.optimizer;
  if (pipeline.fuse != "auto") flags += " fuse=" + pipeline.fuse;
  if (!pipeline.sidecar.empty()) flags += " sidecar=" + pipeline.sidecar;
  if (!pipeline.evalSidecar.empty())
    flags += " eval-sidecar=" + pipeline.evalSidecar;
  return "\nreproduce with: heddle-opt " + path.str().str() +
         " --train-pipeline=" + shellQuoted(flags) + " -o step.plan";
}

std::string printed(mlir::ModuleOp module) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  module.print(stream,
               mlir::OpPrintingFlags().printGenericOpForm().enableDebugInfo());
  return text;
}

int compile(llvm::StringRef step, llvm::StringRef eval, llvm::StringRef json,
            HeddleBuffer* planOut, HeddleBuffer* errorOut) {
  CompileOptions options;
  if (std::string error = parseCompileOptions(json, options); !error.empty())
    return fail(errorOut, error);
  mlir::DialectRegistry registry;
  registerDialects(registry);
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  context.loadAllAvailableDialects();
  context.printOpOnDiagnostic(false);
  Messages messages(&context);

  auto module = graph::importStep(&context, step, "step.mlir");
  if (!module)
    return fail(errorOut, "the step is no valid program: " + messages.str());
  if (!eval.empty()) {
    auto evalModule = graph::importStep(&context, eval, "eval.mlir");
    if (!evalModule)
      return fail(errorOut,
                  "the evaluation step is no valid program: " + messages.str());
    auto steps = llvm::to_vector(evalModule->getOps<graph::StepOp>());
    if (steps.size() != 1)
      return fail(errorOut, "the evaluation program has " +
                                std::to_string(steps.size()) +
                                " graph.step ops, expected 1");
    steps[0]->moveBefore(module->getBody(), module->getBody()->end());
  }
  mlir::PassManager manager(&context);
  buildTrainingPipeline(manager, options.pipeline);
  // The passes change the module; what failed is what went in.
  mlir::OwningOpRef<mlir::ModuleOp> original = module->clone();
  if (failed(manager.run(*module)))
    return fail(errorOut,
                messages.str() + writeReproducer(options, printed(*original)));
  auto plans = llvm::to_vector(module->getOps<sched::PlanOp>());
  if (plans.size() != 1)
    return fail(errorOut, "the pipeline left " + std::to_string(plans.size()) +
                              " plans, expected 1");
  auto bytes = emitPlan(plans[0]);
  if (failed(bytes))
    return fail(errorOut,
                messages.str() + writeReproducer(options, printed(*original)));
  fill(planOut, llvm::StringRef(reinterpret_cast<const char*>(bytes->data()),
                                bytes->size()));
  return 0;
}

int runPasses(llvm::StringRef text, llvm::StringRef pipeline,
              HeddleBuffer* textOut, HeddleBuffer* errorOut) {
  static const bool registered = (registerPassesAndPipelines(), true);
  (void)registered;
  mlir::DialectRegistry registry;
  registerDialects(registry);
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  context.loadAllAvailableDialects();
  context.printOpOnDiagnostic(false);
  Messages messages(&context);
  auto module = graph::importStep(&context, text, "step.mlir");
  if (!module) return fail(errorOut, "not a valid program: " + messages.str());
  std::string problem;
  llvm::raw_string_ostream problems(problem);
  mlir::FailureOr<mlir::OpPassManager> parsed =
      mlir::parsePassPipeline(pipeline, problems);
  if (failed(parsed)) return fail(errorOut, "bad pass pipeline: " + problem);
  mlir::PassManager manager(&context, parsed->getOpAnchorName());
  static_cast<mlir::OpPassManager&>(manager) = std::move(*parsed);
  if (failed(manager.run(*module))) return fail(errorOut, messages.str());
  fill(textOut, printed(*module));
  return 0;
}

}  // namespace
}  // namespace heddle

extern "C" {

int heddle_compile(const char* step_mlir, size_t step_size,
                   const char* eval_mlir, size_t eval_size,
                   const char* options_json, HeddleBuffer* plan_out,
                   HeddleBuffer* error_out) {
  if (!step_mlir || !plan_out)
    return heddle::fail(
        error_out, "heddle_compile needs a program and a place for the plan");
  return heddle::compile(
      {step_mlir, step_size},
      eval_mlir ? llvm::StringRef(eval_mlir, eval_size) : llvm::StringRef(),
      options_json ? options_json : "{}", plan_out, error_out);
}

int heddle_run_passes(const char* mlir, size_t size, const char* pipeline,
                      HeddleBuffer* text_out, HeddleBuffer* error_out) {
  if (!mlir || !pipeline || !text_out)
    return heddle::fail(error_out,
                        "heddle_run_passes needs a program, a pipeline and a "
                        "place for the text");
  return heddle::runPasses({mlir, size}, pipeline, text_out, error_out);
}

void heddle_free(HeddleBuffer* buffer) {
  if (!buffer) return;
  std::free(buffer->data);
  *buffer = {nullptr, 0};
}
}
