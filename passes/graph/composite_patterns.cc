// Finds known functions among captured ops: forward ones by structure from one
// telling op each, backward ones by the autograd nodes of the forward ones.
// Invariant: matching reads the program and changes nothing. A match is a set
// of ops; whether it can become a region is decided by the pass.
#include "passes/graph/composite_patterns.h"

#include "llvm/ADT/DenseMap.h"

namespace heddle::graph {

using namespace mlir;

namespace {

Operation* producer(Value value, llvm::StringRef name) {
  Operation* op = value.getDefiningOp();
  return op && op->getName().getStringRef() == name ? op : nullptr;
}

Operation* user(Value value, llvm::StringRef name,
                llvm::function_ref<bool(Operation*)> accept) {
  for (Operation* op : value.getUsers()) {
    if (op->getName().getStringRef() == name && accept(op)) return op;
  }
  return nullptr;
}

Value otherOperand(Operation* op, Value value) {
  return op->getOperand(0) == value ? op->getOperand(1) : op->getOperand(0);
}

int64_t rankOf(Value value) {
  return llvm::cast<RankedTensorType>(value.getType()).getRank();
}

bool isNumber(Operation* op, llvm::StringRef name, double want) {
  Attribute value = op->getAttr(name);
  if (auto integer = llvm::dyn_cast_or_null<IntegerAttr>(value))
    return static_cast<double>(integer.getInt()) == want;
  if (auto real = llvm::dyn_cast_or_null<FloatAttr>(value))
    return real.getValueAsDouble() == want;
  return false;
}

bool overLastDimension(Operation* mean) {
  auto dims = mean->getAttrOfType<DenseI64ArrayAttr>("dim");
  if (!dims || dims.size() != 1) return false;
  return dims[0] == -1 || dims[0] == rankOf(mean->getOperand(0)) - 1;
}

// y * rsqrt(mean(y^2) + eps) with y = float(x), times a weight of one
// dimension.
std::optional<Composite> rmsNorm(Operation* rsqrt) {
  Operation* plusEps = producer(rsqrt->getOperand(0), "graph.add.Scalar");
  Operation* mean =
      plusEps ? producer(plusEps->getOperand(0), "graph.mean.dim") : nullptr;
  Operation* square =
      mean && overLastDimension(mean)
          ? producer(mean->getOperand(0), "graph.pow.Tensor_Scalar")
          : nullptr;
  if (!square || !isNumber(square, "exponent", 2)) return std::nullopt;
  Value input = square->getOperand(0);
  Value factor = rsqrt->getResult(0);
  bool backward = llvm::cast<Linked>(rsqrt).getPhase() == Phase::Backward;
  auto scales = [&](Operation* op) {
    return otherOperand(op, factor) == input &&
           (llvm::cast<Linked>(op).getPhase() == Phase::Backward) == backward;
  };
  Operation* normalized = user(factor, "graph.mul.Tensor", scales);
  if (!normalized) return std::nullopt;

  Composite found{"rms_norm", {}, nullptr};
  if (Operation* widen = producer(input, "graph._to_copy"))
    found.ops.insert(widen);
  for (Operation* op : {square, mean, plusEps, rsqrt, normalized})
    found.ops.insert(op);
  Value value = normalized->getResult(0);
  auto samePhase = [&](Operation* op) {
    return llvm::cast<Linked>(op).getPhase() ==
           llvm::cast<Linked>(normalized).getPhase();
  };
  if (Operation* narrow = user(value, "graph._to_copy", samePhase)) {
    found.ops.insert(narrow);
    value = narrow->getResult(0);
  }
  found.anchor = user(value, "graph.mul.Tensor", [&](Operation* op) {
    return samePhase(op) && rankOf(otherOperand(op, value)) == 1;
  });
  if (!found.anchor) return std::nullopt;
  found.ops.insert(found.anchor);
  return found;
}

// x * cos + cat(-x[half:], x[:half]) * sin
std::optional<Composite> rotary(Operation* cat) {
  if (cat->getNumOperands() != 2) return std::nullopt;
  Operation* negated = producer(cat->getOperand(0), "graph.neg");
  Operation* high = negated
                        ? producer(negated->getOperand(0), "graph.slice.Tensor")
                        : nullptr;
  Operation* low = producer(cat->getOperand(1), "graph.slice.Tensor");
  if (!high || !low || high->getOperand(0) != low->getOperand(0))
    return std::nullopt;
  Value input = low->getOperand(0);
  Operation* bySin = user(cat->getResult(0), "graph.mul.Tensor",
                          [](Operation*) { return true; });
  if (!bySin) return std::nullopt;
  Operation* byCos = nullptr;
  Operation* sum =
      user(bySin->getResult(0), "graph.add.Tensor", [&](Operation* op) {
        byCos =
            producer(otherOperand(op, bySin->getResult(0)), "graph.mul.Tensor");
        return byCos && llvm::is_contained(byCos->getOperands(), input);
      });
  if (!sum) return std::nullopt;
  Composite found{"rotary", {}, sum};
  for (Operation* op : {low, high, negated, cat, bySin, byCos, sum})
    found.ops.insert(op);
  return found;
}

// cat(even * cos - odd * sin, odd * cos + even * sin)
std::optional<Composite> interleavedRotary(Operation* cat) {
  if (cat->getNumOperands() != 2) return std::nullopt;
  Operation* difference = producer(cat->getOperand(0), "graph.sub.Tensor");
  Operation* sum = producer(cat->getOperand(1), "graph.add.Tensor");
  if (!difference || !sum) return std::nullopt;
  Operation* products[] = {
      producer(difference->getOperand(0), "graph.mul.Tensor"),
      producer(difference->getOperand(1), "graph.mul.Tensor"),
      producer(sum->getOperand(0), "graph.mul.Tensor"),
      producer(sum->getOperand(1), "graph.mul.Tensor")};
  if (llvm::is_contained(products, nullptr)) return std::nullopt;
  auto reads = [&](int product, int operand) {
    return products[product]->getOperand(operand);
  };
  bool crossed = reads(0, 0) == reads(3, 0) && reads(1, 0) == reads(2, 0) &&
                 reads(0, 1) == reads(2, 1) && reads(1, 1) == reads(3, 1);
  Operation* even = producer(reads(0, 0), "graph.slice.Tensor");
  Operation* odd = producer(reads(1, 0), "graph.slice.Tensor");
  if (!crossed || !even || !odd || even->getOperand(0) != odd->getOperand(0))
    return std::nullopt;
  Composite found{"rotary", {}, cat};
  for (Operation* op : {even, odd, products[0], products[1], difference,
                        products[2], products[3], sum, cat})
    found.ops.insert(op);
  return found;
}

// silu(gate) * up
std::optional<Composite> swiglu(Operation* silu) {
  Phase phase = llvm::cast<Linked>(silu).getPhase();
  Operation* product =
      user(silu->getResult(0), "graph.mul.Tensor", [&](Operation* op) {
        return llvm::cast<Linked>(op).getPhase() == phase;
      });
  if (!product) return std::nullopt;
  Composite found{"swiglu", {}, product};
  found.ops.insert(silu);
  found.ops.insert(product);
  return found;
}

// nll_loss(log_softmax(logits))
std::optional<Composite> crossEntropy(Operation* loss) {
  Operation* logSoftmax = producer(loss->getOperand(0), "graph._log_softmax");
  if (!logSoftmax) return std::nullopt;
  Composite found{"cross_entropy", {}, loss};
  found.ops.insert(logSoftmax);
  found.ops.insert(loss);
  return found;
}

std::optional<Composite> matchAt(Operation* op) {
  llvm::StringRef name = op->getName().stripDialect();
  if (name == "rsqrt") return rmsNorm(op);
  if (name == "cat") {
    std::optional<Composite> halves = rotary(op);
    return halves ? halves : interleavedRotary(op);
  }
  if (name == "silu") return swiglu(op);
  if (name == "nll_loss_forward") return crossEntropy(op);
  return std::nullopt;
}

bool isPlainAdd(Operation& op) {
  return op.getName().getStringRef() == "graph.add.Tensor" &&
         isNumber(&op, "alpha", 1);
}

// Additions that autograd makes between nodes belong to the function whose
// gradients they sum.
void takeGradientSums(Block& body, Composite& composite,
                      const llvm::DenseSet<Operation*>& taken) {
  auto inside = [&](Value value) {
    return value.getDefiningOp() &&
           composite.ops.contains(value.getDefiningOp());
  };
  for (bool changed = true; changed;) {
    changed = false;
    llvm::SmallVector<Operation*> candidates;
    for (Operation* op : composite.ops) {
      for (Operation* next : op->getUsers()) candidates.push_back(next);
    }
    for (Operation* add : candidates) {
      if (add->getBlock() != &body || !isPlainAdd(*add) ||
          taken.contains(add) || composite.ops.contains(add))
        continue;
      if (llvm::cast<Linked>(add).getPhase() != Phase::Backward ||
          llvm::cast<Linked>(add).getNode())
        continue;
      bool both = inside(add->getOperand(0)) && inside(add->getOperand(1));
      // A gradient from elsewhere that is added between two of ours: the sum
      // leads into a further sum of ours.
      Operation* next = add->hasOneUse() ? *add->user_begin() : nullptr;
      bool between = next && isPlainAdd(*next) &&
                     inside(otherOperand(next, add->getResult(0)));
      if (both || between) changed |= composite.ops.insert(add);
    }
  }
}

}  // namespace

std::vector<Composite> findForwardComposites(Block& body) {
  std::vector<Composite> found;
  llvm::DenseSet<Operation*> taken;
  for (Operation& op : body) {
    std::optional<Composite> match = matchAt(&op);
    if (!match || llvm::any_of(match->ops,
                               [&](Operation* o) { return taken.contains(o); }))
      continue;
    taken.insert(match->ops.begin(), match->ops.end());
    found.push_back(std::move(*match));
  }
  return found;
}

std::vector<Composite> findBackwardComposites(
    Block& body, llvm::ArrayRef<Composite> forward) {
  llvm::DenseMap<int64_t, size_t> ownerOf;
  llvm::DenseSet<Operation*> taken;
  std::vector<Composite> found(forward.size());
  for (auto [i, composite] : llvm::enumerate(forward)) {
    found[i].kind = composite.kind + "_backward";
    taken.insert(composite.ops.begin(), composite.ops.end());
    for (Operation* op : composite.ops) {
      if (std::optional<int64_t> node = llvm::cast<Linked>(op).getNode())
        ownerOf.try_emplace(*node, i);
    }
  }
  for (Operation& op : body) {
    auto linked = llvm::dyn_cast<Linked>(op);
    if (!linked || linked.getPhase() != Phase::Backward ||
        linked.getRecomputeOf() || !linked.getNode() || taken.contains(&op))
      continue;
    auto owner = ownerOf.find(*linked.getNode());
    if (owner == ownerOf.end()) continue;
    found[owner->second].ops.insert(&op);
    found[owner->second].anchor = forward[owner->second].anchor;
    taken.insert(&op);
  }
  for (Composite& composite : found) {
    if (composite.ops.empty()) continue;
    takeGradientSums(body, composite, taken);
    taken.insert(composite.ops.begin(), composite.ops.end());
  }
  return found;
}

}  // namespace heddle::graph
