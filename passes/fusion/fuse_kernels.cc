// Puts graph.kernel in the place of composites. Finds the pairs and their
// launches first, rewrites afterwards, one pair at a time. Invariant: a value
// of a replaced composite that is no result of its kernel has no reader left;
// a pair of which that cannot be had stays whole.
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/StringSwitch.h"
#include "mlir/IR/Builders.h"
#include "passes/fusion/Passes.h"
#include "passes/fusion/forms.h"

namespace heddle::graph {
#define GEN_PASS_DEF_FUSEKERNELS
#include "passes/fusion/Passes.h.inc"

using namespace mlir;

namespace {

Form formOf(llvm::StringRef kind) {
  return llvm::StringSwitch<Form>(kind)
      .Case("rms_norm", &rmsNormForm)
      .Case("swiglu", &swigluForm)
      .Case("rotary", &rotaryForm)
      .Case("cross_entropy", &crossEntropyForm)
      .Default(nullptr);
}

// "" if nothing but the backward composite reads what the kernel does not give.
std::string checkUses(const Pair& pair) {
  CompositeOp forward = pair.forward, backward = pair.backward;
  for (OpResult result : forward.getResults()) {
    if (llvm::any_of(pair.first.replaces,
                     [&](const auto& entry) { return entry.first == result; }))
      continue;
    for (Operation* user : result.getUsers())
      if (!backward || user != backward.getOperation())
        return "an operator beside its gradient reads a value in its midst";
  }
  return "";
}

class FuseKernels : public impl::FuseKernelsBase<FuseKernels> {
  void runOnOperation() override {
    StepOp step = getOperation();
    Block& body = step.getBody().front();
    llvm::DenseMap<std::pair<Attribute, Attribute>, CompositeOp> backwards;
    llvm::SmallVector<CompositeOp> forwards;
    for (auto composite : body.getOps<CompositeOp>()) {
      if (!composite.getKind().ends_with("_backward")) {
        forwards.push_back(composite);
      } else if (Attribute node = composite->getAttr(GraphDialect::kNodeAttr)) {
        backwards[{composite.getKindAttr(), node}] = composite;
      }
    }
    llvm::MapVector<llvm::StringRef, int64_t> fused, left;
    for (CompositeOp forward : forwards) {
      llvm::StringRef kind = keep(forward.getKind());
      auto partner =
          backwards.find({StringAttr::get(&getContext(), kind + "_backward"),
                          forward->getAttr(GraphDialect::kNodeAttr)});
      CompositeOp backward =
          partner == backwards.end() ? CompositeOp() : partner->second;
      std::string why;
      if (fuse(forward, backward, why)) {
        fused[kind] += 1;
        if (backward) {
          fused[keep((kind + "_backward").str())] += 1;
          backwards.erase(partner);
        }
        continue;
      }
      forward.emitRemark("left to be inlined: ") << kind << ": " << why;
      left[kind] += 1;
    }
    for (auto& [key, backward] : backwards) left[keep(backward.getKind())] += 1;
    for (Operation& op : llvm::make_early_inc_range(body)) {
      Launch launch;
      std::string why = embeddingSumForm(&op, launch);
      if (why == "-") continue;
      if (!why.empty()) {
        op.emitRemark("left as it is: embedding_backward_add: ") << why;
        left["embedding_backward_add"] += 1;
        continue;
      }
      replace(launch, write(&op, launch, nullptr));
      fused["embedding_backward_add"] += 1;
    }
    step.setFusionAttr(counts(fused, left));
  }

  // A string that outlives the composite it was read from.
  llvm::StringRef keep(llvm::StringRef text) {
    return StringAttr::get(&getContext(), text).getValue();
  }

  bool fuse(CompositeOp forward, CompositeOp backward, std::string& why) {
    Form form = formOf(forward.getKind());
    if (!form) {
      why = "there is no kernel of this kind";
      return false;
    }
    Pair pair{forward, backward, {}, {}};
    why = form(pair);
    if (why.empty()) why = checkUses(pair);
    if (!why.empty()) return false;
    KernelOp first = write(forward, pair.first, nullptr);
    if (backward) {
      KernelOp second = write(backward, pair.second, first);
      replace(pair.second, second);
      if (pair.clone) {
        OpBuilder builder(pair.clone);
        builder.setInsertionPoint(pair.transposed);
        Operation* transposed = builder.clone(*pair.transposed);
        transposed->setOperand(0, second.getResult(0));
        transposed->getResult(0).setType(pair.clone->getResult(0).getType());
        pair.clone->getResult(0).replaceAllUsesWith(transposed->getResult(0));
        pair.clone->erase();
        pair.transposed->erase();
      }
      eraseWithReaders(backward);
    }
    replace(pair.first, first);
    eraseWithReaders(forward);
    return true;
  }

  // Erases a composite and the views and casts that led from it to a value
  // that its kernel gives now.
  static void eraseWithReaders(Operation* op) {
    for (Operation* user : llvm::make_early_inc_range(op->getUsers()))
      eraseWithReaders(user);
    op->erase();
  }

  static void replace(const Launch& launch, KernelOp kernel) {
    for (auto [value, number] : launch.replaces) {
      Value with = kernel.getResult(number);
      value.replaceUsesWithIf(
          with, [&](OpOperand& use) { return use.getOwner() != kernel; });
    }
  }

  KernelOp write(Operation* replaced, const Launch& launch, KernelOp first) {
    OpBuilder builder(replaced);
    llvm::SmallVector<Value> operands;
    llvm::SmallVector<llvm::StringRef> names;
    for (const Launch::Operand& operand : launch.operands) {
      operands.push_back(operand.value
                             ? operand.value
                             : first.getResult(operand.forwardResult));
      names.push_back(operand.name);
    }
    llvm::SmallVector<int64_t> overwrites;
    for (auto [type, name] : llvm::zip(launch.results, launch.overwrites)) {
      auto at = llvm::find(names, llvm::StringRef(name));
      int64_t number = at == names.end() ? -1 : at - names.begin();
      bool fits = number >= 0 && operands[number].getType() == type;
      overwrites.push_back(fits ? number : -1);
    }
    llvm::SmallVector<NamedAttribute> scalars;
    for (const auto& [name, value] : launch.scalars)
      scalars.push_back(builder.getNamedAttr(name, value));
    auto kernel = builder.create<KernelOp>(
        replaced->getLoc(), launch.results, operands, launch.kernel,
        builder.getStrArrayAttr(names), overwrites,
        builder.getDictionaryAttr(scalars));
    for (llvm::StringRef name :
         {llvm::StringRef(GraphDialect::kNodeAttr),
          llvm::StringRef(GraphDialect::kPhaseAttr),
          llvm::StringRef(GraphDialect::kRecomputeOfAttr)})
      if (Attribute value = replaced->getDiscardableAttr(name))
        kernel->setDiscardableAttr(name, value);
    return kernel;
  }

  DictionaryAttr counts(const llvm::MapVector<llvm::StringRef, int64_t>& fused,
                        const llvm::MapVector<llvm::StringRef, int64_t>& left) {
    Builder builder(&getContext());
    auto dictionary = [&](const auto& map) {
      llvm::SmallVector<NamedAttribute> entries;
      for (auto& [kind, count] : map)
        entries.push_back(
            builder.getNamedAttr(kind, builder.getI64IntegerAttr(count)));
      return builder.getDictionaryAttr(entries);
    };
    return builder.getDictionaryAttr(
        {builder.getNamedAttr("kernels", dictionary(fused)),
         builder.getNamedAttr("inlined", dictionary(left))});
  }
};

}  // namespace
}  // namespace heddle::graph
