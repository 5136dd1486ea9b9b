// The story of a compilation, top to bottom: one function per phase, a
// verifying pass at each end. Invariant: every pass stands where it stands for
// the reason beside it. A pass moved above what it requires would meet IR that
// it does not know.
#include "passes/pipelines.h"

#include "ir/dist/DistDialect.h"
#include "ir/graph/GraphOps.h"
#include "ir/optim/OptimDialect.h"
#include "ir/sched/Sched.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/ToolOutputFile.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Support/FileUtilities.h"
#include "mlir/Transforms/Passes.h"
#include "passes/emit/emit.h"
#include "passes/fusion/Passes.h"
#include "passes/graph/Passes.h"
#include "passes/schedule/Passes.h"
#include "passes/verify/Passes.h"
#include "passes/zero/Passes.h"

namespace heddle {
namespace {

using mlir::OpPassManager;

// Name and size of each axis of "dp:4,ep:2"; empty where the text is malformed.
llvm::SmallVector<std::pair<llvm::StringRef, int64_t>> meshAxes(
    llvm::StringRef text) {
  llvm::SmallVector<std::pair<llvm::StringRef, int64_t>> axes;
  llvm::SmallVector<llvm::StringRef> parts;
  text.split(parts, ',');
  for (llvm::StringRef part : parts) {
    auto [name, size] = part.split(':');
    int64_t ranks = 0;
    if (name.empty() || size.getAsInteger(10, ranks) || ranks < 1) return {};
    axes.push_back({name, ranks});
  }
  return axes;
}

// Runs a graph pass on the program that trains: a second graph.step is the
// evaluation program, which has no gradients to update with.
struct AppendOptimizerToTraining
    : mlir::PassWrapper<AppendOptimizerToTraining,
                        mlir::OperationPass<mlir::ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(AppendOptimizerToTraining)

  AppendOptimizerToTraining() = default;
  AppendOptimizerToTraining(const AppendOptimizerToTraining& other)
      : PassWrapper(other) {
    config = other.config;
  }
  explicit AppendOptimizerToTraining(const std::string& json) { config = json; }

  llvm::StringRef getArgument() const final {
    return "append-optimizer-to-training-step";
  }
  llvm::StringRef getDescription() const final {
    return "Runs graph-append-optimizer on the module's first graph.step";
  }
  void getDependentDialects(mlir::DialectRegistry& registry) const final {
    registry.insert<optim::OptimDialect>();
  }

  void runOnOperation() final {
    auto steps = getOperation().getOps<graph::StepOp>();
    if (steps.empty()) {
      getOperation().emitError(
          "has no graph.step to train; capture writes one");
      return signalPassFailure();
    }
    OpPassManager manager(graph::StepOp::getOperationName());
    graph::AppendOptimizerOptions options;
    options.config = config;
    manager.addPass(graph::createAppendOptimizer(options));
    if (failed(runPipeline(manager, *steps.begin()))) signalPassFailure();
  }

  Option<std::string> config{
      *this, "config",
      llvm::cl::desc("the optimizer's configuration, a JSON object"),
      llvm::cl::init("{}")};
};

// The named axes of "dp:4,ep:2" as the module's mesh.
struct SetMesh
    : mlir::PassWrapper<SetMesh, mlir::OperationPass<mlir::ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(SetMesh)

  SetMesh() = default;
  SetMesh(const SetMesh& other) : PassWrapper(other) { axes = other.axes; }
  explicit SetMesh(const std::string& text) { axes = text; }

  llvm::StringRef getArgument() const final { return "dist-set-mesh"; }
  llvm::StringRef getDescription() const final {
    return "Writes the mesh that the module's steps run on";
  }
  void getDependentDialects(mlir::DialectRegistry& registry) const final {
    registry.insert<dist::DistDialect>();
  }

  void runOnOperation() final {
    mlir::Builder builder(&getContext());
    llvm::SmallVector<mlir::Attribute> mesh;
    for (const auto& [name, size] : meshAxes(axes))
      mesh.push_back(dist::AxisAttr::get(&getContext(),
                                         builder.getStringAttr(name), size));
    if (mesh.empty()) {
      getOperation().emitError("has no mesh '")
          << axes << "'; write axes as name:size, as in dp:4";
      return signalPassFailure();
    }
    getOperation()->setAttr(dist::DistDialect::kMeshAttr,
                            builder.getArrayAttr(mesh));
  }

  Option<std::string> axes{*this, "axes", llvm::cl::desc("dp:4,ep:2")};
};

// Runs the fusion passes on the programs of the module that are for a target
// with kernels, or on all.
struct FuseForTarget
    : mlir::PassWrapper<FuseForTarget, mlir::OperationPass<mlir::ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(FuseForTarget)

  FuseForTarget() = default;
  FuseForTarget(const FuseForTarget& other) : PassWrapper(other) {
    always = other.always;
  }
  explicit FuseForTarget(bool onEveryTarget) { always = onEveryTarget; }

  llvm::StringRef getArgument() const final { return "fuse-for-target"; }
  llvm::StringRef getDescription() const final {
    return "Runs graph-fuse-kernels and graph-fuse-updates where the target "
           "has kernels";
  }
  void getDependentDialects(mlir::DialectRegistry& registry) const final {
    registry.insert<optim::OptimDialect>();
  }

  void runOnOperation() final {
    OpPassManager manager(graph::StepOp::getOperationName());
    manager.addPass(graph::createFuseKernels());
    manager.addPass(graph::createFuseUpdates());
    // What the kernels compute too: sums and casts that nobody reads now.
    manager.addPass(graph::createDeadCode());
    for (auto step : getOperation().getOps<graph::StepOp>())
      if (always || step.getTarget() == "cuda")
        if (failed(runPipeline(manager, step))) return signalPassFailure();
  }

  Option<bool> always{*this, "always",
                      llvm::cl::desc("fuse whatever the target"),
                      llvm::cl::init(false)};
};

// Writes the module as it is at a phase's end.
struct SavePhase
    : mlir::PassWrapper<SavePhase, mlir::OperationPass<mlir::ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(SavePhase)

  SavePhase() = default;
  SavePhase(const SavePhase& other) : PassWrapper(other) { path = other.path; }
  explicit SavePhase(const std::string& file) { path = file; }

  llvm::StringRef getArgument() const final { return "save-phase"; }
  llvm::StringRef getDescription() const final {
    return "Writes the module to a file";
  }

  void runOnOperation() final {
    std::string error;
    llvm::sys::fs::create_directories(llvm::sys::path::parent_path(path));
    std::unique_ptr<llvm::ToolOutputFile> file =
        mlir::openOutputFile(path, &error);
    if (!file) {
      getOperation().emitError("cannot save a phase: ") << error;
      return signalPassFailure();
    }
    getOperation().print(file->os(), mlir::OpPrintingFlags().enableDebugInfo());
    file->keep();
    markAllAnalysesPreserved();
  }

  Option<std::string> path{*this, "path", llvm::cl::desc("the file")};
};

// Writes the module's plan to a file, whole or not at all.
struct WritePlan
    : mlir::PassWrapper<WritePlan, mlir::OperationPass<sched::PlanOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(WritePlan)

  WritePlan() = default;
  WritePlan(const WritePlan& other) : PassWrapper(other) { path = other.path; }
  explicit WritePlan(const std::string& file) { path = file; }

  llvm::StringRef getArgument() const final { return "sched-write-plan"; }
  llvm::StringRef getDescription() const final {
    return "Writes the plan file of a placed schedule";
  }

  void runOnOperation() final {
    auto bytes = emitPlan(getOperation());
    if (failed(bytes)) return signalPassFailure();
    llvm::StringRef text(reinterpret_cast<const char*>(bytes->data()),
                         bytes->size());
    if (llvm::Error error = writeWhole(text)) {
      getOperation().emitError("cannot write the plan: ")
          << path << ": " << llvm::toString(std::move(error));
      return signalPassFailure();
    }
    markAllAnalysesPreserved();
  }

  // Beside its place first. A stream that meets a full device and is not asked
  // ends the process, and leaves what it has written.
  llvm::Error writeWhole(llvm::StringRef text) {
    auto file = llvm::sys::fs::TempFile::create(path + ".%%%%%%");
    if (!file) return file.takeError();
    std::error_code code;
    {
      llvm::raw_fd_ostream stream(file->FD, /*shouldClose=*/false);
      stream << text;
      stream.flush();
      code = stream.error();
      stream.clear_error();
    }
    if (!code) return file->keep(path);
    llvm::consumeError(file->discard());
    return llvm::createStringError(code, code.message());
  }

  Option<std::string> path{*this, "path", llvm::cl::desc("the file")};
};

void buildGraphPhase(OpPassManager& manager,
                     const TrainingPipelineOptions& options) {
  OpPassManager& step = manager.nest<graph::StepOp>();
  // Everything after this relies on values that never change.
  step.addPass(graph::createFunctionalize());
  // Views that functionalization took again are often views that exist; equal
  // ops can only be seen once their operands are equal.
  step.addPass(graph::createCanonicalizeViews());
  step.addPass(graph::createCommonSubexpressions());
  // Last: the passes before leave what they replaced.
  step.addPass(graph::createDeadCode());
  // Before the update, whose state takes the parameters' types.
  step.addPass(createRaisePrecision());
  // The update sees whole parameters and the gradients' final form.
  if (options.mode == "train")
    manager.addPass(
        std::make_unique<AppendOptimizerToTraining>(options.optimizer));
  // After the update, which looks for the loss's own operators. Composites are
  // what sharding and fusion passes look for.
  OpPassManager& raised = manager.nest<graph::StepOp>();
  raised.addPass(graph::createRaiseComposites());
  raised.addPass(graph::createVerifyFunctional());
}

void buildDistPhase(OpPassManager& manager,
                    const TrainingPipelineOptions& options) {
  manager.addPass(std::make_unique<SetMesh>(options.mesh));
  // Whole parameters in, buckets and shards out: everything after it sees local
  // shapes.
  zero::ZeroPartitionOptions partition;
  partition.stage = options.zero;
  partition.reduceDtype = options.reduceDtype;
  manager.addPass(zero::createZeroPartition(partition));
  manager.addPass(graph::createVerifyDistributed());
}

void buildSchedulePhase(OpPassManager& manager,
                        const TrainingPipelineOptions& options) {
  // Kernels round once where captured operators round often: a replay, which
  // must give eager's bits, has none of them.
  if (options.fuse == "always" ||
      (options.fuse == "auto" && options.mode == "train"))
    manager.addPass(std::make_unique<FuseForTarget>(options.fuse == "always"));
  // Composites keep their captured operators; what nobody replaced runs as
  // these.
  manager.nest<graph::StepOp>().addPass(graph::createInlineComposites());
  // What the passes before it needed to see apart, the gradient and its sum,
  // may be one multiplication now.
  manager.nest<graph::StepOp>().addPass(createAccumulateInGemm());
  LowerToSchedOptions lower;
  lower.mode = options.mode;
  lower.sidecar = options.sidecar;
  lower.evalSidecar = options.evalSidecar;
  lower.config = options.config;
  lower.overlap = options.overlap;
  manager.addPass(createLowerToSched(lower));
  OpPassManager& plan = manager.nest<sched::PlanOp>();
  // Before memory: how long a bucket is needed is what it decides.
  PlaceCollectivesOptions place;
  place.prefetch = options.prefetch;
  place.maxLive = options.maxLive;
  place.reducing = options.reducing;
  place.memory = options.memory;
  place.deviceMemory = options.deviceMemory;
  place.unshard = options.unshard;
  place.costs = options.costs;
  plan.addPass(createPlaceCollectives(place));
  // Before events: buffers that share bytes order their users.
  PlanMemoryOptions memory;
  memory.reducing = options.reducing;
  memory.memory = options.memory;
  memory.deviceMemory = options.deviceMemory;
  plan.addPass(createPlanMemory(memory));
  plan.addPass(createInsertEvents());
  plan.addPass(createVerifySchedule());
}

const llvm::StringRef kKeys[] = {
    "mode",       "mesh",        "zero",     "reduce-dtype", "ep",
    "sp",         "optimizer",   "sidecar",  "eval-sidecar", "config",
    "stop-after", "save-phases", "output",   "fuse",         "overlap",
    "prefetch",   "max-live",    "reducing", "memory",       "device-memory",
    "unshard",    "costs"};

// The value at `text`'s start and its end: up to the next space, or what stands
// between matching quotes or braces (which belong to it).
size_t valueEnd(llvm::StringRef text) {
  if (text.starts_with("'")) {
    size_t close = text.find('\'', 1);
    return close == llvm::StringRef::npos ? close : close + 1;
  }
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{') ++depth;
    if (text[i] == '}') --depth;
    if (depth == 0 && text[i] == ' ') return i;
  }
  return depth == 0 ? text.size() : llvm::StringRef::npos;
}

}  // namespace

std::string nearestName(llvm::StringRef name,
                        llvm::ArrayRef<llvm::StringRef> known) {
  llvm::StringRef best;
  unsigned distance = std::max<size_t>(2, name.size() / 2) + 1;
  for (llvm::StringRef candidate : known) {
    unsigned d = name.edit_distance(candidate);
    if (d >= distance) continue;
    distance = d;
    best = candidate;
  }
  return best.str();
}

std::string parseTrainingOptions(llvm::StringRef text,
                                 TrainingPipelineOptions& options) {
  for (text = text.ltrim(); !text.empty(); text = text.ltrim()) {
    auto [key, rest] = text.split('=');
    size_t end = valueEnd(rest);
    if (end == llvm::StringRef::npos)
      return "train-pipeline: the value of '" + key.str() +
             "' has an unclosed quote or brace";
    llvm::StringRef value = rest.take_front(end);
    if (value.starts_with("'")) value = value.drop_front().drop_back();
    auto number = [&](int& target) -> std::string {
      return value.getAsInteger(10, target)
                 ? "train-pipeline: '" + key.str() + "' needs a number, not '" +
                       value.str() + "'"
                 : "";
    };
    std::string error;
    std::string* slot = llvm::StringSwitch<std::string*>(key)
                            .Case("mode", &options.mode)
                            .Case("mesh", &options.mesh)
                            .Case("optimizer", &options.optimizer)
                            .Case("sidecar", &options.sidecar)
                            .Case("eval-sidecar", &options.evalSidecar)
                            .Case("config", &options.config)
                            .Case("fuse", &options.fuse)
                            .Case("stop-after", &options.stopAfter)
                            .Case("save-phases", &options.savePhases)
                            .Case("output", &options.output)
                            .Case("reduce-dtype", &options.reduceDtype)
                            .Case("costs", &options.costs)
                            .Default(nullptr);
    bool* flag = llvm::StringSwitch<bool*>(key)
                     .Case("overlap", &options.overlap)
                     .Case("unshard", &options.unshard)
                     .Default(nullptr);
    int64_t* count = llvm::StringSwitch<int64_t*>(key)
                         .Case("prefetch", &options.prefetch)
                         .Case("max-live", &options.maxLive)
                         .Case("reducing", &options.reducing)
                         .Case("memory", &options.memory)
                         .Case("device-memory", &options.deviceMemory)
                         .Default(nullptr);
    if (slot) {
      *slot = value.str();
    } else if (flag) {
      if (value != "on" && value != "off")
        error = "train-pipeline: '" + key.str() + "' needs on or off, not '" +
                value.str() + "'";
      *flag = value == "on";
    } else if (count) {
      if (value.getAsInteger(10, *count))
        error = "train-pipeline: '" + key.str() + "' needs a number, not '" +
                value.str() + "'";
    } else if (key == "zero") {
      error = number(options.zero);
    } else if (key == "ep") {
      error = number(options.ep);
    } else if (key == "sp") {
      error = number(options.sp);
    } else {
      std::string nearest = nearestName(key, kKeys);
      error = "train-pipeline: unknown option '" + key.str() + "'" +
              (nearest.empty() ? "" : "; did you mean '" + nearest + "'?");
    }
    if (!error.empty()) return error;
    text = rest.drop_front(end);
  }
  return checkTrainingOptions(options);
}

std::string placementFlags(const TrainingPipelineOptions& options) {
  const TrainingPipelineOptions defaults;
  std::string text;
  auto add = [&](const char* key, const std::string& value) {
    text += std::string(" ") + key + "=" + value;
  };
  if (!options.overlap) add("overlap", "off");
  if (!options.unshard) add("unshard", "off");
  if (options.prefetch != defaults.prefetch)
    add("prefetch", std::to_string(options.prefetch));
  if (options.maxLive != defaults.maxLive)
    add("max-live", std::to_string(options.maxLive));
  if (options.reducing != defaults.reducing)
    add("reducing", std::to_string(options.reducing));
  if (options.memory != 0) add("memory", std::to_string(options.memory));
  if (options.deviceMemory != 0)
    add("device-memory", std::to_string(options.deviceMemory));
  if (!options.costs.empty()) add("costs", options.costs);
  return text;
}

std::string checkTrainingOptions(const TrainingPipelineOptions& options) {
  auto later = [](const std::string& option, const std::string& instead) {
    return "this compiler cannot shard yet: option " + option +
           " is not supported; use " + instead;
  };
  if (options.mode != "train" && options.mode != "replay")
    return "unknown mode '" + options.mode + "'; use train or replay";
  if (options.fuse != "auto" && options.fuse != "always" &&
      options.fuse != "never")
    return "fuse='" + options.fuse +
           "' is not known; use auto, always or never";
  if (options.zero < 0 || options.zero > 3)
    return "zero=" + std::to_string(options.zero) +
           " is no ZeRO stage; stages are 0 to 3";
  const std::pair<const char*, int64_t> counts[] = {
      {"prefetch", options.prefetch},
      {"max-live", options.maxLive},
      {"memory", options.memory},
      {"device-memory", options.deviceMemory}};
  for (auto [name, count] : counts)
    if (count < 0)
      return std::string(name) + "=" + std::to_string(count) +
             " is negative; use 0 or more";
  if (options.reducing < 1)
    return "reducing=" + std::to_string(options.reducing) +
           " lets no gradient be reduced; use at least 1 element";
  if (options.ep != 1) return later("ep=" + std::to_string(options.ep), "ep=1");
  if (options.sp != 1) return later("sp=" + std::to_string(options.sp), "sp=1");
  auto axes = meshAxes(options.mesh);
  if (axes.empty())
    return "mesh '" + options.mesh +
           "' is malformed; write axes as name:size, as in dp:4";
  for (auto [name, ranks] : axes) {
    if (name != "dp" && name != "ep" && name != "sp")
      return "mesh '" + options.mesh + "' has the unknown axis '" + name.str() +
             "'; axes are dp, ep and sp";
    if (name != "dp" && ranks != 1)
      return later("mesh=" + options.mesh, "an axis dp only");
  }
  bool manyRanks =
      llvm::any_of(axes, [](auto axis) { return axis.second > 1; });
  if (options.mode == "replay" && (options.zero > 0 || manyRanks))
    return "mode=replay gives back what was recorded, on one rank; use zero=0 "
           "and mesh=dp:1";
  if (!options.stopAfter.empty() && options.stopAfter != "graph" &&
      options.stopAfter != "dist" && options.stopAfter != "sched") {
    std::string nearest =
        nearestName(options.stopAfter, {"graph", "dist", "sched"});
    return "stop-after='" + options.stopAfter +
           "' is no phase of this compiler" +
           (nearest.empty() ? "; phases are graph, dist and sched"
                            : "; did you mean '" + nearest + "'?");
  }
  return "";
}

void buildTrainingPipeline(mlir::OpPassManager& manager,
                           const TrainingPipelineOptions& options) {
  auto save = [&](llvm::StringRef phase) {
    if (options.savePhases.empty()) return;
    llvm::SmallString<128> path(options.savePhases);
    llvm::sys::path::append(path, "step." + phase + ".mlir");
    manager.addPass(std::make_unique<SavePhase>(path.str().str()));
  };
  buildGraphPhase(manager, options);
  save("graph");
  if (options.stopAfter == "graph") return;
  if (options.mode == "train") {
    buildDistPhase(manager, options);
    save("dist");
  }
  if (options.stopAfter == "dist") return;
  buildSchedulePhase(manager, options);
  save("sched");
  if (!options.output.empty() && options.stopAfter.empty())
    manager.nest<sched::PlanOp>().addPass(
        std::make_unique<WritePlan>(options.output));
}

void registerDialects(mlir::DialectRegistry& registry) {
  registry.insert<graph::GraphDialect, dist::DistDialect, optim::OptimDialect,
                  sched::SchedDialect>();
}

void registerPassesAndPipelines() {
  graph::registerGraphPasses();
  graph::registerVerifyPasses();
  zero::registerZeroPasses();
  graph::registerFusionPasses();
  registerSchedulePasses();
  mlir::registerTransformsPasses();
  mlir::PassRegistration<AppendOptimizerToTraining>();
  mlir::PassRegistration<SetMesh>();
  mlir::PassRegistration<FuseForTarget>();
  mlir::PassRegistration<SavePhase>();
  mlir::PassRegistration<WritePlan>();
  mlir::registerPassPipeline(
      "train-pipeline",
      "From a captured step to a schedule: zero=0 mesh=dp:1 ep=1 sp=1 "
      "mode=train|replay optimizer={json} fuse=auto|always|never "
      "overlap=on|off prefetch=ELEMENTS max-live=ELEMENTS reducing=ELEMENTS "
      "memory=BYTES device-memory=BYTES unshard=on|off costs=FILE "
      "sidecar=FILE "
      "stop-after=graph|dist|sched save-phases=DIR",
      [](OpPassManager& manager, llvm::StringRef text,
         llvm::function_ref<mlir::LogicalResult(const llvm::Twine&)> report)
          -> mlir::LogicalResult {
        TrainingPipelineOptions options;
        if (std::string error = parseTrainingOptions(text, options);
            !error.empty())
          return report(error);
        buildTrainingPipeline(manager, options);
        return mlir::success();
      },
      [](llvm::function_ref<void(const mlir::detail::PassOptions&)>) {});
}

}  // namespace heddle
