// Rewrites a step bucket by bucket: gradients are packed, reduced and
// accumulated together, updates run on buckets or shards, parameters are
// windows into buckets. Plans all buckets first, writes second, erases what the
// one-rank step had last. Invariant: the arithmetic on each element is that of
// the one-rank update; only sums over ranks and the norm's order are new. What
// would break it: an op that reads a parameter after its update.
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/StringSet.h"
#include "passes/graph/functional_forms.h"
#include "passes/zero/Passes.h"
#include "passes/zero/buckets.h"
#include "passes/zero/place_parameters.h"

namespace heddle::zero {
#define GEN_PASS_DEF_ZEROPARTITION
#include "passes/zero/Passes.h.inc"

using namespace mlir;

namespace {

void setPhase(Operation* op, graph::Phase phase) {
  op->setDiscardableAttr(graph::GraphDialect::kPhaseAttr,
                         graph::PhaseAttr::get(op->getContext(), phase));
}

// One step being rewritten.
class Partition {
 public:
  Partition(graph::StepOp step, llvm::ArrayRef<Bucket> buckets, int64_t ranks,
            int stage, Type reduceType, bool reduceAsked)
      : step(step),
        block(step.getBody().front()),
        buckets(buckets),
        ranks(ranks),
        stage(stage),
        reduceType(reduceType),
        reduceAsked(reduceAsked),
        builder(step.getContext()),
        argRoles(step.getArgRoles().begin(), step.getArgRoles().end()),
        resultRoles(step.getResultRoles().begin(),
                    step.getResultRoles().end()) {}

  LogicalResult runTraining() {
    for (const Bucket& bucket : buckets) {
      Rewritten& state = rewritten.emplace_back();
      state.parameter = addBucket(bucket, "parameter", bucket.element(),
                                  /*sharded=*/stage == 3);
      if (!bucket.trained()) continue;
      if (failed(checkInPlace(bucket))) return failure();
      reduceGradients(bucket, state);
    }
    limitNorm();
    for (auto [bucket, state] : llvm::zip(buckets, rewritten))
      if (bucket.trained()) update(bucket, state);
    updateMuon();
    eraseUpdates();
    return finish();
  }

  LogicalResult runEvaluation() {
    for (const Bucket& bucket : buckets)
      rewritten.push_back({addBucket(bucket, "parameter", bucket.element(),
                                     /*sharded=*/stage == 3)});
    return finish();
  }

 private:
  struct Rewritten {
    Value parameter;
    Value accumulated;  // bucket or shard, summed over micro-batches
    Value reduced;      // and over ranks
    Value averaged;
  };

  // Muon's matrices are updated by their owners from stage 0 on: one
  // Newton-Schulz per matrix over all ranks.
  int stageOf(const Bucket& bucket) const {
    return bucket.isMuon() ? std::max(stage, 1) : stage;
  }

  RankedTensorType flat(int64_t elements, Type element) {
    return RankedTensorType::get({elements}, element);
  }

  Value addBucket(const Bucket& bucket, llvm::StringRef kind, Type element,
                  bool sharded) {
    const Place& place = bucket.place;
    llvm::SmallVector<int64_t> bounds, starts;
    if (sharded) bounds = bucket.bounds;
    if (!place.arena.empty() && sharded) starts = place.shards;
    if (!place.arena.empty() && !sharded) starts = {place.whole};
    argRoles.push_back(dist::BucketAttr::get(
        step.getContext(), builder.getStringAttr(bucket.name),
        builder.getStringAttr(kind), membersOf(bucket, element),
        builder.getDenseI64ArrayAttr(bounds),
        builder.getStringAttr(place.arena),
        builder.getDenseI64ArrayAttr(starts)));
    Location loc = block.getArgument(bucket.members.front().argument).getLoc();
    return block.addArgument(
        flat(sharded ? bucket.shard() : bucket.elements, element), loc);
  }

  void giveBack(const Bucket& bucket, llvm::StringRef kind, Value value) {
    resultRoles.push_back(dist::NewBucketAttr::get(
        step.getContext(), builder.getStringAttr(bucket.name),
        builder.getStringAttr(kind)));
    block.getTerminator()->insertOperands(
        block.getTerminator()->getNumOperands(), value);
  }

  // One rank has nobody to hear from: its part is the whole.
  template <typename Op, typename... Bounds>
  Value collective(Location loc, Type type, Value value, graph::Phase phase,
                   Bounds... bounds) {
    if (ranks == 1 && value.getType() == type) return value;
    auto op = builder.create<Op>(loc, type, value, kDataAxis, bounds...);
    setPhase(op, phase);
    return op.getResult();
  }

  // The op after which every gradient of the bucket is there; null where all
  // are arguments.
  Operation* lastGradient(const Bucket& bucket) {
    Operation* last = nullptr;
    for (const Member& member : bucket.members) {
      optim::AccumulateOp accumulate = member.accumulate;
      Operation* op = accumulate.getValue().getDefiningOp();
      if (op && (!last || last->isBeforeInBlock(op))) last = op;
    }
    return last;
  }

  // What stages 0 and 1 send at the boundary, where accumulators are whole:
  // they themselves, unless that would round the sum over ranks or another
  // dtype was asked for.
  Type boundaryType(Type accumulated) {
    if (ranks == 1) return accumulated;
    bool wider = accumulated.getIntOrFloatBitWidth() >=
                 reduceType.getIntOrFloatBitWidth();
    return wider && !reduceAsked ? accumulated : reduceType;
  }

  // Muon's update takes its gradients from one range of bytes, the
  // accumulators'.
  LogicalResult checkInPlace(const Bucket& bucket) {
    optim::AccumulateOp sum = bucket.members.front().accumulate;
    Type accumulated =
        llvm::cast<RankedTensorType>(sum.getAccumulator().getType())
            .getElementType();
    Type sent = boundaryType(accumulated);
    if (!bucket.isMuon() || stage >= 2 || sent == accumulated) return success();
    return step.emitError("cannot reduce gradients of Muon's matrices in ")
           << sent << ": stage " << stage
           << " reduces the accumulators, which are " << accumulated
           << "; use stage 2 or 3, or make reduce and accumulate dtype the "
              "same";
  }

  Value converted(Location loc, Value value, Type type, Operation* like) {
    Type element = llvm::cast<RankedTensorType>(type).getElementType();
    Operation* cast = graph::createAten(
        builder, loc, "graph._to_copy", type, value,
        {builder.getNamedAttr("dtype", TypeAttr::get(element)),
         builder.getNamedAttr("non_blocking", builder.getBoolAttr(false))},
        like);
    setPhase(cast, graph::Phase::Update);
    return cast->getResult(0);
  }

  void reduceGradients(const Bucket& bucket, Rewritten& state) {
    if (Operation* last = lastGradient(bucket)) {
      builder.setInsertionPointAfter(last);
    } else {
      builder.setInsertionPointToStart(&block);
    }
    optim::AccumulateOp first = bucket.members.front().accumulate;
    Location loc = first.getLoc();
    Type accumulateType =
        llvm::cast<RankedTensorType>(first.getAccumulator().getType())
            .getElementType();
    int stage = stageOf(bucket);
    Type wire = stage >= 2 ? reduceType : accumulateType;
    llvm::SmallVector<Value> values;
    llvm::SmallVector<int64_t> offsets;
    llvm::SmallVector<Attribute> types;
    for (const Member& member : bucket.members) {
      optim::AccumulateOp accumulate = member.accumulate;
      values.push_back(accumulate.getValue());
      offsets.push_back(member.offset);
      types.push_back(TypeAttr::get(withElement(member.type, wire)));
    }
    auto pack = builder.create<dist::PackOp>(
        loc, flat(bucket.elements, wire), values,
        builder.getDenseI64ArrayAttr(offsets), builder.getArrayAttr(types));
    setPhase(pack, graph::Phase::Backward);
    Value summand = pack;
    if (stage >= 2)
      summand = collective<dist::ReduceScatterOp>(
          loc, flat(bucket.shard(), wire), pack, graph::Phase::Backward,
          bucket.unevenBounds());
    Value old = addBucket(bucket, "accumulator", accumulateType, stage >= 2);
    auto sum =
        builder.create<optim::AccumulateOp>(loc, old.getType(), old, summand);
    setPhase(sum, graph::Phase::Backward);
    giveBack(bucket, "accumulator", sum);
    state.accumulated = sum;

    builder.setInsertionPoint(block.getTerminator());
    state.reduced = sum;
    Type sent = boundaryType(accumulateType);
    if (stage < 2 && sent != accumulateType)
      state.reduced = converted(loc, sum, flat(bucket.elements, sent), sum);
    if (stage == 0)
      state.reduced =
          collective<dist::AllReduceOp>(loc, flat(bucket.elements, sent),
                                        state.reduced, graph::Phase::Update);
    if (stage == 1)
      state.reduced = collective<dist::ReduceScatterOp>(
          loc, flat(bucket.shard(), sent), state.reduced, graph::Phase::Update,
          bucket.unevenBounds());
    optim::AverageOp old_average = bucket.members.front().average;
    divisor = old_average.getDivisorAttr();
    state.averaged = average(loc, state.reduced);
  }

  Value average(Location loc, Value value) {
    auto op =
        builder.create<optim::AverageOp>(loc, value.getType(), value, divisor);
    setPhase(op, graph::Phase::Update);
    return op;
  }

  // The norm over all parameters, where the one-rank step takes it, and what
  // depends on it.
  void limitNorm() {
    auto norms = llvm::to_vector(block.getOps<optim::GradNormOp>());
    builder.setInsertionPoint(block.getTerminator());
    for (optim::GradNormOp old : norms) {
      bool whole = stage == 0 && llvm::none_of(buckets, [](const Bucket& each) {
                     return each.isMuon();
                   });
      Value norm = whole ? wholeNorm(old) : shardedNorm(old);
      setPhase(norm.getDefiningOp(), graph::Phase::Update);
      // Its users stand before it: they move behind.
      for (Operation* user : llvm::to_vector(old.getResult().getUsers()))
        if (user != block.getTerminator())
          user->moveBefore(block.getTerminator());
      old.getResult().replaceAllUsesWith(norm);
      old.erase();
    }
  }

  // Every rank has every gradient: the same sum as one rank's, in its order.
  Value wholeNorm(optim::GradNormOp old) {
    llvm::DenseMap<int64_t, Value> byArgument;
    for (auto [bucket, state] : llvm::zip(buckets, rewritten)) {
      if (!bucket.trained()) continue;
      Type element = llvm::cast<RankedTensorType>(state.reduced.getType())
                         .getElementType();
      for (const Member& member : bucket.members) {
        auto slot = builder.create<dist::SlotOp>(
            old.getLoc(), withElement(member.type, element), state.reduced,
            builder.getI64IntegerAttr(member.offset));
        byArgument[member.argument] = average(old.getLoc(), slot);
      }
    }
    llvm::SmallVector<std::pair<int64_t, Value>> sorted(byArgument.begin(),
                                                        byArgument.end());
    llvm::sort(sorted, llvm::less_first());
    llvm::SmallVector<Value> gradients(llvm::make_second_range(sorted));
    return builder.create<optim::GradNormOp>(
        old.getLoc(), old.getResult().getType(), gradients);
  }

  Value shardedNorm(optim::GradNormOp old) {
    llvm::SmallVector<Value> shards;
    llvm::SmallVector<int64_t> segments, lengths, bounds;
    int64_t parameters = 0;
    for (auto [bucket, state] : llvm::zip(buckets, rewritten)) {
      if (!bucket.trained()) continue;
      if (stageOf(bucket) == 0) {
        // Every rank has all of it: each counts its part.
        shards.push_back(builder.create<dist::ShardOp>(
            old.getLoc(),
            flat(bucket.shard(),
                 llvm::cast<RankedTensorType>(state.reduced.getType())
                     .getElementType()),
            state.reduced, kDataAxis, bucket.unevenBounds()));
      } else {
        shards.push_back(state.reduced);
      }
      lengths.push_back(bucket.even ? bucket.shard() : -1);
      llvm::append_range(bounds, bucket.unevenBounds());
      segments.push_back(bucket.members.size());
      parameters += bucket.members.size();
      for (const Member& member : bucket.members)
        segments.append({member.offset, member.elements});
    }
    Location loc = old.getLoc();
    auto sums = builder.create<optim::SquareSumsOp>(
        loc, flat(parameters, builder.getF64Type()), shards,
        builder.getDenseI64ArrayAttr(segments),
        builder.getDenseI64ArrayAttr(lengths),
        builder.getDenseI64ArrayAttr(bounds));
    setPhase(sums, graph::Phase::Update);
    Value all = collective<dist::AllReduceOp>(loc, sums.getType(), sums,
                                              graph::Phase::Update);
    return builder.create<optim::NormOp>(loc, old.getResult().getType(), all,
                                         divisor);
  }

  void update(const Bucket& bucket, Rewritten& state) {
    if (bucket.isMuon()) return;
    optim::AdamWOp old = bucket.members.front().adamw;
    builder.setInsertionPoint(block.getTerminator());
    Location loc = old.getLoc();
    bool sharded = stage >= 1;
    auto elementOf = [](Value value) {
      return llvm::cast<RankedTensorType>(value.getType()).getElementType();
    };
    bool hasMaster = elementOf(old.getParam()) != bucket.element();
    Value param = state.parameter;
    if (hasMaster) {
      param = addBucket(bucket, "master", elementOf(old.getParam()), sharded);
    } else if (sharded && stage < 3) {
      param = builder.create<dist::ShardOp>(
          loc, flat(bucket.shard(), bucket.element()), param, kDataAxis,
          bucket.unevenBounds());
    }
    Value average =
        addBucket(bucket, "exp_avg", elementOf(old.getExpAvg()), sharded);
    Value square =
        addBucket(bucket, "exp_avg_sq", elementOf(old.getExpAvgSq()), sharded);
    auto adamw = builder.create<optim::AdamWOp>(
        loc, TypeRange{param.getType(), average.getType(), square.getType()},
        param, state.averaged, average, square, old.getFactor(),
        old.getFinite(), old.getBeta1Attr(), old.getBeta2Attr(),
        old.getEpsAttr(), old.getWeightDecayAttr(), old.getLrScaleAttr(),
        old.getGroupAttr());
    setPhase(adamw, graph::Phase::Update);
    Value fresh = adamw.getNewParam();
    if (hasMaster) {
      giveBack(bucket, "master", fresh);
      Type whole =
          flat(llvm::cast<RankedTensorType>(fresh.getType()).getNumElements(),
               bucket.element());
      fresh = converted(loc, fresh, whole, adamw);
    }
    if (stage == 1 || stage == 2)
      fresh = collective<dist::AllGatherOp>(loc, state.parameter.getType(),
                                            fresh, graph::Phase::Update,
                                            bucket.unevenBounds());
    giveBack(bucket, "parameter", fresh);
    giveBack(bucket, "exp_avg", adamw.getNewExpAvg());
    giveBack(bucket, "exp_avg_sq", adamw.getNewExpAvgSq());
  }

  // One op for all buckets of a group: its owner-sorted matrices are batched by
  // shape, whichever layers they come from.
  void updateMuon() {
    llvm::MapVector<llvm::StringRef, llvm::SmallVector<size_t>> groups;
    for (auto [i, bucket] : llvm::enumerate(buckets))
      if (bucket.isMuon()) groups[bucket.place.arena].push_back(i);
    builder.setInsertionPoint(block.getTerminator());
    for (auto& [arena, members] : groups) {
      llvm::SmallVector<Value> params, grads, momenta;
      llvm::SmallVector<Type> copies;
      llvm::SmallVector<int64_t> matrices;
      optim::MuonOp old = buckets[members.front()].members.front().muon;
      auto elementOf = [](Value value) {
        return llvm::cast<RankedTensorType>(value.getType()).getElementType();
      };
      for (auto [operand, index] : llvm::enumerate(members)) {
        const Bucket& bucket = buckets[index];
        Rewritten& state = rewritten[index];
        Type master = elementOf(old.getParams()[0]);
        Value param = state.parameter;
        if (!old.getCopies().empty()) {
          param = addBucket(bucket, "master", master, true);
          copies.push_back(flat(bucket.shard(), bucket.element()));
        } else if (stage < 3) {
          param = builder.create<dist::ShardOp>(
              old.getLoc(), flat(bucket.shard(), bucket.element()), param,
              kDataAxis, bucket.unevenBounds());
        }
        params.push_back(param);
        grads.push_back(state.averaged);
        momenta.push_back(addBucket(bucket, "momentum",
                                    elementOf(old.getMomenta()[0]), true));
        listMatrices(bucket, operand, matrices);
      }
      auto muon = builder.create<optim::MuonOp>(
          old.getLoc(), TypeRange(ValueRange(params)),
          TypeRange(ValueRange(momenta)), copies, params, grads, momenta,
          old.getFactor(), old.getFinite(),
          builder.getDenseI64ArrayAttr(matrices), old.getSettings(),
          old.getGroupAttr());
      setPhase(muon, graph::Phase::Update);
      for (auto [operand, index] : llvm::enumerate(members)) {
        const Bucket& bucket = buckets[index];
        Value fresh = muon.getNewParams()[operand];
        if (!copies.empty()) {
          giveBack(bucket, "master", fresh);
          fresh = muon.getCopies()[operand];
        }
        if (stage < 3)
          fresh = collective<dist::AllGatherOp>(
              old.getLoc(), rewritten[index].parameter.getType(), fresh,
              graph::Phase::Update, bucket.unevenBounds());
        giveBack(bucket, "parameter", fresh);
        giveBack(bucket, "momentum", muon.getNewMomenta()[operand]);
      }
    }
  }

  void listMatrices(const Bucket& bucket, int64_t operand,
                    llvm::SmallVectorImpl<int64_t>& matrices) {
    for (const Member& member : bucket.members) {
      optim::MuonOp old = member.muon;
      for (const optim::MuonOp::Matrix& matrix : old.getMatrixRows()) {
        int64_t at = member.offset + matrix.inBucket;
        // The last part that begins at or before it; empty ones begin there
        // too.
        int64_t rank =
            llvm::upper_bound(bucket.bounds, at) - bucket.bounds.begin() - 1;
        matrices.append({operand, rank, at, at - bucket.bounds[rank],
                         matrix.rows, matrix.columns});
      }
    }
  }

  // Removes the one-rank update: its results, ops and state arguments.
  void eraseUpdates() {
    llvm::StringSet<> names;
    for (const Bucket& bucket : buckets)
      for (const Member& member : bucket.members)
        if (bucket.trained()) names.insert(member.role.getName().getValue());
    Operation* terminator = block.getTerminator();
    for (int64_t i = resultRoles.size() - 1; i >= 0; --i) {
      auto fresh = llvm::dyn_cast<graph::NewValueAttr>(resultRoles[i]);
      auto state = llvm::dyn_cast<graph::NewStateAttr>(resultRoles[i]);
      bool replaced = (state && names.contains(state.getName().getValue())) ||
                      (fresh && names.contains(fresh.getName().getValue()));
      if (!replaced) continue;
      Operation* op = terminator->getOperand(i).getDefiningOp();
      terminator->eraseOperand(i);
      resultRoles.erase(resultRoles.begin() + i);
      if (op && op->use_empty() &&
          !llvm::isa<optim::AdamWOp, optim::MuonOp, optim::AccumulateOp>(op))
        op->erase();  // the cast to the parameter's dtype
    }
    for (const Bucket& bucket : buckets)
      for (const Member& member : bucket.members) {
        if (!bucket.trained()) continue;
        if (optim::AdamWOp adamw = member.adamw) adamw.erase();
        if (optim::MuonOp muon = member.muon) muon.erase();
        optim::AverageOp average = member.average;
        average.erase();
        optim::AccumulateOp accumulate = member.accumulate;
        accumulate.erase();
      }
  }

  // Parameters become windows, buffers rank 0's; the roles are written and the
  // arguments that nothing reads any more go.
  LogicalResult finish() {
    shareBuffers();
    for (auto [bucket, state] : llvm::zip(buckets, rewritten))
      if (failed(placeParameters(step, argRoles, bucket, state.parameter,
                                 stage == 3)))
        return failure();
    llvm::BitVector gone(block.getNumArguments());
    llvm::StringSet<> placed;
    for (const Bucket& bucket : buckets)
      for (const Member& member : bucket.members)
        placed.insert(member.role.getName().getValue());
    for (auto [i, role] : llvm::enumerate(argRoles)) {
      if (auto param = llvm::dyn_cast<graph::ParamAttr>(role);
          param && placed.contains(param.getName().getValue()))
        gone.set(i);
      if (auto state = llvm::dyn_cast<graph::StateAttr>(role);
          state && placed.contains(state.getName().getValue()))
        gone.set(i);
    }
    llvm::SmallVector<Attribute> kept;
    for (auto [i, role] : llvm::enumerate(argRoles))
      if (!gone.test(i)) kept.push_back(role);
    block.eraseArguments(gone);
    step.setArgRolesAttr(builder.getArrayAttr(kept));
    step.setResultRolesAttr(builder.getArrayAttr(resultRoles));
    return success();
  }

  void shareBuffers() {
    if (ranks == 1) return;
    Operation* terminator = block.getTerminator();
    builder.setInsertionPoint(terminator);
    llvm::StringSet<> parameters;
    for (Attribute role : argRoles)
      if (auto param = llvm::dyn_cast<graph::ParamAttr>(role))
        parameters.insert(param.getName().getValue());
    for (auto [i, role] : llvm::enumerate(resultRoles)) {
      auto fresh = llvm::dyn_cast<graph::NewValueAttr>(role);
      if (!fresh || parameters.contains(fresh.getName().getValue())) continue;
      Value value = terminator->getOperand(i);
      terminator->setOperand(
          i, collective<dist::BroadcastOp>(value.getLoc(), value.getType(),
                                           value, graph::Phase::Forward));
    }
  }

  graph::StepOp step;
  Block& block;
  llvm::ArrayRef<Bucket> buckets;
  int64_t ranks;
  int stage;
  Type reduceType;
  bool reduceAsked;
  OpBuilder builder;
  llvm::SmallVector<Attribute> argRoles, resultRoles;
  llvm::SmallVector<Rewritten> rewritten;
  StringAttr divisor;
};

class ZeroPartitionPass : public impl::ZeroPartitionBase<ZeroPartitionPass> {
 public:
  using ZeroPartitionBase::ZeroPartitionBase;

 private:
  void runOnOperation() override {
    ModuleOp module = getOperation();
    int64_t ranks = dist::axisSize(module, kDataAxis);
    if (stage < 0 || stage > 3) {
      module.emitError("has no ZeRO stage ")
          << int{stage} << "; stages are 0 to 3";
      return signalPassFailure();
    }
    auto steps = llvm::to_vector(module.getOps<graph::StepOp>());
    if (steps.empty()) {
      module.emitError("has no graph.step to partition");
      return signalPassFailure();
    }
    // One rank's part of anything is the whole.
    const int divided = ranks == 1 ? 0 : static_cast<int>(stage);
    // Whole state on one rank needs no buckets, unless matrices of one shape
    // are to be updated together.
    if (ranks == 1 &&
        steps[0].getBody().front().getOps<optim::MuonOp>().empty())
      return markAllAnalysesPreserved();
    Type reduceType;
    if (!reduceDtype.empty() && !(reduceType = floatType(reduceDtype))) {
      module.emitError("has no dtype '")
          << reduceDtype << "'; use fp64, fp32, bf16 or fp16";
      return signalPassFailure();
    }
    auto buckets = planBuckets(steps[0], ranks, /*frozen=*/divided == 3);
    if (failed(buckets)) return signalPassFailure();
    bool trains = llvm::any_of(
        *buckets, [](const Bucket& each) { return each.trained(); });
    if (!trains) {
      steps[0].emitError(
          "updates no parameter; run graph-append-optimizer before "
          "zero-partition");
      return signalPassFailure();
    }
    // Accumulators may be asked to be narrower than what is added up in them;
    // the sum over ranks is not rounded for that.
    Builder builder(&getContext());
    const bool asked = reduceType != nullptr;
    if (!asked)
      reduceType = steps[0].getPrecision() == "fp64"
                       ? Type(builder.getF64Type())
                       : builder.getF32Type();
    for (auto [i, step] : llvm::enumerate(steps)) {
      Partition partition(step, *buckets, ranks, divided, reduceType, asked);
      if (failed(i == 0 ? partition.runTraining() : partition.runEvaluation()))
        return signalPassFailure();
    }
  }

  Type floatType(llvm::StringRef name) {
    Builder builder(&getContext());
    if (name == "fp64") return builder.getF64Type();
    if (name == "fp32") return builder.getF32Type();
    if (name == "bf16") return builder.getBF16Type();
    if (name == "fp16") return builder.getF16Type();
    return nullptr;
  }
};

}  // namespace
}  // namespace heddle::zero
