// Checks what the dist dialect's own verifiers cannot see: the mesh, and that
// arguments, results and the second program agree on every bucket. Invariant:
// what passes here needs no look at another rank to be right.
#include "ir/dist/DistDialect.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/TypeSwitch.h"
#include "passes/verify/Passes.h"

namespace heddle::graph {
#define GEN_PASS_DEF_VERIFYDISTRIBUTED
#include "passes/verify/Passes.h.inc"

using namespace mlir;

namespace {

int64_t elementsOf(Value value) {
  return llvm::cast<RankedTensorType>(value.getType()).getNumElements();
}

class VerifyDistributed
    : public impl::VerifyDistributedBase<VerifyDistributed> {
  struct Known {
    dist::BucketAttr role;
    Type type;
    Location loc;
  };

  void runOnOperation() override {
    markAllAnalysesPreserved();
    llvm::StringMap<Known> shared;
    for (auto step : getOperation().getOps<StepOp>())
      if (failed(verifyStep(step, shared))) return signalPassFailure();
  }

  LogicalResult verifyStep(StepOp step, llvm::StringMap<Known>& shared) {
    llvm::StringMap<Type> own;
    for (auto [argument, role] :
         llvm::zip(step.getBody().getArguments(), step.getArgRoles())) {
      auto bucket = llvm::dyn_cast<dist::BucketAttr>(role);
      if (!bucket) continue;
      if (failed(verifyBucket(argument, bucket))) return failure();
      std::string key =
          (bucket.getKind().getValue() + " " + bucket.getName().getValue())
              .str();
      own[key] = argument.getType();
      auto [it, fresh] = shared.try_emplace(
          key, Known{bucket, argument.getType(), argument.getLoc()});
      if (!fresh && (it->second.role != bucket ||
                     it->second.type != argument.getType())) {
        auto error = emitError(argument.getLoc(), "lays bucket ")
                     << key << " out in another way (dist_bucket_r2)";
        error.attachNote(it->second.loc) << "first laid out here";
        return error;
      }
    }
    for (auto [role, value] :
         llvm::zip(step.getResultRoles(),
                   step.getBody().front().getTerminator()->getOperands())) {
      auto fresh = llvm::dyn_cast<dist::NewBucketAttr>(role);
      if (!fresh) continue;
      std::string key =
          (fresh.getKind().getValue() + " " + fresh.getName().getValue()).str();
      if (own.lookup(key) != value.getType())
        return emitError(value.getLoc(), "gives bucket ")
               << key << " the new value " << value.getType()
               << " and its argument is " << own.lookup(key)
               << " (dist_bucket_r1)";
    }
    for (Operation& op : step.getBody().front())
      if (op.getDialect() &&
          op.getDialect()->getNamespace() ==
              dist::DistDialect::getDialectNamespace() &&
          failed(verifyOp(&op)))
        return failure();
    return success();
  }

  static LogicalResult verifyBucket(BlockArgument argument,
                                    dist::BucketAttr bucket) {
    auto type = llvm::cast<RankedTensorType>(argument.getType());
    auto members = bucket.getMembers().getAsRange<dist::MemberAttr>();
    llvm::ArrayRef<int64_t> bounds = bucket.getBounds();
    int64_t length = type.getNumElements();
    if (!bounds.empty()) {
      int64_t longest = 0;
      for (auto [from, to] : llvm::zip(bounds, bounds.drop_front()))
        longest = std::max(longest, to - from);
      if (longest > length)
        return emitError(argument.getLoc(), "is a shard of ")
               << length << " elements and its bounds ask for " << longest
               << " (dist_bucket_r1)";
      length = bounds.back();
    }
    for (dist::MemberAttr member : members) {
      auto whole =
          llvm::dyn_cast<RankedTensorType>(member.getType().getValue());
      if (!whole || whole.getElementType() != type.getElementType() ||
          member.getOffset() + whole.getNumElements() > length)
        return emitError(argument.getLoc(), "has no room for ")
               << member << " in a bucket of " << length << " elements of "
               << type.getElementType() << " (dist_bucket_r1)";
    }
    return success();
  }

  LogicalResult verifyOp(Operation* op) {
    auto axis = op->getAttrOfType<StringAttr>("axis");
    if (!axis) return success();
    auto mesh =
        getOperation()->getAttrOfType<ArrayAttr>(dist::DistDialect::kMeshAttr);
    bool known = mesh && llvm::any_of(mesh.getAsRange<dist::AxisAttr>(),
                                      [&](dist::AxisAttr each) {
                                        return each.getName() == axis;
                                      });
    if (!known)
      return op->emitOpError("names axis ")
             << axis << ", which the mesh does not have (dist_mesh_r1)";
    int64_t ranks = dist::axisSize(getOperation(), axis);
    int64_t from = elementsOf(op->getOperand(0)),
            to = elementsOf(op->getResult(0));
    if (auto bounds = op->getAttrOfType<DenseI64ArrayAttr>("bounds")) {
      if (bounds.size() == ranks + 1) return success();
      return op->emitOpError("has ") << bounds.size() << " bounds for " << ranks
                                     << " ranks (dist_bounds_r1)";
    }
    auto wrong = [&](llvm::StringRef rule) {
      return op->emitOpError("takes ")
             << from << " elements to " << to << " on " << ranks << " ranks ("
             << rule << ")";
    };
    return llvm::TypeSwitch<Operation*, LogicalResult>(op)
        .Case([&](dist::AllGatherOp) -> LogicalResult {
          return from * ranks == to ? success() : wrong("dist_all_gather_r2");
        })
        .Case([&](dist::ReduceScatterOp) -> LogicalResult {
          return to * ranks == from ? success()
                                    : wrong("dist_reduce_scatter_r2");
        })
        .Case([&](dist::ShardOp) -> LogicalResult {
          return to * ranks == from ? success() : wrong("dist_shard_r1");
        })
        .Default([](Operation*) { return success(); });
  }
};

}  // namespace
}  // namespace heddle::graph
