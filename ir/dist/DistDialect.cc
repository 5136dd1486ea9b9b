// The dist dialect's registration and labelled rules. Invariant: the rules here
// need nothing but the op; those that need the mesh are dist-verify's.
#include "ir/dist/DistDialect.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/TypeSwitch.h"
#include "mlir/IR/DialectImplementation.h"

using namespace mlir;

#include "ir/dist/DistDialect.cc.inc"
#define GET_ATTRDEF_CLASSES
#include "ir/dist/DistAttrs.cc.inc"
#define GET_OP_CLASSES
#include "ir/dist/DistOps.cc.inc"

namespace heddle::dist {

void DistDialect::initialize() {
  registerAttributes();
  addOperations<
#define GET_OP_LIST
#include "ir/dist/DistOps.cc.inc"
      >();
}

void DistDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "ir/dist/DistAttrs.cc.inc"
      >();
}

LogicalResult DistDialect::verifyOperationAttribute(Operation* op,
                                                    NamedAttribute attribute) {
  if (attribute.getName() != kMeshAttr)
    return op->emitOpError("has the unknown attribute ") << attribute.getName();
  auto axes = llvm::dyn_cast<ArrayAttr>(attribute.getValue());
  if (!llvm::isa<ModuleOp>(op) || !axes ||
      !llvm::all_of(axes, [](Attribute axis) {
        auto known = llvm::dyn_cast<AxisAttr>(axis);
        return known && known.getSize() > 0;
      }))
    return op->emitOpError(
        "has a dist.mesh that is no array of #dist.axis with at least one "
        "rank each");
  return success();
}

int64_t axisSize(ModuleOp module, llvm::StringRef axis) {
  auto axes = module->getAttrOfType<ArrayAttr>(DistDialect::kMeshAttr);
  if (!axes) return 1;
  for (auto each : axes.getAsRange<AxisAttr>())
    if (each.getName() == axis) return each.getSize();
  return 1;
}

Value windowSource(Operation* op) {
  if (auto slot = llvm::dyn_cast_or_null<SlotOp>(op)) return slot.getBucket();
  if (auto shard = llvm::dyn_cast_or_null<ShardOp>(op))
    return shard.getBucket();
  return nullptr;
}

namespace {

RankedTensorType typeOf(Value value) {
  return llvm::cast<RankedTensorType>(value.getType());
}

// Elements of `type`'s storage.
int64_t storageElements(RankedTensorType type) {
  int64_t bytes = graph::elementBytes(type.getElementType());
  return bytes == 0 ? 0 : graph::geometryOf(type).storageBytes / bytes;
}

bool flatPair(Value a, Value b) {
  return typeOf(a).getRank() == 1 && typeOf(b).getRank() == 1 &&
         !typeOf(a).getEncoding() && !typeOf(b).getEncoding() &&
         typeOf(a).getElementType() == typeOf(b).getElementType();
}

template <typename Op>
LogicalResult verifyFlat(Op op, llvm::StringRef rule) {
  if (flatPair(op.getValue(), op.getResult())) return success();
  return op.emitOpError("takes ")
         << op.getValue().getType() << " to " << op.getResult().getType()
         << "; both must be flat and of one element type (" << rule << ")";
}

// The longer tensor `whole`, cut at `bounds` into parts of at most `shard`.
LogicalResult verifyBounds(Operation* op, Value whole, Value shard,
                           std::optional<llvm::ArrayRef<int64_t>> bounds) {
  if (!bounds) return success();
  int64_t longest = 0;
  for (size_t i = 1; i < bounds->size(); ++i)
    longest = std::max(longest, (*bounds)[i] - (*bounds)[i - 1]);
  if (bounds->size() >= 2 && bounds->front() == 0 && llvm::is_sorted(*bounds) &&
      bounds->back() == typeOf(whole).getNumElements() &&
      longest == typeOf(shard).getNumElements())
    return success();
  return op->emitOpError("cuts ")
         << whole.getType() << " into " << shard.getType()
         << " at bounds that do not fit (dist_bounds_r1)";
}

template <typename Op>
LogicalResult verifySame(Op op, llvm::StringRef rule) {
  if (op.getValue().getType() == op.getResult().getType()) return success();
  return op.emitOpError("takes ")
         << op.getValue().getType() << " to " << op.getResult().getType()
         << "; the types must be equal (" << rule << ")";
}

}  // namespace

LogicalResult SlotOp::verify() {
  RankedTensorType bucket = typeOf(getBucket()), slot = typeOf(getResult());
  int64_t offset = getOffset();
  if (bucket.getElementType() == slot.getElementType() &&
      bucket.getRank() == 1 && offset >= 0 &&
      offset + storageElements(slot) <= bucket.getNumElements())
    return success();
  return emitOpError("puts ") << slot << " at element " << offset << " of "
                              << bucket << " (dist_slot_r1)";
}

LogicalResult ShardOp::verify() {
  RankedTensorType bucket = typeOf(getBucket()), shard = typeOf(getResult());
  bool divides = shard.getNumElements() > 0 &&
                 bucket.getNumElements() % shard.getNumElements() == 0;
  if (flatPair(getBucket(), getResult()) && (divides || getBounds()))
    return verifyBounds(*this, getBucket(), getResult(), getBounds());
  return emitOpError("takes ")
         << shard << " of " << bucket << " (dist_shard_r1)";
}

LogicalResult PackOp::verify() {
  if (getOffsets().size() != getValues().size() ||
      getTypes().size() != getValues().size())
    return emitOpError("has ")
           << getValues().size() << " values, " << getOffsets().size()
           << " offsets and " << getTypes().size() << " types (dist_pack_r1)";
  int64_t end = 0;
  for (auto [value, offset, each] : llvm::zip(
           getValues(), getOffsets(), getTypes().getAsValueRange<TypeAttr>())) {
    auto type = llvm::dyn_cast<RankedTensorType>(each);
    if (!type || type.getShape() != typeOf(value).getShape())
      return emitOpError("lays out ")
             << value.getType() << " as " << each << " (dist_pack_r1)";
    if (offset < end)
      return emitOpError("puts a tensor at element ")
             << offset << ", before the end of another at " << end
             << " (dist_pack_r2)";
    end = offset + storageElements(type);
  }
  if (typeOf(getResult()).getRank() != 1 ||
      end > typeOf(getResult()).getNumElements())
    return emitOpError("needs ") << end << " elements and makes "
                                 << getResult().getType() << " (dist_pack_r2)";
  return success();
}

LogicalResult AllGatherOp::verify() {
  if (failed(verifyFlat(*this, "dist_all_gather_r1"))) return failure();
  return verifyBounds(*this, getResult(), getValue(), getBounds());
}
LogicalResult ReduceScatterOp::verify() {
  if (failed(verifyFlat(*this, "dist_reduce_scatter_r1"))) return failure();
  return verifyBounds(*this, getValue(), getResult(), getBounds());
}
LogicalResult AllReduceOp::verify() {
  return verifySame(*this, "dist_all_reduce_r1");
}
LogicalResult BroadcastOp::verify() {
  return verifySame(*this, "dist_broadcast_r1");
}

}  // namespace heddle::dist
