// Writes the update phase after a captured backward pass: per gradient one
// accumulation, one average, one AdamW or Muon, plus the global norm where it
// is asked for. Invariant: state enters as arguments and leaves as results of
// the same name and kind; the schedule places both on the same bytes. What
// would break it: a gradient that is not the whole gradient of its parameter (a
// tied weight returned twice).
#include "ir/optim/OptimDialect.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/GlobPattern.h"
#include "passes/graph/Passes.h"
#include "passes/graph/functional_forms.h"
#include "passes/graph/loss_average.h"
#include "passes/graph/loss_scale.h"
#include "passes/graph/optimizer_config.h"

namespace heddle::graph {
#define GEN_PASS_DEF_APPENDOPTIMIZER
#include "passes/graph/Passes.h.inc"

using namespace mlir;

namespace {

// One parameter's way through the update.
struct Update {
  ParamAttr role;
  BlockArgument param;
  Value gradient;
  unsigned group = 0;
  Value accumulated;
  Value averaged;
};

Type dtypeOf(llvm::StringRef name, Type param, MLIRContext* context) {
  if (name == "fp64") return Float64Type::get(context);
  if (name == "fp32") return Float32Type::get(context);
  if (name == "bf16") return BFloat16Type::get(context);
  if (name == "fp16") return Float16Type::get(context);
  return param.getIntOrFloatBitWidth() < 32 ? Float32Type::get(context) : param;
}

class AppendOptimizer : public impl::AppendOptimizerBase<AppendOptimizer> {
 public:
  using AppendOptimizerBase::AppendOptimizerBase;

 private:
  void runOnOperation() override {
    StepOp step = getOperation();
    // A textual pipeline strips the braces around an option's value, which here
    // are JSON's own.
    std::string json = llvm::StringRef(config).ltrim().starts_with("{")
                           ? config.getValue()
                           : "{" + config + "}";
    llvm::Expected<OptimizerConfig> parsed = parseOptimizerConfig(json);
    if (!parsed) {
      step.emitError(llvm::toString(parsed.takeError()));
      return signalPassFailure();
    }
    options = std::move(*parsed);
    resultRoles.clear();
    llvm::SmallVector<Update> updates;
    if (failed(collect(step, updates))) return signalPassFailure();
    FailureOr<llvm::StringRef> divisor = averageLoss(step, options.lossAverage);
    if (failed(divisor)) return signalPassFailure();
    if (failed(scaleLoss(step, *divisor))) return signalPassFailure();

    returned = step.getBody().front().getTerminator();
    OpBuilder builder(returned);
    dropGradients(step);
    for (Update& update : updates) accumulate(update, *divisor, builder);
    Limits limits = limitNorm(updates, builder);
    for (Update& update : updates)
      if (failed(apply(step, update, limits, builder)))
        return signalPassFailure();
    step.setArgRolesAttr(builder.getArrayAttr(argRoles));
    step.setResultRolesAttr(builder.getArrayAttr(resultRoles));
  }

  // Pairs every gradient with its parameter and group.
  LogicalResult collect(StepOp step, llvm::SmallVectorImpl<Update>& updates) {
    argRoles.assign(step.getArgRoles().begin(), step.getArgRoles().end());
    llvm::StringMap<Value> gradients;
    for (auto [role, value] :
         llvm::zip(step.getResultRoles(),
                   step.getBody().front().getTerminator()->getOperands())) {
      auto gradient = llvm::dyn_cast<GradientAttr>(role);
      if (gradient &&
          !gradients.try_emplace(gradient.getName().getValue(), value).second) {
        return step.emitError("returns two gradients of ")
               << gradient.getName();
      }
    }
    for (auto [role, argument] :
         llvm::zip(step.getArgRoles(), step.getBody().front().getArguments())) {
      auto param = llvm::dyn_cast<ParamAttr>(role);
      if (!param || !param.getTrainable().getValue()) continue;
      Value gradient;
      for (Attribute name : param.getNames()) {
        auto found = gradients.find(llvm::cast<StringAttr>(name).getValue());
        if (found != gradients.end()) gradient = found->second;
      }
      if (!gradient) {
        step.emitRemark("left alone: ")
            << param.getName() << " has no gradient";
        continue;
      }
      auto type = llvm::cast<RankedTensorType>(argument.getType());
      if (!llvm::isa<FloatType>(type.getElementType()))
        return step.emitError("cannot update ")
               << param.getName() << " of type " << type
               << ": AdamW updates floating parameters";
      if (type.getShape() !=
          llvm::cast<RankedTensorType>(gradient.getType()).getShape()) {
        return step.emitError("cannot update ")
               << param.getName() << " of type " << type
               << " with a gradient of type " << gradient.getType();
      }
      FailureOr<unsigned> group = groupOf(step, param, type);
      if (failed(group)) return failure();
      updates.push_back({param, argument, gradient, *group, {}, {}});
    }
    if (updates.empty())
      return step.emitError(
          "has no trainable parameter with a gradient, so there is nothing to "
          "optimize");
    return checkSplits(step, updates);
  }

  // What nothing is split by was asked for in vain.
  LogicalResult checkSplits(StepOp step, llvm::ArrayRef<Update> updates) {
    for (const ParamGroup& group : options.groups) {
      if (!group.muon) continue;
      for (const auto& [text, unused] : group.muon->split) {
        auto takes = [&, &text = text](const Update& update) {
          const std::optional<MuonSettings>& muon =
              options.groups[update.group].muon;
          return muon &&
                 llvm::is_contained(llvm::make_first_range(muon->split),
                                    text) &&
                 splitBy(text, update.role);
        };
        if (!llvm::any_of(updates, takes))
          return step.emitError("split of \"")
                 << text << "\" takes no matrix that Muon updates";
      }
    }
    return success();
  }

  static bool splitBy(llvm::StringRef text, ParamAttr role) {
    llvm::Expected<llvm::GlobPattern> glob = llvm::GlobPattern::create(text);
    if (!glob) return llvm::consumeError(glob.takeError()), true;
    return llvm::any_of(role.getNames(), [&](Attribute name) {
      return glob->match(llvm::cast<StringAttr>(name).getValue());
    });
  }

  FailureOr<unsigned> groupOf(StepOp step, ParamAttr param,
                              RankedTensorType type) {
    for (auto [i, group] : llvm::enumerate(options.groups)) {
      // What a parameter without elements is makes no difference to it; nobody
      // has asked for it by name.
      if (!group.roles.empty() &&
          (type.getNumElements() == 0 ||
           !llvm::is_contained(group.roles, param.getKind().getValue())))
        continue;
      for (const std::string& text : group.params) {
        llvm::Expected<llvm::GlobPattern> glob =
            llvm::GlobPattern::create(text);
        if (!glob)
          return step.emitError("param group ")
                     << i << " has the malformed glob \"" << text
                     << "\": " << llvm::toString(glob.takeError()),
                 failure();
        for (Attribute name : param.getNames()) {
          if (glob->match(llvm::cast<StringAttr>(name).getValue()))
            return static_cast<unsigned>(i);
        }
      }
    }
    return step.emitError("no param group takes ")
               << param.getName() << "; add one with \"params\": [\"*\"]",
           failure();
  }

  // Only fp16 is so narrow that gradients vanish without a scale.
  LogicalResult scaleLoss(StepOp step, llvm::StringRef divisor) {
    scale.reset();
    bool half = step.getPrecision() == "fp16";
    if (options.lossScale && !half)
      return step.emitError("has precision ")
             << step.getPrecision()
             << ", and loss_scale is for fp16; leave it out";
    if (!half) return success();
    auto scaled =
        LossScale::apply(step, options.lossScale.value_or(LossScaleSettings()),
                         divisor, argRoles);
    if (failed(scaled)) return failure();
    scale = std::move(*scaled);
    return success();
  }

  void dropGradients(StepOp step) {
    llvm::SmallVector<Value> kept;
    for (auto [role, value] :
         llvm::zip(step.getResultRoles(), returned->getOperands())) {
      if (llvm::isa<GradientAttr>(role)) continue;
      resultRoles.push_back(role);
      kept.push_back(value);
    }
    returned->setOperands(kept);
  }

  void setPhase(Operation* op, Phase phase) {
    op->setDiscardableAttr(GraphDialect::kPhaseAttr,
                           PhaseAttr::get(op->getContext(), phase));
  }

  Value addState(const Update& update, llvm::StringRef kind, Type elementType) {
    auto role = StateAttr::get(elementType.getContext(), update.role.getName(),
                               StringAttr::get(elementType.getContext(), kind));
    argRoles.push_back(role);
    auto type = RankedTensorType::get(
        llvm::cast<RankedTensorType>(update.param.getType()).getShape(),
        elementType);
    return update.param.getOwner()->addArgument(type, update.param.getLoc());
  }

  void giveBack(Attribute role, Value value) {
    resultRoles.push_back(role);
    returned->insertOperands(returned->getNumOperands(), value);
  }

  Type typeFor(const std::string& name, const Update& update) {
    return dtypeOf(
        name,
        llvm::cast<RankedTensorType>(update.param.getType()).getElementType(),
        update.param.getContext());
  }

  void accumulate(Update& update, llvm::StringRef divisor, OpBuilder& builder) {
    Location loc = update.gradient.getLoc();
    Value state = addState(update, "accumulator",
                           typeFor(options.accumulateDtype, update));
    auto sum = builder.create<optim::AccumulateOp>(loc, state.getType(), state,
                                                   update.gradient);
    setPhase(sum, Phase::Backward);
    update.accumulated = sum;
    giveBack(NewStateAttr::get(builder.getContext(), update.role.getName(),
                               builder.getStringAttr("accumulator")),
             sum);
    auto average = builder.create<optim::AverageOp>(
        loc, state.getType(), sum, builder.getStringAttr(divisor));
    setPhase(average, Phase::Update);
    update.averaged = average;
  }

  // What the updates take from all gradients together; null where there is
  // none. Muon's gradients are only unscaled.
  struct Limits {
    Value factor;
    Value unscale;
    Value finite;
  };

  // All accumulations stand before the first op of the update, which limitNorm
  // and apply write.
  Limits limitNorm(llvm::ArrayRef<Update> updates, OpBuilder& builder) {
    Limits limits;
    if (!options.clip && !options.skipNonfinite && !scale) return limits;
    Location loc = returned->getLoc();
    bool isDouble = false;
    llvm::SmallVector<Value> gradients;
    for (const Update& update : updates) {
      gradients.push_back(update.averaged);
      isDouble |= llvm::cast<RankedTensorType>(update.averaged.getType())
                      .getElementType()
                      .isF64();
    }
    auto scalar = RankedTensorType::get(
        {}, isDouble ? builder.getF64Type() : builder.getF32Type());
    Value norm = builder.create<optim::GradNormOp>(loc, scalar, gradients);
    setPhase(norm.getDefiningOp(), Phase::Update);
    if (scale) {
      auto unscaled = scale->unscale(
          builder, norm, options.clip,
          [&](Attribute role, Value value) { giveBack(role, value); });
      setPhase(unscaled, Phase::Update);
      limits = {unscaled.getFactor(), unscaled.getInverse(),
                unscaled.getFinite()};
      norm = unscaled.getResultNorm();
    }
    if (options.clip && !scale) {
      limits.factor = builder.create<optim::ClipFactorOp>(
          loc, scalar, norm, builder.getF64FloatAttr(*options.clip));
      setPhase(limits.factor.getDefiningOp(), Phase::Update);
    }
    if (options.skipNonfinite && !scale) {
      limits.finite = builder.create<optim::FiniteOp>(
          loc, RankedTensorType::get({}, builder.getI1Type()), norm);
      setPhase(limits.finite.getDefiningOp(), Phase::Update);
    }
    giveBack(OutputAttr::get(builder.getContext(),
                             builder.getStringAttr("grad_norm")),
             norm);
    return limits;
  }

  LogicalResult apply(StepOp step, const Update& update, const Limits& limits,
                      OpBuilder& builder) {
    const ParamGroup& group = options.groups[update.group];
    if (group.muon) return applyMuon(step, update, limits, builder);
    auto paramType = llvm::cast<RankedTensorType>(update.param.getType());
    Type masterElement = typeFor(options.masterDtype, update);
    bool hasMaster = masterElement != paramType.getElementType();
    Value master = hasMaster ? addState(update, "master", masterElement)
                             : Value(update.param);
    Value average =
        addState(update, "exp_avg", typeFor(options.stateDtype, update));
    Value square =
        addState(update, "exp_avg_sq", typeFor(options.stateDtype, update));
    auto real = [&](double value) { return builder.getF64FloatAttr(value); };
    auto adamw = builder.create<optim::AdamWOp>(
        update.param.getLoc(),
        TypeRange{master.getType(), average.getType(), square.getType()},
        master, update.averaged, average, square, limits.factor, limits.finite,
        real(group.beta1), real(group.beta2), real(group.eps),
        real(group.weightDecay), real(group.lrScale),
        builder.getI64IntegerAttr(update.group));
    setPhase(adamw, Phase::Update);
    StringAttr name = update.role.getName();
    Value fresh = adamw.getNewParam();
    if (hasMaster) {
      giveBack(NewStateAttr::get(name.getContext(), name,
                                 builder.getStringAttr("master")),
               fresh);
      fresh =
          createAten(builder, update.param.getLoc(), "graph._to_copy",
                     paramType, fresh,
                     {builder.getNamedAttr(
                          "dtype", TypeAttr::get(paramType.getElementType())),
                      builder.getNamedAttr("non_blocking",
                                           builder.getBoolAttr(false))},
                     adamw)
              ->getResult(0);
    }
    giveBack(NewValueAttr::get(name.getContext(), name), fresh);
    giveBack(NewStateAttr::get(name.getContext(), name,
                               builder.getStringAttr("exp_avg")),
             adamw.getNewExpAvg());
    giveBack(NewStateAttr::get(name.getContext(), name,
                               builder.getStringAttr("exp_avg_sq")),
             adamw.getNewExpAvgSq());
    return success();
  }

  // Muon's momentum takes raw gradients: its update does not depend on their
  // scale, so clipping is not for it.
  LogicalResult applyMuon(StepOp step, const Update& update,
                          const Limits& limits, OpBuilder& builder) {
    const ParamGroup& group = options.groups[update.group];
    auto paramType = llvm::cast<RankedTensorType>(update.param.getType());
    FailureOr<llvm::SmallVector<int64_t>> matrices =
        matricesOf(step, update, *group.muon);
    if (failed(matrices)) return failure();
    Type masterElement = typeFor(options.masterDtype, update);
    bool hasMaster = masterElement != paramType.getElementType();
    Value master = hasMaster ? addState(update, "master", masterElement)
                             : Value(update.param);
    const std::string& dtype = group.muon->stateDtype.empty()
                                   ? options.stateDtype
                                   : group.muon->stateDtype;
    Value momentum = addState(update, "momentum", typeFor(dtype, update));
    Type copy[] = {paramType};
    auto muon = builder.create<optim::MuonOp>(
        update.param.getLoc(), TypeRange(master.getType()),
        TypeRange(momentum.getType()),
        hasMaster ? TypeRange(copy) : TypeRange(), master, update.averaged,
        momentum, limits.unscale, limits.finite,
        builder.getDenseI64ArrayAttr(*matrices),
        muonSettings(step, group, builder),
        builder.getI64IntegerAttr(update.group));
    setPhase(muon, Phase::Update);
    StringAttr name = update.role.getName();
    if (hasMaster)
      giveBack(NewStateAttr::get(name.getContext(), name,
                                 builder.getStringAttr("master")),
               muon.getNewParams()[0]);
    giveBack(NewValueAttr::get(name.getContext(), name),
             hasMaster ? muon.getCopies()[0] : muon.getNewParams()[0]);
    giveBack(NewStateAttr::get(name.getContext(), name,
                               builder.getStringAttr("momentum")),
             muon.getNewMomenta()[0]);
    return success();
  }

  // The rows of optim.muon for one parameter: its last two dimensions, split
  // into blocks of rows where the group says so.
  FailureOr<llvm::SmallVector<int64_t>> matricesOf(StepOp step,
                                                   const Update& update,
                                                   const MuonSettings& muon) {
    auto type = llvm::cast<RankedTensorType>(update.param.getType());
    auto refuse = [&](const llvm::Twine& reason) {
      step.emitError("cannot update ") << update.role.getName() << " of type "
                                       << type << " by Muon: " << reason;
      return failure();
    };
    if (type.getRank() < 2 || type.getNumElements() == 0)
      return refuse(
          "it takes matrices and stacks of matrices; give it to AdamW");
    if (!isRowMajor(type))
      return refuse("it is not row-major; make it contiguous before capture");
    int64_t columns = type.getShape().back(),
            rows = type.getShape()[type.getRank() - 2], blocks = 1;
    for (const auto& [text, count] : muon.split) {
      llvm::Expected<llvm::GlobPattern> glob = llvm::GlobPattern::create(text);
      if (!glob)
        return refuse("split has the malformed glob \"" + text +
                      "\": " + llvm::toString(glob.takeError()));
      if (!splitBy(text, update.role)) continue;
      if (blocks != 1 && blocks != count)
        return refuse("split gives it " + llvm::Twine(blocks) + " and " +
                      llvm::Twine(count) + " blocks");
      blocks = count;
    }
    if (rows % blocks != 0)
      return refuse("its " + llvm::Twine(rows) + " rows do not split into " +
                    llvm::Twine(blocks) + " blocks");
    rows /= blocks;
    llvm::SmallVector<int64_t> matrices;
    for (int64_t at = 0; at < type.getNumElements(); at += rows * columns)
      matrices.append({0, 0, at, at, rows, columns});
    return matrices;
  }

  DictionaryAttr muonSettings(StepOp step, const ParamGroup& group,
                              OpBuilder& builder) {
    const MuonSettings& muon = *group.muon;
    std::string dtype = muon.nsDtype;
    llvm::StringRef precision = step.getPrecision();
    if (dtype.empty())
      dtype = precision == "fp64" || precision == "fp32" ? precision.str()
              : muon.ns == "gram"                        ? "fp16"
                                                         : "bf16";
    Attribute coefficients = builder.getStringAttr(muon.coefficients);
    if (!muon.ownCoefficients.empty())
      coefficients = builder.getDenseF64ArrayAttr(muon.ownCoefficients);
    auto real = [&](double value) { return builder.getF64FloatAttr(value); };
    auto text = [&](llvm::StringRef value) {
      return builder.getStringAttr(value);
    };
    auto named = [&](llvm::StringRef name, Attribute value) {
      return builder.getNamedAttr(name, value);
    };
    return builder.getDictionaryAttr(
        {named("momentum", real(muon.momentum)),
         named("nesterov", builder.getBoolAttr(muon.nesterov)),
         named("form", text(muon.form)), named("ns", text(muon.ns)),
         named("coefficients", coefficients),
         named("steps", builder.getI64IntegerAttr(muon.steps)),
         named("dtype", text(dtype)), named("scale", text(muon.scale)),
         named("eps", real(muon.eps)), named("norm_eps", text(muon.normEps)),
         named("weight_decay", real(group.weightDecay)),
         named("lr_scale", real(group.lrScale))});
  }

  OptimizerConfig options;
  std::optional<LossScale> scale;
  Operation* returned = nullptr;
  llvm::SmallVector<Attribute> argRoles;
  llvm::SmallVector<Attribute> resultRoles;
};

}  // namespace
}  // namespace heddle::graph
