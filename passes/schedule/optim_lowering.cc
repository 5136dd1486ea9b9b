// Optimizer ops -> kernel steps on state, in place. Invariant: an update's old
// value has no reader after it, so its bytes become the new value's. Reading a
// parameter after its update in the same section would see the new value; that
// is refused.
#include "ir/optim/OptimDialect.h"
#include "llvm/ADT/TypeSwitch.h"
#include "passes/schedule/section_lowering.h"

namespace heddle {

using mlir::Attribute;
using mlir::failure;
using mlir::LogicalResult;
using mlir::success;
using mlir::Value;

namespace {

// A value under the division that the boundary applies to it: the kernels
// divide while they read.
std::pair<Value, mlir::StringAttr> undivided(Value value) {
  if (auto average = value.getDefiningOp<optim::AverageOp>())
    return {average.getValue(), average.getDivisorAttr()};
  return {value, nullptr};
}

Attribute divisorArg(mlir::Builder builder, mlir::StringAttr divisor) {
  if (!divisor) return builder.getF64FloatAttr(1.0);
  return sched::RuntimeAttr::get(builder.getContext(), divisor.getValue());
}

}  // namespace

// A norm's step also computes the clip factor and the predicate that depend on
// it.
LogicalResult SectionLowering::lowerNorm(
    mlir::Operation* op, llvm::StringRef name,
    llvm::SmallVector<std::pair<llvm::StringRef, Attribute>> args,
    mlir::ValueRange reads, Value partials) {
  optim::ClipFactorOp clip;
  optim::FiniteOp finite;
  for (mlir::Operation* user : op->getResult(0).getUsers()) {
    if (auto other = mlir::dyn_cast<optim::ClipFactorOp>(user)) {
      if (clip && clip.getMaxNorm() != other.getMaxNorm()) {
        auto error = other.emitOpError("clips one norm to a second limit");
        error.attachNote(clip.getLoc()) << "first limit here";
        return error;
      }
      clip = other;
    }
    if (auto predicate = mlir::dyn_cast<optim::FiniteOp>(user))
      finite = predicate;
  }
  llvm::SmallVector<Value> writes = {newResult(op->getResult(0), op)};
  llvm::SmallVector<int64_t> slots = {0, -1, -1};
  if (clip) {
    slots[1] = writes.size();
    writes.push_back(newResult(clip.getResult(), clip));
  }
  if (finite) {
    slots[2] = writes.size();
    writes.push_back(newResult(finite->getResult(0), finite));
  }
  if (partials) {
    slots.push_back(writes.size());
    writes.push_back(partials);
  }
  double limit = clip ? clip.getMaxNorm().convertToDouble() : -1.0;
  args.push_back({"max_norm", builder.getF64FloatAttr(limit)});
  kernel(op, name, args, reads, writes).setResultSlots(slots);
  return success();
}

// Where multi_grad_norm keeps its partial sums (kernels/README.md).
Value SectionLowering::normPartials(mlir::Operation* op,
                                    optim::GradNormOp norm) {
  constexpr int64_t kPartElements = 65536;
  int64_t parts = 0;
  for (Value gradient : norm.getGradients()) {
    int64_t elements =
        mlir::cast<mlir::RankedTensorType>(gradient.getType()).getNumElements();
    parts += (elements + kPartElements - 1) / kPartElements + 1;
  }
  return makeBuffer(builder, op->getLoc(),
                    mlir::RankedTensorType::get({parts}, builder.getF64Type()),
                    sched::Arena::Scratch, sched::Category::Temporary, "");
}

// What one and many updates by AdamW say alike: the scalars of the gradient
// norm and the numbers of the group.
template <typename Op>
LogicalResult SectionLowering::adamWArgs(
    Op adamw, mlir::StringAttr divisor,
    llvm::SmallVectorImpl<std::pair<llvm::StringRef, Attribute>>& args,
    llvm::SmallVectorImpl<Value>& reads) {
  mlir::MLIRContext* context = builder.getContext();
  auto f64 = [&](llvm::APFloat value) -> Attribute {
    return builder.getF64FloatAttr(value.convertToDouble());
  };
  for (auto [name, scalar] :
       {std::pair<llvm::StringRef, Value>("factor", adamw.getFactor()),
        std::pair<llvm::StringRef, Value>("finite", adamw.getFinite())}) {
    if (!scalar) continue;
    Value ref = refOf(scalar);
    if (!ref) return failure();
    reads.push_back(ref);
    args.push_back({name, sched::OperandAttr::get(context)});
  }
  args.append({{"divisor", divisorArg(builder, divisor)},
               {"lr", sched::RuntimeAttr::get(context, "lr")},
               {"step", sched::RuntimeAttr::get(context, "step")},
               {"beta1", f64(adamw.getBeta1())},
               {"beta2", f64(adamw.getBeta2())},
               {"eps", f64(adamw.getEps())},
               {"weight_decay", f64(adamw.getWeightDecay())},
               {"lr_scale", f64(adamw.getLrScale())}});
  return success();
}

LogicalResult SectionLowering::lowerMultiAdamW(optim::MultiAdamWOp adamw) {
  Attribute operand = sched::OperandAttr::get(adamw.getContext());
  llvm::SmallVector<Value> reads, writes;
  llvm::SmallVector<std::pair<llvm::StringRef, Attribute>> args;
  auto list = [&](llvm::StringRef name, size_t count) {
    llvm::SmallVector<Attribute> entries(count, operand);
    args.push_back({name, builder.getArrayAttr(entries)});
  };
  // New values lie over the old ones.
  auto updates = [&](llvm::StringRef name, mlir::OperandRange old,
                     mlir::ResultRange fresh) -> LogicalResult {
    list(name, old.size());
    for (auto [before, after] : llvm::zip(old, fresh)) {
      if (liveness.lastUse(before) > position)
        return adamw->emitOpError(
                   "replaces a value that a later op of section '")
               << section.getName() << "' still reads";
      Value ref = refOf(before);
      if (!ref) return failure();
      refs[after] = ref;
      reads.push_back(ref);
      writes.push_back(ref);
    }
    return success();
  };
  if (failed(updates("params", adamw.getParams(), adamw.getNewParams())) ||
      failed(updates("exp_avgs", adamw.getExpAvgs(), adamw.getNewExpAvgs())) ||
      failed(updates("exp_avg_sqs", adamw.getExpAvgSqs(),
                     adamw.getNewExpAvgSqs())) ||
      failed(updates("copies", adamw.getCopies(), adamw.getNewCopies())))
    return failure();
  mlir::StringAttr divisor = undivided(adamw.getGrads().front()).second;
  list("grads", adamw.getGrads().size());
  for (Value gradient : adamw.getGrads()) {
    auto [sum, by] = undivided(gradient);
    if (by != divisor)
      return adamw->emitOpError("mixes gradients of different divisors");
    Value ref = refOf(sum);
    if (!ref) return failure();
    reads.push_back(ref);
  }
  if (failed(adamWArgs(adamw, divisor, args, reads))) return failure();
  kernel(adamw, "multi_adamw", args, reads, writes);
  return success();
}

LogicalResult SectionLowering::lowerOptim(mlir::Operation* op) {
  mlir::MLIRContext* context = op->getContext();
  Attribute operand = sched::OperandAttr::get(context);
  auto overwrites = [&](Value old, Value fresh) -> Value {
    if (liveness.lastUse(old) > position) {
      op->emitOpError("replaces a value that a later op of section '")
          << section.getName() << "' still reads";
      return nullptr;
    }
    Value ref = refOf(old);
    if (ref) refs[fresh] = ref;
    return ref;
  };

  return llvm::TypeSwitch<mlir::Operation*, LogicalResult>(op)
      .Case([&](optim::AccumulateOp accumulate) -> LogicalResult {
        Value source = refOf(accumulate.getValue()),
              target = overwrites(accumulate.getAccumulator(),
                                  accumulate.getResult());
        if (!source || !target) return failure();
        // Its pack has written through to it.
        if (source == target) return success();
        kernel(op, "accumulate",
               {{"dst", operand},
                {"src", operand},
                {"first",
                 builder.getBoolAttr(section.getName() == "micro_first")}},
               {target, source}, {target})
            .setStream(streamFor(op));
        return success();
      })
      .Case([&](optim::AccumulateProductOp sum) -> LogicalResult {
        if (!overwrites(sum.getAccumulator(), sum.getResult()))
          return failure();
        return lowerAccumulateProduct(op);
      })
      .Case([&](optim::ProductOp) { return lowerProduct(op); })
      // Folded into the kernels that read it.
      .Case([&](optim::AverageOp average) -> LogicalResult {
        for (mlir::Operation* user : average.getResult().getUsers())
          if (!mlir::isa<optim::GradNormOp, optim::AdamWOp, optim::MultiAdamWOp,
                         optim::MuonOp>(user))
            return user->emitOpError(
                "reads a gradient average; only optim.grad_norm and "
                "the updates divide while they read");
        return success();
      })
      .Case([&](optim::GradNormOp norm) -> LogicalResult {
        mlir::StringAttr divisor =
            undivided(norm.getGradients().front()).second;
        llvm::SmallVector<Value> reads;
        for (Value gradient : norm.getGradients()) {
          auto [sum, by] = undivided(gradient);
          if (by != divisor)
            return op->emitOpError("mixes gradients of different divisors");
          Value ref = refOf(sum);
          if (!ref) return failure();
          reads.push_back(ref);
        }
        llvm::SmallVector<Attribute> list(reads.size(), operand);
        return lowerNorm(op, norm.getFused() ? "multi_grad_norm" : "grad_norm",
                         {{"grads", builder.getArrayAttr(list)},
                          {"divisor", divisorArg(builder, divisor)}},
                         reads,
                         norm.getFused() ? normPartials(op, norm) : Value());
      })
      .Case([&](optim::NormOp norm) -> LogicalResult {
        Value sums = refOf(norm.getSums());
        if (!sums) return failure();
        bool wide = mlir::cast<mlir::RankedTensorType>(norm.getType())
                        .getElementType()
                        .isF64();
        return lowerNorm(
            op, "norm_finish",
            {{"sumsq", operand},
             {"divisor", divisorArg(builder, norm.getDivisorAttr())},
             {"wide", builder.getBoolAttr(wide)}},
            sums);
      })
      .Case([&](optim::SquareSumsOp sums) -> LogicalResult {
        llvm::SmallVector<Value> reads;
        for (Value gradient : sums.getGradients()) {
          Value ref = refOf(gradient);
          if (!ref) return failure();
          reads.push_back(ref);
        }
        llvm::SmallVector<Attribute> list(reads.size(), operand);
        kernel(op, "grad_sumsq",
               {{"grads", builder.getArrayAttr(list)},
                {"segments", sums.getSegmentsAttr()},
                {"shard", sums.getShardAttr()},
                {"bounds", sums.getBoundsAttr()},
                {"rank", sched::RuntimeAttr::get(context, "rank")}},
               reads, newResult(sums.getResult(), op));
        return success();
      })
      // Computed by the step of their norm; a second op of the kind shares the
      // first one's value.
      .Case<optim::ClipFactorOp, optim::FiniteOp>(
          [&](mlir::Operation* derived) -> LogicalResult {
            if (refs.count(derived->getResult(0))) return success();
            for (mlir::Operation* user : derived->getOperand(0).getUsers())
              if (user->getName() == derived->getName() &&
                  refs.count(user->getResult(0))) {
                refs[derived->getResult(0)] = refs[user->getResult(0)];
                return success();
              }
            return derived->emitOpError(
                "needs the norm of an optim.grad_norm or optim.norm");
          })
      .Case([&](optim::LossScaleOp scale) -> LogicalResult {
        auto real = [&](llvm::APFloat value) {
          return builder.getF64FloatAttr(value.convertToDouble());
        };
        llvm::SmallVector<Value> reads = {refOf(scale.getNorm())}, state,
                                 writes;
        if (!reads[0]) return failure();
        llvm::SmallVector<std::pair<llvm::StringRef, Attribute>> args = {
            {"norm", operand}};
        for (auto [before, after] :
             llvm::zip(scale.getState(), scale.getNewState())) {
          state.push_back(overwrites(before, after));
          if (!state.back()) return failure();
        }
        if (!state.empty()) {
          llvm::SmallVector<Attribute> list(state.size(), operand);
          args.push_back({"state", builder.getArrayAttr(list)});
        }
        llvm::append_range(reads, state);
        for (Value result :
             op->getResults().drop_back(scale.getNewState().size()))
          writes.push_back(newResult(result, op));
        llvm::append_range(writes, state);
        args.append(
            {{"initial", real(scale.getInitial())},
             {"seed", real(scale.getSeed())},
             {"max_norm",
              real(scale.getMaxNorm().value_or(llvm::APFloat(0.0)))},
             {"window", builder.getI64IntegerAttr(scale.getWindow())},
             {"hysteresis", builder.getI64IntegerAttr(scale.getHysteresis())},
             {"consecutive_hysteresis",
              builder.getBoolAttr(scale.getConsecutiveHysteresis())},
             {"min_scale", real(scale.getMinScale())}});
        kernel(op, "loss_scale", args, reads, writes);
        return success();
      })
      .Case([&](optim::AdamWOp adamw) -> LogicalResult {
        auto [sum, divisor] = undivided(adamw.getGrad());
        Value grad = refOf(sum);
        Value param = overwrites(adamw.getParam(), adamw.getNewParam());
        Value average = overwrites(adamw.getExpAvg(), adamw.getNewExpAvg());
        Value square = overwrites(adamw.getExpAvgSq(), adamw.getNewExpAvgSq());
        if (!grad || !param || !average || !square) return failure();
        llvm::SmallVector<Value> reads = {param, grad, average, square};
        llvm::SmallVector<std::pair<llvm::StringRef, Attribute>> args = {
            {"param", operand},
            {"grad", operand},
            {"exp_avg", operand},
            {"exp_avg_sq", operand}};
        if (failed(adamWArgs(adamw, divisor, args, reads))) return failure();
        kernel(op, "adamw", args, reads, {param, average, square});
        return success();
      })
      .Case([&](optim::MuonOp muon) { return lowerMuon(muon); })
      .Case([&](optim::MultiAdamWOp adamw) -> LogicalResult {
        return lowerMultiAdamW(adamw);
      })
      .Default([](mlir::Operation* other) -> LogicalResult {
        return other->emitOpError(
            "has no kernel; graph-lower-to-sched knows the adamw family and "
            "muon");
      });
}

}  // namespace heddle
