// Gathers -> one gather earlier. Invariant: gathers keep their order, which is
// that of their communicator on every rank; only what stands between them
// changes. A gather moved behind the next one would change it.
#include "passes/zero/Passes.h"

namespace heddle::zero {
#define GEN_PASS_DEF_ZEROPREFETCH
#include "passes/zero/Passes.h.inc"

using namespace mlir;

namespace {

class ZeroPrefetch : public impl::ZeroPrefetchBase<ZeroPrefetch> {
 public:
  using ZeroPrefetchBase::ZeroPrefetchBase;

 private:
  void runOnOperation() override {
    llvm::SmallVector<dist::AllGatherOp> gathers;
    for (auto gather :
         getOperation().getBody().front().getOps<dist::AllGatherOp>()) {
      auto phase = gather->getAttrOfType<graph::PhaseAttr>(
          graph::GraphDialect::kPhaseAttr);
      if (!phase || phase.getValue() != graph::Phase::Update)
        gathers.push_back(gather);
    }
    // From the last on: each finds the one before it where it was.
    for (size_t i = gathers.size(); i-- > 1;)
      if (bytesOf(gathers[i]) <= inFlight)
        gathers[i]->moveAfter(gathers[i - 1]);
  }

  static int64_t bytesOf(dist::AllGatherOp gather) {
    auto type = llvm::cast<RankedTensorType>(gather.getResult().getType());
    return type.getNumElements() * graph::elementBytes(type.getElementType());
  }
};

}  // namespace
}  // namespace heddle::zero
