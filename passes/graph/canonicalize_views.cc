// Removes views that show nothing new. A view's elements are told by its
// storage and its type's layout, so within one chain equal types mean equal
// tensors. Invariant: no value's type changes, hence no kernel sees other
// strides than those recorded.
#include "ir/graph/GraphOps.h"
#include "passes/graph/Passes.h"
#include "passes/graph/functional_forms.h"

namespace heddle::graph {
#define GEN_PASS_DEF_CANONICALIZEVIEWS
#include "passes/graph/Passes.h.inc"

using namespace mlir;

namespace {

// The values that `view` looks through, nearest first.
llvm::SmallVector<Value> chainOf(Operation* view) {
  llvm::SmallVector<Value> chain;
  for (auto at = llvm::dyn_cast<ViewLike>(view); at;
       at = at.getViewSource().getDefiningOp<ViewLike>())
    chain.push_back(at.getViewSource());
  return chain;
}

bool isPlain(RankedTensorType type) {
  return llvm::ArrayRef(geometryOf(type).strides) ==
         llvm::ArrayRef(rowMajorStrides(type.getShape()));
}

bool sameElements(RankedTensorType a, RankedTensorType b) {
  return isPlain(a) && isPlain(b) && a.getElementType() == b.getElementType() &&
         a.getNumElements() == b.getNumElements() &&
         geometryOf(a).offset == geometryOf(b).offset;
}

class CanonicalizeViews
    : public impl::CanonicalizeViewsBase<CanonicalizeViews> {
  void runOnOperation() override {
    for (Operation& op :
         llvm::make_early_inc_range(getOperation().getBody().front())) {
      if (llvm::isa<ViewLike>(op) && op.getNumResults() == 1) simplify(&op);
    }
  }

  static void simplify(Operation* view) {
    auto type = llvm::cast<RankedTensorType>(view->getResult(0).getType());
    llvm::SmallVector<Value> chain = chainOf(view);
    for (Value earlier : llvm::reverse(chain)) {
      if (earlier.getType() != type) continue;
      view->replaceAllUsesWith(ValueRange(earlier));
      view->erase();
      return;
    }
    llvm::StringRef name = view->getName().stripDialect();
    if (name != "view" && name != "_unsafe_view") return;
    for (Value earlier : llvm::reverse(llvm::ArrayRef(chain).drop_front())) {
      if (!sameElements(llvm::cast<RankedTensorType>(earlier.getType()), type))
        continue;
      view->setOperand(0, earlier);
      return;
    }
  }
};

}  // namespace
}  // namespace heddle::graph
