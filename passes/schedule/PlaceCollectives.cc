// The order of a section's steps -> one in which work hides collectives, and
// fewer gathers where memory allows. Prices and plans on arrays first, moves
// ops last. Invariant: steps that conflict keep their order, so no value
// changes; collectives of a stream keep theirs, which all ranks share. What
// would break it: a step that moves past another without asking `conflict`.
#include <limits>

#include "llvm/ADT/MapVector.h"
#include "passes/analysis/cost_model.h"
#include "passes/analysis/memory_planner.h"
#include "passes/analysis/overlap.h"
#include "passes/analysis/step_order.h"
#include "passes/emit/emit.h"
#include "passes/schedule/Passes.h"
#include "passes/schedule/plan_config.h"

namespace heddle {

#define GEN_PASS_DEF_PLACECOLLECTIVES
#include "passes/schedule/Passes.h.inc"

namespace {

using mlir::Value;

int64_t elementsOf(Value ref) {
  return sched::geometryOf(mlir::cast<sched::RefType>(ref.getType()))
      .elements();
}
int64_t bytesOf(Value ref) {
  return elementsOf(ref) *
         sched::geometryOf(mlir::cast<sched::RefType>(ref.getType()))
             .elementBytes;
}

std::string axisOf(sched::CollectiveOp collective) {
  for (auto [name, arg] :
       llvm::zip(collective.getArgNames().getAsValueRange<mlir::StringAttr>(),
                 collective.getArgs()))
    if (name == "axis")
      if (auto axis = mlir::dyn_cast<mlir::StringAttr>(arg)) return axis.str();
  return "";
}

// Prices the steps of a plan.
class Prices {
 public:
  explicit Prices(sched::PlanOp plan)
      : cost(deviceCost(plan.getTarget().str())),
        precision(plan.getPrecision().str()) {
    for (int64_t size : plan.getMeshSizes()) ranks *= size;
  }

  std::string read(const std::string& path) {
    return readMeasuredCosts(path, measured);
  }

  double of(sched::StepInterface step) {
    if (auto collective =
            mlir::dyn_cast<sched::CollectiveOp>(step.getOperation())) {
      llvm::StringRef name = collective.getCallee();
      Value whole = name == "reduce_scatter" ? collective.getReads()[0]
                                             : collective.getWrites()[0];
      int64_t wire = wireBytes(name.str(), ranks, bytesOf(whole));
      if (std::optional<double> seconds = measured.ofCollective(
              name.str(), axisOf(collective), ranks, wire)) {
        ++found;
        return *seconds;
      }
      return collectiveSeconds(cost, ranks, wire);
    }
    if (!measured.steps.empty())
      if (std::optional<double> seconds = measured.ofStep(signatureOf(step))) {
        ++found;
        return *seconds;
      }
    int64_t flops = 0, bytes = 0;
    if (auto attr = step->getAttrOfType<mlir::IntegerAttr>("flops"))
      flops = attr.getInt();
    for (Value ref : step->getOperands()) bytes += bytesOf(ref);
    return stepSeconds(cost, precision, flops, bytes);
  }

  // Steps that the file of costs knew.
  int64_t found = 0;

 private:
  const DeviceCost& cost;
  std::string precision;
  int64_t ranks = 1;
  MeasuredCosts measured;
};

// A step, and what of it decides where it stands.
struct Node {
  sched::StepInterface step;
  double seconds = 0;
  llvm::SmallVector<Access> accesses;
  enum Role { kFixed, kGather, kReduction, kTail } role = kFixed;
  // Fixed steps before it in the order that was given.
  int slot = 0;
};

bool isScratch(Value ref) {
  return sched::bufferOf(ref).getArena() == sched::Arena::Scratch;
}

// A bucket that both passes over a layer gather: the gathers, and the buffers
// they fill.
struct Pair {
  int first = 0, second = 0;
  sched::BufferOp buffer, again;
};

class SectionPlacement {
 public:
  SectionPlacement(sched::SectionOp section, size_t streams, Prices& prices,
                   const Limits& limits)
      : section(section), streams(streams), limits(limits) {
    int slot = 0;
    for (sched::StepInterface step : stepsOf(section)) {
      Node node{step, prices.of(step), accessesOf(step)};
      node.role = roleOf(step);
      node.slot = slot;
      if (node.role == Node::kFixed) {
        begins.push_back(end);
        if (step.getStream() == 0) end += node.seconds;
        fixed.push_back(nodes.size());
        ++slot;
      }
      nodes.push_back(node);
    }
    begins.push_back(end);
    gone.assign(nodes.size(), false);
    findPairs();
  }

  const std::vector<Pair>& getPairs() const { return pairs; }
  const std::vector<bool>& getKept() const { return kept; }

  // Gathers of `keep`'s pairs once, and puts everything where it should stand.
  void arrange(const std::vector<bool>& keep) {
    kept = keep;
    std::fill(gone.begin(), gone.end(), false);
    replaced.clear();
    for (auto [pair, once] : llvm::zip(pairs, kept)) {
      if (!once) continue;
      gone[pair.second] = true;
      replaced[pair.again] = pair.buffer;
    }
    order.clear();
    if (streams == 1) {
      for (size_t i = 0; i < nodes.size(); ++i)
        if (!gone[i]) order.push_back(i);
      return;
    }
    std::vector<int> gatherNodes, reductionNodes;
    std::vector<Gather> gathers;
    std::vector<Reduction> reductions;
    for (auto [i, node] : llvm::enumerate(nodes)) {
      if (gone[i]) continue;
      if (node.role == Node::kGather) {
        gatherNodes.push_back(i);
        gathers.push_back(gatherOf(node));
      } else if (node.role == Node::kReduction) {
        reductionNodes.push_back(i);
        reductions.push_back(reductionOf(i));
      }
    }
    std::vector<int> issued = placeGathers(begins, gathers, limits),
                     released = placeReductions(begins, reductions, limits);
    size_t g = 0, r = 0;
    for (int slot = 0; slot <= static_cast<int>(fixed.size()); ++slot) {
      for (; r < released.size() && released[r] == slot; ++r) {
        order.push_back(reductionNodes[r]);
        for (size_t tail = reductionNodes[r] + 1;
             tail < nodes.size() && nodes[tail].role == Node::kTail; ++tail)
          order.push_back(tail);
      }
      for (; g < issued.size() && issued[g] == slot; ++g)
        order.push_back(gatherNodes[g]);
      if (slot < static_cast<int>(fixed.size())) order.push_back(fixed[slot]);
    }
  }

  // Lifetimes in the order that `arrange` made.
  llvm::MapVector<mlir::Operation*, Lifetime> lifetimes() {
    llvm::MapVector<mlir::Operation*, Lifetime> result;
    auto touch = [&](sched::BufferOp buffer, int64_t index) {
      if (buffer.getArena() != sched::Arena::Scratch) return;
      buffer = resident(buffer);
      Lifetime& lifetime = result[buffer];
      if (lifetime.first < 0) lifetime.first = index;
      lifetime.last = index;
    };
    for (auto [index, node] : llvm::enumerate(order))
      for (const Access& access : nodes[node].accesses)
        touch(access.buffer, index);
    for (auto result : section.getBody().front().getOps<sched::ResultOp>())
      touch(sched::bufferOf(result.getValue()), order.size());
    return result;
  }

  int64_t arenaBytes() {
    std::vector<BufferRequest> requests;
    for (auto [buffer, lifetime] : lifetimes())
      requests.push_back(
          {bytesOfBuffer(buffer), lifetime.first, lifetime.last});
    return planMemory(requests, sched::kAlignment).arenaBytes;
  }

  // The pairs whose second gather the compute stream waits for most, under
  // `budget` bytes of scratch.
  std::vector<bool> choose(int64_t budget) {
    std::vector<double> stalls = stallsOfPairs();
    llvm::MapVector<mlir::Operation*, Lifetime> alive = lifetimes();
    std::vector<int64_t> live(order.size() + 2, 0);
    for (auto [buffer, lifetime] : alive) {
      live[lifetime.first] += bytesOfBuffer(buffer);
      live[lifetime.last + 1] -= bytesOfBuffer(buffer);
    }
    for (size_t i = 1; i < live.size(); ++i) live[i] += live[i - 1];
    // Between the passes, outermost first.
    struct Interval {
      int pair;
      int64_t first, last;
    };
    std::vector<Interval> between;
    for (auto [i, pair] : llvm::enumerate(pairs))
      between.push_back({static_cast<int>(i), alive[pair.buffer].last + 1,
                         alive[pair.again].first - 1});
    llvm::stable_sort(between, [](const Interval& a, const Interval& b) {
      return std::make_pair(a.first, -a.last) <
             std::make_pair(b.first, -b.last);
    });
    for (size_t k = between.size(); k-- > 1;)
      between[k - 1].last = std::max(between[k - 1].last, between[k].last);
    std::vector<Keepable> items;
    std::vector<int64_t> room;
    for (auto [k, interval] : llvm::enumerate(between)) {
      bool inner = k + 1 < between.size();
      int64_t least = budget;
      for (int64_t t = interval.first; t <= interval.last; ++t)
        if (!inner || t < between[k + 1].first || t > between[k + 1].last)
          least = std::min(least, budget - live[t]);
      sched::BufferOp buffer = pairs[interval.pair].buffer;
      items.push_back({bytesOfBuffer(buffer), stalls[interval.pair]});
      room.push_back(least);
    }
    std::vector<bool> chosen = chooseKept(items, room), result(pairs.size());
    for (auto [interval, once] : llvm::zip(between, chosen))
      result[interval.pair] = once;
    return result;
  }

  // Writes what `arrange` decided into the section.
  void apply() {
    mlir::Block& block = section.getBody().front();
    bool same = order.size() == nodes.size();
    for (size_t i = 0; same && i < order.size(); ++i)
      same = order[i] == static_cast<int>(i);
    if (same) return;
    // Names first: what moves up needs its own before it.
    mlir::Operation* firstStep = nodes.front().step;
    llvm::SmallVector<mlir::Operation*> names;
    for (mlir::Operation& op : block)
      if (mlir::isa<sched::BufferOp, sched::ValueOp>(op)) names.push_back(&op);
    for (mlir::Operation* name : names) name->moveBefore(firstStep);
    for (auto [i, node] : llvm::enumerate(nodes))
      if (gone[i]) node.step->erase();
    for (auto [again, buffer] : replaced) {
      again->getResult(0).replaceAllUsesWith(buffer->getResult(0));
      again->erase();
    }
    auto results = llvm::to_vector(block.getOps<sched::ResultOp>());
    for (int node : order) nodes[node].step->moveBefore(&block, block.end());
    for (sched::ResultOp result : results)
      result->moveBefore(&block, block.end());
    for (mlir::Operation& op : llvm::make_early_inc_range(block))
      if (mlir::isa<sched::ValueOp>(op) && op.use_empty()) op.erase();
  }

  static int64_t bytesOfBuffer(mlir::Operation* op) {
    return sched::alignUp(mlir::cast<sched::BufferOp>(op).getBytes());
  }

 private:
  Node::Role roleOf(sched::StepInterface step) {
    auto collective = mlir::dyn_cast<sched::CollectiveOp>(step.getOperation());
    if (!collective) {
      // What is done on a stream of collectives with what one brought.
      bool follows = !nodes.empty() && step.getStream() != 0 &&
                     (nodes.back().role == Node::kReduction ||
                      nodes.back().role == Node::kTail) &&
                     nodes.back().step.getStream() == step.getStream();
      return follows ? Node::kTail : Node::kFixed;
    }
    Value from = collective.getReads()[0], to = collective.getWrites()[0];
    if (collective.getCallee() == "all_gather" && !isScratch(from) &&
        isScratch(to))
      return Node::kGather;
    if (collective.getCallee() == "reduce_scatter" && isScratch(from) &&
        step.getStream() != 0)
      return Node::kReduction;
    return Node::kFixed;
  }

  // Gathers of one shard into two buffers that nothing else writes.
  void findPairs() {
    llvm::DenseMap<mlir::Operation*, int> writers;
    for (Node& node : nodes)
      for (const Access& access : node.accesses)
        if (access.write) ++writers[access.buffer];
    llvm::DenseMap<Value, int> first;
    for (auto [i, node] : llvm::enumerate(nodes)) {
      if (node.role != Node::kGather) continue;
      sched::BufferOp buffer = sched::bufferOf(node.step.getWrites()[0]);
      if (writers[buffer] != 1) continue;
      auto [known, fresh] = first.try_emplace(node.step.getReads()[0], i);
      if (fresh) continue;
      sched::BufferOp before =
          sched::bufferOf(nodes[known->second].step.getWrites()[0]);
      if (before.getBytes() == buffer.getBytes())
        pairs.push_back({known->second, static_cast<int>(i), before, buffer});
      first.erase(known);
    }
    kept.assign(pairs.size(), false);
  }

  sched::BufferOp resident(sched::BufferOp buffer) const {
    auto it = replaced.find(buffer);
    return it == replaced.end() ? buffer
                                : mlir::cast<sched::BufferOp>(it->second);
  }

  Gather gatherOf(Node& node) {
    Value to = node.step.getWrites()[0];
    sched::BufferOp buffer = sched::bufferOf(to);
    Gather gather{0, node.slot, node.slot, elementsOf(to), node.seconds};
    for (int slot = node.slot; slot-- > 0;) {
      if (!conflict(nodes[fixed[slot]].accesses, node.accesses)) continue;
      gather.earliest = slot + 1;
      break;
    }
    bool used = false;
    for (int slot = node.slot; slot < static_cast<int>(fixed.size()); ++slot)
      for (const Access& access : nodes[fixed[slot]].accesses) {
        if (resident(access.buffer) != buffer) continue;
        if (!used) gather.use = slot;
        used = true;
        gather.last = slot;
      }
    return gather;
  }

  Reduction reductionOf(int index) {
    Node& node = nodes[index];
    Reduction reduction{node.slot, static_cast<int>(fixed.size()),
                        elementsOf(node.step.getReads()[0]), node.seconds};
    llvm::SmallVector<Access> group = node.accesses;
    for (size_t tail = index + 1;
         tail < nodes.size() && nodes[tail].role == Node::kTail; ++tail) {
      llvm::append_range(group, nodes[tail].accesses);
      reduction.seconds += nodes[tail].seconds;
    }
    for (int slot = node.slot; slot < reduction.latest; ++slot)
      if (conflict(nodes[fixed[slot]].accesses, group)) reduction.latest = slot;
    return reduction;
  }

  // How long the compute stream waits for the second gather of each pair.
  std::vector<double> stallsOfPairs() {
    std::vector<double> stalls(pairs.size(), 0);
    llvm::DenseMap<int, size_t> pairOf;
    for (auto [p, pair] : llvm::enumerate(pairs)) pairOf[pair.second] = p;
    if (streams == 1) {
      for (auto [node, p] : pairOf) stalls[p] = nodes[node].seconds;
      return stalls;
    }
    // Who touched a buffer last: its writer, and the readers since.
    struct Touched {
      int writer = -1;
      llvm::SmallVector<int, 4> readers;
    };
    llvm::DenseMap<mlir::Operation*, Touched> touched;
    std::vector<Task> tasks;
    for (auto [index, i] : llvm::enumerate(order)) {
      Node& node = nodes[i];
      sched::StepInterface step = node.step;
      Task task{static_cast<int>(step.getStream()), node.seconds,
                mlir::isa<sched::CollectiveOp>(step.getOperation())};
      for (const Access& access : node.accesses) {
        Touched& by = touched[resident(access.buffer)];
        if (by.writer >= 0 && by.writer != static_cast<int>(index))
          task.after.push_back(by.writer);
        if (access.write)
          for (int reader : by.readers)
            if (reader != static_cast<int>(index)) task.after.push_back(reader);
      }
      for (const Access& access : node.accesses) {
        Touched& by = touched[resident(access.buffer)];
        if (access.write) {
          by = {static_cast<int>(index), {}};
        } else {
          by.readers.push_back(index);
        }
      }
      tasks.push_back(std::move(task));
    }
    Timeline line = simulate(tasks);
    double computed = 0;
    llvm::DenseSet<int> waited;
    for (auto [index, task] : llvm::enumerate(tasks)) {
      if (task.stream != 0) continue;
      for (int before : task.after) {
        auto pair = pairOf.find(order[before]);
        if (pair == pairOf.end() || !waited.insert(before).second) continue;
        stalls[pair->second] = std::max(
            0.0, line.start[before] + tasks[before].seconds - computed);
      }
      computed = line.start[index] + task.seconds;
    }
    return stalls;
  }

  sched::SectionOp section;
  size_t streams;
  Limits limits;
  std::vector<Node> nodes;
  std::vector<double> begins;  // of fixed steps, and the end of the last
  double end = 0;
  std::vector<int> fixed;
  std::vector<Pair> pairs;
  std::vector<bool> kept, gone;
  llvm::DenseMap<mlir::Operation*, mlir::Operation*> replaced;
  std::vector<int> order;
};

struct PlaceCollectivesPass : impl::PlaceCollectivesBase<PlaceCollectivesPass> {
  using PlaceCollectivesBase::PlaceCollectivesBase;

  void runOnOperation() final {
    sched::PlanOp plan = getOperation();
    Prices prices(plan);
    if (!costs.empty())
      if (std::string error = prices.read(costs); !error.empty()) {
        plan.emitError(error);
        return signalPassFailure();
      }
    // Bytes that are there whatever a section does.
    int64_t resident = 0;
    for (auto buffer : plan.getBody().front().getOps<sched::BufferOp>())
      resident += sched::alignUp(buffer.getBytes());
    for (auto section : plan.getBody().front().getOps<sched::SectionOp>()) {
      if (stepsOf(section).empty()) continue;
      SectionPlacement placement(section, plan.getStreams().size(), prices,
                                 {prefetch, maxLive, reducing});
      if (failed(keep(plan, section, placement, resident)))
        return signalPassFailure();
      placement.apply();
    }
    if (!costs.empty() && prices.found == 0) {
      plan.emitError(costs.getValue())
          << ": measured none of this plan's operators; measure this plan";
      signalPassFailure();
    }
  }

  mlir::LogicalResult keep(sched::PlanOp plan, sched::SectionOp section,
                           SectionPlacement& placement, int64_t resident) {
    const size_t pairs = placement.getPairs().size();
    const std::vector<bool> none(pairs, false);
    placement.arrange(none);
    const int64_t limit = memory != 0 ? memory : deviceMemory / 10 * 9;
    if (limit == 0) return mlir::success();
    const int64_t budget = limit - resident;
    if (int64_t needs = placement.arenaBytes(); memory != 0 && needs > budget)
      return section.emitError("section '")
             << section.getName() << "' makes the plan need "
             << resident + needs << " bytes on a rank and memory allows "
             << int64_t{memory}
             << "; use smaller micro-batches, a higher ZeRO stage or more "
                "ranks, or allow more";
    if (!unshard || pairs == 0) return mlir::success();
    // The planner may need more than what is alive at the worst step.
    int64_t room = budget;
    for (;;) {
      placement.arrange(none);
      std::vector<bool> chosen = placement.choose(room);
      placement.arrange(chosen);
      if (!llvm::is_contained(chosen, true)) break;
      int64_t over = placement.arenaBytes() - budget;
      if (over <= 0) break;
      room -= std::max(over, budget / 64);
    }
    if (section.getName() == "micro_first") report(plan, placement, budget);
    return mlir::success();
  }

  static void report(sched::PlanOp plan, const SectionPlacement& placement,
                     int64_t budget) {
    int64_t bytes = 0, count = 0;
    for (auto [pair, once] :
         llvm::zip(placement.getPairs(), placement.getKept())) {
      if (!once) continue;
      ++count;
      bytes += SectionPlacement::bytesOfBuffer(pair.buffer);
    }
    recordInConfig(
        plan, "kept_gathered",
        llvm::json::Object{
            {"buckets", count},
            {"of", static_cast<int64_t>(placement.getPairs().size())},
            {"bytes", bytes},
            {"scratch_budget", budget}});
  }
};

}  // namespace
}  // namespace heddle
