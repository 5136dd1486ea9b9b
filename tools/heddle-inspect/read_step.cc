// MLIR text or bytecode -> the description: graph.step (captured or after any
// pass), or sched.plan by way of the plan that it would be written as.
// Invariant: only verified programs are described, so what the ops' own
// verifiers promise is not checked again. What would break it: an op that hands
// on an operand's storage without ViewLike, `mutates` or a new_state role; its
// bytes would be counted twice.
#include <algorithm>
#include <cctype>
#include <map>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ir/graph/GraphOps.h"
#include "ir/graph/aten_call.h"
#include "ir/graph/import.h"
#include "ir/optim/OptimDialect.h"
#include "ir/sched/Sched.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/raw_ostream.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "passes/emit/emit.h"
#include "tools/heddle-inspect/program.h"

namespace heddle::inspect {
namespace {

std::string print(mlir::Attribute attribute) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  attribute.print(stream);
  return text;
}

std::string typeText(mlir::Type type) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  type.print(stream);
  return text;
}

// Module path and "file:line": NameLoc around FileLineCol, either part absent.
void readLocation(mlir::Location location, Op& op) {
  if (auto name = mlir::dyn_cast<mlir::NameLoc>(location)) {
    op.path = name.getName().str();
    location = name.getChildLoc();
  }
  if (auto file = mlir::dyn_cast<mlir::FileLineColLoc>(location))
    op.source = absl::StrCat(file.getFilename().str(), ":", file.getLine());
}

// The optimizer's ops have no cost interface: what their formulas in ir/optim
// take for one element.
int64_t optimizerFlops(mlir::Operation* op) {
  const llvm::StringRef name = op->getName().stripDialect();
  const int64_t perElement = name == "adamw"                             ? 15
                             : name == "grad_norm"                       ? 2
                             : name == "accumulate" || name == "average" ? 1
                                                                         : 0;
  int64_t elements = 0;
  for (mlir::Value operand : op->getOperands()) {
    auto tensor = mlir::dyn_cast<mlir::RankedTensorType>(operand.getType());
    if (!tensor) continue;
    elements = name == "grad_norm"
                   ? elements + tensor.getNumElements()
                   : std::max(elements, tensor.getNumElements());
  }
  return perElement * elements;
}

void addFlops(mlir::Operation* op, std::map<std::string, int64_t>& flops) {
  if (op->getNumRegions() != 0) {
    for (mlir::Operation& inner : op->getRegion(0).front())
      addFlops(&inner, flops);
    return;
  }
  const std::string name = op->getName().getStringRef().str();
  if (auto call = mlir::dyn_cast<graph::CallOp>(op)) {
    flops[kindOf(call.getCallee().str())] += call.getFlops();
  } else if (auto costed = mlir::dyn_cast<graph::Costed>(op)) {
    flops[kindOf(name)] += costed.getFlops();
  } else if (const int64_t own = optimizerFlops(op)) {
    flops[kindOf(name)] += own;
  }
}

// Bytes of operands and results, once each.
int64_t bytesMoved(mlir::Operation* op) {
  if (auto costed = mlir::dyn_cast<graph::Costed>(op)) return costed.getBytes();
  int64_t bytes = 0;
  auto add = [&](mlir::Type type) {
    if (auto tensor = mlir::dyn_cast<mlir::RankedTensorType>(type))
      bytes += tensor.getNumElements() *
               graph::elementBytes(tensor.getElementType());
  };
  llvm::for_each(op->getOperandTypes(), add);
  llvm::for_each(op->getResultTypes(), add);
  return bytes;
}

// One graph.step -> one section.
class StepReader {
 public:
  StepReader(Program& program, std::string name) : program(program) {
    section.name = std::move(name);
  }

  Section read(graph::StepOp step) {
    mlir::Block& block = step.getBody().front();
    for (auto [argument, role] :
         llvm::zip(block.getArguments(), step.getArgRoles()))
      readArgument(argument, role);
    for (mlir::Operation& op : block.without_terminator()) readOp(&op);
    for (auto [value, role] :
         llvm::zip(block.getTerminator()->getOperands(), step.getResultRoles()))
      readResult(value, role);
    finishLifetimes();
    return std::move(section);
  }

 private:
  int addValue(mlir::Type type, int storage) {
    Value value;
    value.storage = storage;
    if (auto tensor = mlir::dyn_cast<mlir::RankedTensorType>(type)) {
      value.dtype = typeText(tensor.getElementType());
      value.shape.assign(tensor.getShape().begin(), tensor.getShape().end());
    } else {
      value.dtype = "none";
    }
    program.values.push_back(std::move(value));
    return program.values.size() - 1;
  }

  int addStorage(mlir::Type type, Category category, std::string name,
                 bool resident) {
    auto tensor = mlir::dyn_cast<mlir::RankedTensorType>(type);
    program.storages.push_back(
        {std::move(name), category,
         tensor ? graph::geometryOf(tensor).storageBytes : 0, resident});
    return program.storages.size() - 1;
  }

  void readArgument(mlir::BlockArgument value, mlir::Attribute role) {
    Argument argument;
    if (auto param = mlir::dyn_cast<graph::ParamAttr>(role)) {
      argument.kind = "parameter";
      for (mlir::Attribute name : param.getNames())
        argument.names.push_back(mlir::cast<mlir::StringAttr>(name).str());
      argument.role = param.getKind().str();
      argument.trainable = param.getTrainable().getValue();
    } else if (auto buffer = mlir::dyn_cast<graph::BufferAttr>(role)) {
      argument = {Category::kBuffer, "buffer", {buffer.getName().str()}};
    } else if (auto input = mlir::dyn_cast<graph::InputAttr>(role)) {
      argument = {Category::kInput, "input", {input.getName().str()}};
    } else if (auto constant = mlir::dyn_cast<graph::ConstantAttr>(role)) {
      argument = {Category::kConstant, "constant", {constant.getName().str()}};
    } else if (auto state = mlir::dyn_cast<graph::StateAttr>(role)) {
      const std::string kind = state.getKind().str();
      const Category category = kind == "master"        ? Category::kMaster
                                : kind == "accumulator" ? Category::kAccumulator
                                                        : Category::kOptimizer;
      argument = {category, kind, {state.getName().str()}};
    }
    argument.value = addValue(
        value.getType(),
        addStorage(value.getType(), argument.category, argument.name(), true));
    made[value] = {argument.value, -1, 0};
    byRole[{argument.kind, argument.name()}] =
        program.values[argument.value].storage;
    program.arguments.push_back(std::move(argument));
  }

  void readOp(mlir::Operation* source) {
    const int index = section.ops.size();
    Op op;
    op.name = source->getName().getStringRef().str();
    readLocation(source->getLoc(), op);
    op.view = mlir::isa<graph::ViewLike>(source);
    op.kind = kindOf(op.name);
    auto call = mlir::dyn_cast<graph::CallOp>(source);
    if (call) {
      op.structured = false;
      op.name = call.getCallee().str();
      op.kind = kindOf(op.name);
    } else if (auto composite = mlir::dyn_cast<graph::CompositeOp>(source)) {
      op.name = "graph.composite " + composite.getKind().str();
      op.kind = "composite";
    }
    if (auto phase = source->getAttrOfType<graph::PhaseAttr>(
            graph::GraphDialect::kPhaseAttr))
      op.phase = graph::stringifyPhase(phase.getValue()).str();
    else
      op.phase = op.kind == "optimizer" ? "update" : "forward";
    op.bytes = bytesMoved(source);
    std::map<std::string, int64_t> flops;
    addFlops(source, flops);
    for (const auto& [kind, count] : flops) op.flops.push_back({kind, count});
    for (mlir::NamedAttribute attribute : source->getAttrs()) {
      const llvm::StringRef name = attribute.getName().getValue();
      if (name != graph::GraphDialect::kPhaseAttr &&
          name != "operandSegmentSizes" && name != "callee")
        op.attributes.emplace_back(name.str(), print(attribute.getValue()));
    }
    for (mlir::Value operand : source->getOperands())
      op.operands.push_back(made.lookup(operand));
    for (mlir::OpResult result : source->getResults()) {
      const int storage = storageOf(result, op, call);
      op.results.push_back(addValue(result.getType(), storage));
      made[result] = {op.results.back(), index,
                      static_cast<int>(result.getResultNumber())};
    }
    section.ops.push_back(std::move(op));
  }

  // The storage that a result lies in: the operand's for views and handles,
  // else its own.
  int storageOf(mlir::OpResult result, const Op& op, graph::CallOp call) {
    auto storageOfOperand = [&](int64_t operand) {
      return program.values[op.operands[operand].value].storage;
    };
    if (op.view) return storageOfOperand(0);
    if (call && call.getMutates() && !call.getDps() &&
        !call.getFreshResults()) {
      llvm::ArrayRef<int64_t> mutates = *call.getMutates();
      if (result.getResultNumber() < mutates.size())
        return storageOfOperand(mutates[result.getResultNumber()]);
    }
    const int storage = addStorage(
        result.getType(), Category::kTemporary,
        op.path.empty() ? op.name : absl::StrCat(op.path, " ", op.name), false);
    const int index = section.ops.size();
    lifetimeOf[storage] = section.lifetimes.size();
    section.lifetimes.push_back({storage, index, index});
    return storage;
  }

  void readResult(mlir::Value value, mlir::Attribute role) {
    SectionResult result;
    result.use = made.lookup(value);
    const int storage = program.values[result.use.value].storage;
    Storage& held = program.storages[storage];
    auto setCategory = [&](Category category) {
      if (!held.resident) held.category = category;
    };
    std::string overwritten;
    if (mlir::isa<graph::LossAttr>(role)) {
      result.kind = "loss";
      setCategory(Category::kOutput);
    } else if (auto gradient = mlir::dyn_cast<graph::GradientAttr>(role)) {
      result.kind = "gradient";
      result.name = gradient.getName().str();
      setCategory(Category::kGradient);
    } else if (auto output = mlir::dyn_cast<graph::OutputAttr>(role)) {
      result.kind = "output";
      result.name = output.getName().str();
      setCategory(Category::kOutput);
    } else if (auto fresh = mlir::dyn_cast<graph::NewValueAttr>(role)) {
      result.kind = "new_value";
      result.name = fresh.getName().str();
      overwritten =
          byRole.count({"parameter", result.name}) ? "parameter" : "buffer";
    } else if (auto state = mlir::dyn_cast<graph::NewStateAttr>(role)) {
      result.kind = "new_state";
      result.name = state.getName().str();
      overwritten = state.getKind().str();
    }
    // A new value is written over the old one, so it takes no bytes of its own.
    if (auto old = byRole.find({overwritten, result.name});
        old != byRole.end() && !held.resident) {
      held.category = program.storages[old->second].category;
      held.bytes = 0;
    }
    section.results.push_back(std::move(result));
    kept.push_back(storage);
  }

  void finishLifetimes() {
    const int count = section.ops.size();
    auto extend = [&](int storage, int index) {
      if (auto it = lifetimeOf.find(storage); it != lifetimeOf.end())
        section.lifetimes[it->second].last =
            std::max(section.lifetimes[it->second].last, index);
    };
    for (int i = 0; i < count; ++i) {
      // A view reads nothing: its storage lives for those who read through it.
      if (section.ops[i].view) continue;
      for (const Use& use : section.ops[i].operands)
        extend(program.values[use.value].storage, i);
    }
    for (int storage : kept) extend(storage, count - 1);
    for (const Lifetime& lifetime : section.lifetimes) {
      Storage& storage = program.storages[lifetime.storage];
      if (storage.category == Category::kTemporary &&
          section.ops[lifetime.first].phase == "forward" &&
          section.ops[lifetime.last].phase == "backward")
        storage.category = Category::kActivation;
    }
  }

  Program& program;
  Section section;
  llvm::DenseMap<mlir::Value, Use> made;
  std::map<std::pair<std::string, std::string>, int> byRole;
  llvm::DenseMap<int, int> lifetimeOf;
  std::vector<int> kept;
};

// "format_version = 7" in a program's text, or -1: read before parsing, since a
// later version may use what this one cannot parse.
int64_t versionInText(const std::string& bytes) {
  const size_t step = bytes.find("\"graph.step\"(");
  const size_t at =
      step == std::string::npos ? step : bytes.find("format_version = ", step);
  if (at == std::string::npos) return -1;
  int64_t version = 0;
  for (size_t i = at + 17; i < bytes.size() && i < at + 26 &&
                           std::isdigit(static_cast<unsigned char>(bytes[i]));
       ++i)
    version = version * 10 + (bytes[i] - '0');
  return version;
}

absl::Status wrongVersion(const std::string& path, int64_t version) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": step.mlir of format version ", version,
                   "; this build reads version ", graph::kFormatVersion,
                   ": capture the step again with this Heddle, or inspect it "
                   "with the one that wrote it"));
}

// Why the type cannot be counted; empty for a tensor of known and possible
// size. The ops' verifiers let both pass.
std::string uncountable(mlir::Type type) {
  auto tensor = mlir::dyn_cast<mlir::RankedTensorType>(type);
  if (!tensor) return "";
  if (!tensor.hasStaticShape())
    return "is of dynamic shape; Heddle's programs are static";
  constexpr int64_t most = int64_t{1} << 48;
  int64_t elements = 1;
  for (int64_t size : tensor.getShape())
    if (__builtin_mul_overflow(elements, std::max<int64_t>(size, 1),
                               &elements) ||
        elements > most)
      return "has more elements than any machine holds";
  if (graph::geometryOf(tensor).storageBytes > most)
    return "has a larger storage than any machine holds";
  return "";
}

// The first type of the program that cannot be counted, as a message; empty if
// there is none.
std::string findUncountable(mlir::Operation* root) {
  std::string message;
  root->walk([&](mlir::Operation* op) {
    auto check = [&](mlir::Type type) {
      const std::string reason = uncountable(type);
      if (!reason.empty())
        message =
            absl::StrCat("a ", typeText(type), " of '",
                         op->getName().getStringRef().str(), "' ", reason);
    };
    llvm::for_each(op->getOperandTypes(), check);
    llvm::for_each(op->getResultTypes(), check);
    for (mlir::Region& region : op->getRegions())
      for (mlir::Block& block : region)
        llvm::for_each(block.getArgumentTypes(), check);
    return message.empty() ? mlir::WalkResult::advance()
                           : mlir::WalkResult::interrupt();
  });
  return message;
}

}  // namespace

absl::StatusOr<Program> readMlir(const std::string& path,
                                 const std::string& bytes) {
  if (const int64_t version = versionInText(bytes);
      version >= 0 && version != graph::kFormatVersion)
    return wrongVersion(path, version);

  mlir::DialectRegistry registry;
  registry
      .insert<graph::GraphDialect, optim::OptimDialect, sched::SchedDialect>();
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  std::string message;
  mlir::ScopedDiagnosticHandler handler(
      &context, [&](mlir::Diagnostic& diagnostic) {
        llvm::raw_string_ostream stream(message);
        if (message.empty() &&
            diagnostic.getSeverity() == mlir::DiagnosticSeverity::Error)
          stream << diagnostic.getLocation() << ": " << diagnostic.str();
        return mlir::success();
      });
  auto refuse = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no program of Heddle: ", message));
  };

  if (graph::Hazard hazard = graph::hazardIn(bytes)) {
    message = absl::StrCat("line ", hazard.line, ": ", hazard.what);
    return refuse();
  }
  llvm::SourceMgr sources;
  sources.AddNewSourceBuffer(
      llvm::MemoryBuffer::getMemBuffer(llvm::StringRef(bytes), path),
      llvm::SMLoc());
  mlir::OwningOpRef<mlir::ModuleOp> module =
      mlir::parseSourceFile<mlir::ModuleOp>(
          sources, mlir::ParserConfig(&context, /*verifyAfterParse=*/false));
  if (!module) return refuse();
  for (auto step : module->getOps<graph::StepOp>())
    if (static_cast<int64_t>(step.getFormatVersion()) != graph::kFormatVersion)
      return wrongVersion(path, step.getFormatVersion());
  if (mlir::failed(mlir::verify(*module))) return refuse();

  for (auto plan : module->getOps<sched::PlanOp>()) {
    mlir::FailureOr<std::vector<uint8_t>> emitted = emitPlan(plan);
    if (mlir::failed(emitted)) return refuse();
    return readPlanBytes(path, std::string(emitted->begin(), emitted->end()),
                         "step.sched.mlir");
  }
  if (const std::string reason = findUncountable(*module); !reason.empty())
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", reason));

  Program program;
  program.file = path;
  program.format = "step.mlir";
  program.streams = {"program order"};
  for (auto step : module->getOps<graph::StepOp>()) {
    program.version = step.getFormatVersion();
    program.target = step.getTarget().str();
    program.precision = step.getPrecision().str();
    program.torchVersion = step.getTorchVersion().str();
    const size_t index = program.sections.size();
    program.sections.push_back(
        StepReader(program,
                   index == 0 ? "step" : absl::StrCat("step ", index + 1))
            .read(step));
  }
  if (program.sections.empty())
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": the module holds neither a graph.step nor a sched.plan"));
  return program;
}

}  // namespace heddle::inspect
