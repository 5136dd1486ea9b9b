// Cuts graph steps into sections and lowers each: values into refs, ops into
// steps. Plans first (which op belongs to which section), writes second, erases
// the graph last. Invariant: an op runs in every section whose results depend
// on it, and in no other. A value that crosses sections does so in state.
#include "ir/dist/DistDialect.h"
#include "ir/optim/OptimDialect.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "passes/schedule/Passes.h"
#include "passes/schedule/plan_lowering.h"

namespace heddle {

#define GEN_PASS_DEF_LOWERTOSCHED
#include "passes/schedule/Passes.h.inc"

namespace {

using mlir::Attribute;
using mlir::failure;
using mlir::LogicalResult;
using mlir::success;
using mlir::Value;

struct Result {
  mlir::Attribute role;
  Value value;
};

llvm::SmallVector<Result> resultsOf(graph::StepOp step) {
  llvm::SmallVector<Result> results;
  for (auto [role, value] :
       llvm::zip(step.getResultRoles(),
                 step.getBody().front().getTerminator()->getOperands()))
    results.push_back({role, value});
  return results;
}

// "kind name" of what a result replaces in state, or "" for results that the
// caller reads.
std::pair<llvm::StringRef, llvm::StringRef> replacedState(
    mlir::Attribute role, const PlanLowering& plan) {
  if (auto state = mlir::dyn_cast<graph::NewStateAttr>(role))
    return {state.getKind().getValue(), state.getName().getValue()};
  if (auto bucket = mlir::dyn_cast<dist::NewBucketAttr>(role))
    return {bucket.getKind().getValue(), bucket.getName().getValue()};
  if (auto fresh = mlir::dyn_cast<graph::NewValueAttr>(role))
    return {plan.stateOf("buffer", fresh.getName()) ? "buffer" : "parameter",
            fresh.getName().getValue()};
  return {};
}

// A cast to a state's dtype whose only purpose is the write: the copy into
// state converts.
Value withoutCast(Value value) {
  mlir::Operation* op = value.getDefiningOp();
  if (!op || op->getName().getStringRef() != "graph._to_copy" ||
      !value.hasOneUse())
    return value;
  auto from = mlir::cast<mlir::RankedTensorType>(op->getOperand(0).getType()),
       to = mlir::cast<mlir::RankedTensorType>(value.getType());
  return from.getShape() == to.getShape() ? op->getOperand(0) : value;
}

LogicalResult addResult(SectionLowering& lowering, mlir::Attribute role,
                        Value value) {
  if (mlir::isa<graph::LossAttr>(role))
    return lowering.addResult("loss", "loss", value);
  if (auto gradient = mlir::dyn_cast<graph::GradientAttr>(role))
    return lowering.addResult("gradient", gradient.getName(), value);
  if (auto output = mlir::dyn_cast<graph::OutputAttr>(role))
    return lowering.addResult("output", output.getName(), value);
  if (auto fresh = mlir::dyn_cast<graph::NewValueAttr>(role))
    return lowering.addResult("new_value", fresh.getName(), value);
  return mlir::emitError(value.getLoc(), "result has role ")
         << role << ", which this section cannot return";
}

// Moves every accumulation to just after the op that its gradient comes from,
// so that the gradient dies there.
void accumulateEarly(llvm::SmallVector<mlir::Operation*>& order) {
  llvm::DenseMap<mlir::Operation*, llvm::SmallVector<mlir::Operation*, 1>>
      after;
  llvm::SmallVector<mlir::Operation*> rest, result;
  for (mlir::Operation* op : order) {
    auto accumulate = mlir::dyn_cast<optim::AccumulateOp>(op);
    mlir::Operation* producer =
        accumulate ? accumulate.getValue().getDefiningOp() : nullptr;
    if (producer) {
      after[producer].push_back(op);
    } else {
      rest.push_back(op);
    }
  }
  for (mlir::Operation* op : rest) {
    result.push_back(op);
    auto it = after.find(op);
    if (it != after.end()) llvm::append_range(result, it->second);
  }
  order = std::move(result);
}

struct LowerToSchedPass : impl::LowerToSchedBase<LowerToSchedPass> {
  using LowerToSchedBase::LowerToSchedBase;

  void runOnOperation() final {
    auto steps = llvm::to_vector(getOperation().getOps<graph::StepOp>());
    if (failed(lower(steps))) return signalPassFailure();
    for (graph::StepOp step : steps) step.erase();
  }

  LogicalResult lower(llvm::MutableArrayRef<graph::StepOp> steps) {
    mlir::ModuleOp module = getOperation();
    if (steps.empty() || steps.size() > 2)
      return module.emitError("has ") << steps.size()
                                      << " graph.step ops, expected the step "
                                         "and at most an evaluation program";
    if (mode != "replay" && mode != "train")
      return module.emitError("has no mode '")
             << mode << "'; use replay or train";
    graph::StepOp step = steps[0];
    auto builder = mlir::OpBuilder::atBlockEnd(module.getBody());
    auto recorded = resolvedConfig(step);
    if (failed(recorded)) return failure();
    auto [axes, sizes] = meshOf();
    auto text = [&](llvm::StringRef value) {
      return builder.getStringAttr(value);
    };
    auto planOp = builder.create<sched::PlanOp>(
        step.getLoc(), text(step.getTarget()), text(step.getPrecision()),
        text(mode), text(step.getTorchVersion()), text(*recorded),
        builder.getStrArrayAttr(streamsFor(sizes)), axes, sizes);
    planOp.getBody().emplaceBlock();

    Sidecar data, evalData;
    if (failed(read(step, sidecar, data))) return failure();
    PlanLowering plan(planOp);
    if (failed(plan.bind(step, data, ""))) return failure();
    if (steps.size() == 2) {
      if (failed(read(steps[1], evalSidecar.empty() ? sidecar : evalSidecar,
                      evalData)))
        return failure();
      if (failed(plan.bind(steps[1], evalData, "evaluate."))) return failure();
    }
    if (failed(lowerPrologue(plan, step))) return failure();
    if (mode == "replay")
      return steps.size() == 1 ? lowerReplay(plan, step)
                               : steps[1].emitOpError(
                                     "is an evaluation program, which mode "
                                     "replay has no section for");
    if (failed(lowerMicro(plan, step, "micro_first")) ||
        failed(lowerMicro(plan, step, "micro_next")) ||
        failed(lowerBoundary(plan, step)))
      return failure();
    return steps.size() == 2 ? lowerEvaluate(plan, steps[1]) : success();
  }

  LogicalResult read(graph::StepOp step, const std::string& path,
                     Sidecar& data) {
    if (path.empty()) return success();
    std::string error = readSidecar(path, data);
    return error.empty() ? success() : step.emitOpError() << error;
  }

  // What the caller must know before the first micro-batch runs: that the
  // guards hold, and how many labels count.
  LogicalResult lowerPrologue(PlanLowering& plan, graph::StepOp step) {
    mlir::Block& block = step.getBody().front();
    llvm::SmallVector<mlir::Operation*> guards;
    guardsOf(block, guards);
    mlir::Operation* loss =
        step.getLossAverage() == "tokens" ? crossEntropyOf(step) : nullptr;
    if (step.getLossAverage() == "tokens" && !loss)
      return step.emitOpError(
          "averages over tokens but its loss is no graph.nll_loss_forward nor "
          "its kernel");
    if (guards.empty() && !loss) return success();
    llvm::SmallVector<Value> kept;
    if (loss) kept.push_back(loss->getOperand(1));
    auto order = sliceFor(block, kept, guards, plan.given());
    SectionLowering lowering(plan.addSection(step.getLoc(), "prologue"), order,
                             kept, plan.given());
    if (failed(lowering.run())) return failure();
    return loss ? countLabels(lowering, loss) : success();
  }

  // Guards that a batch can break: what one computes from the program's own
  // constants was compared when it was captured.
  static void guardsOf(mlir::Block& block,
                       llvm::SmallVectorImpl<mlir::Operation*>& guards) {
    for (auto guard : block.getOps<graph::GuardOp>()) {
      auto slice = sliceFor(block, {}, {guard}, RefMap());
      bool given = llvm::any_of(slice, [](mlir::Operation* op) {
        return llvm::any_of(op->getOperands(), [](Value operand) {
          return mlir::isa<mlir::BlockArgument>(operand);
        });
      });
      if (given) guards.push_back(guard);
    }
  }

  static mlir::Operation* crossEntropyOf(graph::StepOp step) {
    for (const Result& result : resultsOf(step)) {
      mlir::Operation* op = mlir::isa<graph::LossAttr>(result.role)
                                ? rootOf(result.value).getDefiningOp()
                                : nullptr;
      auto kernel = llvm::dyn_cast_or_null<graph::KernelOp>(op);
      if (op && (op->getName().getStringRef() == "graph.nll_loss_forward" ||
                 (kernel && kernel.getKernel() == "cross_entropy")))
        return op;
    }
    return nullptr;
  }

  static Attribute ignoreIndexOf(mlir::Operation* loss) {
    if (auto kernel = mlir::dyn_cast<graph::KernelOp>(loss))
      return kernel.getScalars().get("ignore_index");
    return loss->getAttr("ignore_index");
  }

  static LogicalResult countLabels(SectionLowering& lowering,
                                   mlir::Operation* loss) {
    mlir::OpBuilder& builder = lowering.getBuilder();
    Value labels = lowering.refOf(loss->getOperand(1));
    if (!labels) return failure();
    auto shape =
        mlir::cast<mlir::RankedTensorType>(loss->getOperand(1).getType())
            .getShape();
    auto scratch = [&](mlir::RankedTensorType type, sched::Category category) {
      return makeBuffer(builder, loss->getLoc(), type, sched::Arena::Scratch,
                        category, "");
    };
    Value valid =
        scratch(mlir::RankedTensorType::get(shape, builder.getI1Type()),
                sched::Category::Temporary);
    Value count = scratch(mlir::RankedTensorType::get({}, builder.getI64Type()),
                          sched::Category::Output);
    Attribute operand = sched::OperandAttr::get(builder.getContext());
    builder.create<sched::AtenOp>(
        loss->getLoc(), "aten::ne.Scalar",
        builder.getArrayAttr({operand, ignoreIndexOf(loss)}),
        builder.getStrArrayAttr({"self", "other"}), llvm::ArrayRef<int64_t>{0},
        labels, valid);
    builder.create<sched::AtenOp>(
        loss->getLoc(), "aten::sum",
        builder.getArrayAttr({operand, builder.getUnitAttr()}),
        builder.getStrArrayAttr({"self", "dtype"}), llvm::ArrayRef<int64_t>{0},
        valid, count);
    builder.create<sched::ResultOp>(loss->getLoc(), "output", "label_count",
                                    count);
    return success();
  }

  // Streams by number: SectionLowering knows what runs where.
  llvm::SmallVector<llvm::StringRef> streamsFor(mlir::DenseI64ArrayAttr mesh) {
    bool alone =
        llvm::all_of(mesh.asArrayRef(), [](int64_t size) { return size == 1; });
    if (!overlap || alone) return {"compute"};
    return {"compute", "gather", "reduce"};
  }

  // The mesh's axes and sizes as a plan holds them.
  std::pair<mlir::ArrayAttr, mlir::DenseI64ArrayAttr> meshOf() {
    llvm::SmallVector<Attribute> names;
    llvm::SmallVector<int64_t> sizes;
    auto mesh = getOperation()->getAttrOfType<mlir::ArrayAttr>(
        dist::DistDialect::kMeshAttr);
    if (mesh)
      for (auto axis : mesh.getAsRange<dist::AxisAttr>()) {
        names.push_back(axis.getName());
        sizes.push_back(axis.getSize());
      }
    return {mlir::ArrayAttr::get(&getContext(), names),
            mlir::DenseI64ArrayAttr::get(&getContext(), sizes)};
  }

  // {"kernels": {"rms_norm": 33, ...}, "inlined": {...}}
  static llvm::json::Object countsOf(mlir::DictionaryAttr fusion) {
    llvm::json::Object all;
    for (mlir::NamedAttribute part : fusion) {
      llvm::json::Object counts;
      for (mlir::NamedAttribute kind :
           mlir::cast<mlir::DictionaryAttr>(part.getValue()))
        counts[kind.getName().getValue()] =
            mlir::cast<mlir::IntegerAttr>(kind.getValue()).getInt();
      all[part.getName().getValue()] = std::move(counts);
    }
    return all;
  }

  // {"count", "elements", "padding"} of the buckets that parameters lie in:
  // padding is what a collective carries beside their elements.
  static llvm::json::Object bucketsOf(graph::StepOp step) {
    llvm::StringSet<> seen;
    int64_t elements = 0, padding = 0;
    mlir::Block& block = step.getBody().front();
    for (auto [argument, role] :
         llvm::zip(block.getArguments(), step.getArgRoles())) {
      auto bucket = mlir::dyn_cast<dist::BucketAttr>(role);
      if (!bucket || !seen.insert(bucket.getName().getValue()).second) continue;
      int64_t whole =
          bucket.getBounds().empty()
              ? mlir::cast<mlir::RankedTensorType>(argument.getType())
                    .getNumElements()
              : bucket.getBounds().asArrayRef().back();
      elements += whole;
      padding += whole;
      for (auto member : bucket.getMembers().getAsRange<dist::MemberAttr>())
        padding -=
            mlir::cast<mlir::RankedTensorType>(member.getType().getValue())
                .getNumElements();
    }
    return llvm::json::Object{{"count", static_cast<int64_t>(seen.size())},
                              {"elements", elements},
                              {"padding", padding}};
  }

  // The pass's configuration with what the passes before it decided.
  mlir::FailureOr<std::string> resolvedConfig(graph::StepOp step) {
    llvm::Expected<llvm::json::Value> parsed = llvm::json::parse(config);
    if (!parsed || !parsed->getAsObject()) {
      llvm::consumeError(parsed.takeError());
      step.emitError("config is not a JSON object: ") << config;
      return failure();
    }
    if (auto average = step.getLossAverage())
      (*parsed->getAsObject())["loss_average"] = *average;
    if (auto fusion = step.getFusion())
      (*parsed->getAsObject())["fusion"] = countsOf(*fusion);
    if (llvm::any_of(step.getArgRoles(), llvm::IsaPred<dist::BucketAttr>))
      (*parsed->getAsObject())["buckets"] = bucketsOf(step);
    // What the backward pass begins with, but for a scale that is state.
    for (auto scale : step.getBody().front().getOps<optim::LossScaleOp>())
      (*parsed->getAsObject())["loss_seed"] =
          scale.getSeed().convertToDouble() *
          (scale.getState().empty() ? scale.getInitial().convertToDouble()
                                    : 1.0);
    return llvm::formatv("{0}", *parsed).str();
  }

  LogicalResult lowerReplay(PlanLowering& plan, graph::StepOp step) {
    mlir::Block& block = step.getBody().front();
    llvm::SmallVector<Value> kept;
    for (auto [role, value] : resultsOf(step)) kept.push_back(value);
    // Eager draws from its generator for every random op, read or not.
    llvm::SmallVector<mlir::Operation*> random;
    for (mlir::Operation& op : block)
      if (op.hasAttr(graph::GraphDialect::kRngIdAttr)) random.push_back(&op);
    auto order = sliceFor(block, kept, random, plan.given());
    SectionLowering lowering(plan.addSection(step.getLoc(), "replay"), order,
                             kept, plan.given());
    if (failed(lowering.run())) return failure();
    for (auto [role, value] : resultsOf(step))
      if (failed(addResult(lowering, role, value))) return failure();
    return success();
  }

  // Everything up to the accumulators; buffers take their new values.
  LogicalResult lowerMicro(PlanLowering& plan, graph::StepOp step,
                           llvm::StringRef name) {
    mlir::Block& block = step.getBody().front();
    llvm::SmallVector<Value> kept;
    llvm::SmallVector<Result> read, written;
    llvm::SmallVector<mlir::Operation*> accumulations;
    for (mlir::Operation& op : block)
      if (optim::accumulatorOf(&op)) accumulations.push_back(&op);
    if (accumulations.empty())
      return step.emitOpError(
          "accumulates no gradient; run graph-append-optimizer before "
          "graph-lower-to-sched{mode=train}");
    for (Result result : resultsOf(step)) {
      auto [kind, target] = replacedState(result.role, plan);
      if (kind == "buffer") {
        written.push_back(result);
        kept.push_back(result.value);
      } else if (mlir::isa<graph::LossAttr>(result.role) ||
                 isStepOutput(result)) {
        read.push_back(result);
        kept.push_back(result.value);
      }
    }
    auto order = sliceFor(block, kept, accumulations, plan.given());
    accumulateEarly(order);
    SectionLowering lowering(plan.addSection(step.getLoc(), name), order, kept,
                             plan.given());
    if (failed(lowering.run()) ||
        failed(writeState(plan, lowering, step, written, read)))
      return failure();
    if (name == "micro_first") reportGradients(plan, lowering.getPlacements());
    for (auto [role, value] : read)
      if (failed(addResult(lowering, role, value))) return failure();
    return success();
  }

  // How many gradients are computed where they are sent from, and what of the
  // others is copied, why.
  static void reportGradients(PlanLowering& plan,
                              const Placements& placements) {
    if (placements.inPlace == 0 && placements.copied.empty()) return;
    llvm::json::Array copied;
    for (const auto& [what, copies] : placements.copied)
      copied.push_back(llvm::json::Object{{"operator", what.first},
                                          {"why", what.second},
                                          {"count", copies.count},
                                          {"bytes", copies.bytes}});
    plan.record("gradients",
                llvm::json::Object{{"in_place", placements.inPlace},
                                   {"copied", std::move(copied)}});
  }

  // An output of the model, as opposed to one of the update (norm, finite).
  static bool isStepOutput(const Result& result) {
    return mlir::isa<graph::OutputAttr>(result.role) &&
           !isUpdateValue(result.value);
  }
  static bool isUpdateValue(Value value) {
    mlir::Operation* op = value.getDefiningOp();
    return op && op->getName().getDialectNamespace() ==
                     optim::OptimDialect::getDialectNamespace();
  }

  LogicalResult lowerBoundary(PlanLowering& plan, graph::StepOp step) {
    mlir::Block& block = step.getBody().front();
    RefMap given = plan.given();
    for (mlir::Operation& op : block)
      if (Value accumulator = optim::accumulatorOf(&op))
        given[op.getResult(0)] = given.lookup(accumulator);
    llvm::SmallVector<Value> kept;
    llvm::SmallVector<Result> read, written;
    for (Result result : resultsOf(step)) {
      auto [kind, target] = replacedState(result.role, plan);
      if (kind == "accumulator") continue;
      if (!kind.empty() && kind != "buffer") {
        written.push_back({result.role, withoutCast(result.value)});
        kept.push_back(written.back().value);
      } else if (mlir::isa<graph::OutputAttr>(result.role) &&
                 isUpdateValue(result.value)) {
        read.push_back(result);
        kept.push_back(result.value);
      }
    }
    // The norm and its predicate are reported whether the program returns them
    // or not.
    for (auto norm : block.getOps<optim::GradNormOp>())
      if (!isScaled(norm.getResult()))
        report(norm.getResult(), "grad_norm", read, kept);
    for (auto scale : block.getOps<optim::LossScaleOp>()) {
      report(scale.getResultNorm(), "grad_norm", read, kept);
      report(scale.getFinite(), "finite", read, kept);
      report(scale.getUsed(), "loss_scale", read, kept);
      report(scale.getExhausted(), "loss_scale_exhausted", read, kept);
    }
    for (auto finite : block.getOps<optim::FiniteOp>())
      report(finite->getResult(0), "finite", read, kept);
    auto order = sliceFor(block, kept, {}, given);
    SectionLowering lowering(plan.addSection(step.getLoc(), "boundary"), order,
                             kept, given);
    lowering.setMuonStack(muonStack);
    gatherIntoState(plan, lowering, written, order);
    if (failed(lowering.run()) ||
        failed(writeState(plan, lowering, step, written, {})))
      return failure();
    for (auto [role, value] : read)
      if (failed(addResult(lowering, role, value))) return failure();
    return success();
  }

  static bool isScaled(Value norm) {
    return llvm::any_of(norm.getUsers(), [](mlir::Operation* user) {
      return mlir::isa<optim::LossScaleOp>(user);
    });
  }

  // Gathered or converted parameters replace the old ones where they lie, once
  // nobody reads those.
  static void gatherIntoState(PlanLowering& plan, SectionLowering& lowering,
                              llvm::ArrayRef<Result> written,
                              llvm::ArrayRef<mlir::Operation*> order) {
    Liveness liveness(order, {});
    for (const Result& result : written) {
      mlir::Operation* op = result.value.getDefiningOp();
      auto muon = mlir::dyn_cast_or_null<optim::MuonOp>(op);
      bool isCopy = muon && llvm::is_contained(muon.getCopies(), result.value);
      if (!isCopy && !mlir::isa_and_nonnull<dist::AllGatherOp>(op)) continue;
      auto [kind, name] = replacedState(result.role, plan);
      Value target = plan.stateOf(kind, name);
      int64_t at = llvm::find(order, op) - order.begin();
      bool read = llvm::any_of(plan.given(), [&](const auto& entry) {
        return entry.second == target && liveness.lastUse(entry.first) > at;
      });
      if (target && !read) lowering.placeInto(result.value, target);
    }
  }

  void report(Value value, llvm::StringRef name,
              llvm::SmallVectorImpl<Result>& read,
              llvm::SmallVectorImpl<Value>& kept) {
    if (llvm::any_of(
            read, [&](const Result& result) { return result.value == value; }))
      return;
    read.push_back({graph::OutputAttr::get(
                        value.getContext(),
                        mlir::StringAttr::get(value.getContext(), name)),
                    value});
    kept.push_back(value);
  }

  LogicalResult lowerEvaluate(PlanLowering& plan, graph::StepOp step) {
    mlir::Block& block = step.getBody().front();
    llvm::SmallVector<Value> kept;
    llvm::SmallVector<Result> read;
    for (Result result : resultsOf(step)) {
      if (mlir::isa<graph::GradientAttr>(result.role))
        return step.emitOpError(
            "is an evaluation program but returns gradients; record it under "
            "no_grad");
      if (!mlir::isa<graph::LossAttr, graph::OutputAttr>(result.role))
        return step.emitOpError("is an evaluation program but writes ")
               << result.role;
      read.push_back(result);
      kept.push_back(result.value);
    }
    llvm::SmallVector<mlir::Operation*> guards;
    guardsOf(block, guards);
    auto order = sliceFor(block, kept, guards, plan.given());
    SectionLowering lowering(plan.addSection(step.getLoc(), "evaluate"), order,
                             kept, plan.given());
    if (failed(lowering.run())) return failure();
    for (auto [role, value] : read)
      if (failed(addResult(lowering, role, value))) return failure();
    return success();
  }

  // New values that do not lie over the old ones yet are copied there, at the
  // section's end.
  LogicalResult writeState(PlanLowering& plan, SectionLowering& lowering,
                           graph::StepOp step, llvm::ArrayRef<Result> written,
                           llvm::ArrayRef<Result> read) {
    for (const Result& result : written) {
      auto [kind, name] = replacedState(result.role, plan);
      Value target = plan.stateOf(kind, name),
            source = lowering.refOf(result.value);
      if (!target)
        return step.emitOpError("returns ")
               << result.role << " but has no such argument";
      if (!source) return failure();
      if (sched::bufferOf(source) == sched::bufferOf(target)) continue;
      for (const Result& other : read) {
        Value seen = lowering.refOf(other.value);
        if (seen && sched::bufferOf(seen) == sched::bufferOf(target))
          return step.emitOpError("returns ")
                 << other.role << ", which looks into '" << name
                 << "' that the step replaces; return a clone of it";
      }
      mlir::Operation* origin = result.value.getDefiningOp();
      lowering.copy(origin ? origin : step.getOperation(), source, target);
    }
    return success();
  }
};

}  // namespace
}  // namespace heddle
