// Packs and collectives -> copies and collective steps. Invariant: a value that
// is packed is written to its slot right after the op that computes it, so it
// dies there; the collective then works on the bucket itself. What would break
// it: counting a packed value as dead before its pack, whose position is what
// liveness knows.
#include "ir/optim/OptimDialect.h"
#include "llvm/ADT/TypeSwitch.h"
#include "passes/schedule/section_lowering.h"

namespace heddle {

using mlir::failure;
using mlir::LogicalResult;
using mlir::success;
using mlir::Value;

namespace {

mlir::RankedTensorType typeOf(Value value) {
  return mlir::cast<mlir::RankedTensorType>(value.getType());
}

// The accumulation that takes a pack as its only reader: its slots are written
// through the pack.
optim::AccumulateOp accumulationOf(dist::PackOp pack) {
  if (!pack.getResult().hasOneUse()) return nullptr;
  return mlir::dyn_cast<optim::AccumulateOp>(
      *pack.getResult().getUsers().begin());
}

}  // namespace

void SectionLowering::planDeliveries() {
  for (mlir::Operation* op : order) {
    auto pack = mlir::dyn_cast<dist::PackOp>(op);
    if (!pack) continue;
    for (auto [i, value] : llvm::enumerate(pack.getValues())) {
      mlir::Operation* producer = rootOf(value).getDefiningOp();
      deliveries[inSection.contains(producer) ? producer : op].push_back(
          {pack, i});
    }
  }
}

LogicalResult SectionLowering::deliverAfter(mlir::Operation* op) {
  auto found = deliveries.find(op);
  if (found == deliveries.end()) return success();
  for (auto [pack, number] : found->second)
    if (failed(deliver(pack, number))) return failure();
  return success();
}

// The bucket that `pack` fills: the accumulator itself, or scratch.
Value SectionLowering::packTarget(dist::PackOp pack) {
  if (Value ref = refs.lookup(pack.getResult())) return ref;
  if (auto accumulate = accumulationOf(pack)) {
    Value ref = refOf(accumulate.getAccumulator());
    if (ref) refs[pack.getResult()] = ref;
    return ref;
  }
  Value bucket = newResult(pack.getResult(), pack);
  clearGaps(pack, bucket);
  return bucket;
}

// Zeros between the slots: what goes over the wire is the same on every run.
void SectionLowering::clearGaps(dist::PackOp pack, Value bucket) {
  mlir::Type element = typeOf(pack.getResult()).getElementType();
  auto clear = [&](int64_t from, int64_t to) {
    if (from == to) return;
    auto gap = mlir::RankedTensorType::get({to - from}, element);
    Value ref = refInto(builder, pack.getLoc(), gap, bucket, {from});
    builder.create<sched::AtenOp>(
        pack.getLoc(), "aten::zeros",
        builder.getArrayAttr(
            {builder.getDenseI64ArrayAttr(gap.getShape()),
             mlir::TypeAttr::get(element),
             sched::LayoutNameAttr::get(pack.getContext(), "strided"),
             sched::DeviceAttr::get(pack.getContext()),
             builder.getBoolAttr(false)}),
        builder.getStrArrayAttr(
            {"size", "dtype", "layout", "device", "pin_memory"}),
        llvm::ArrayRef<int64_t>{0}, mlir::ValueRange{}, mlir::ValueRange{ref});
  };
  int64_t end = 0;
  for (auto [offset, type] :
       llvm::zip(pack.getOffsets(),
                 pack.getTypes().getAsValueRange<mlir::TypeAttr>())) {
    clear(end, offset);
    end = offset + mlir::cast<mlir::RankedTensorType>(type).getNumElements();
  }
  clear(end, typeOf(pack.getResult()).getNumElements());
}

LogicalResult SectionLowering::deliver(dist::PackOp pack, unsigned number) {
  Value value = pack.getValues()[number];
  auto type = mlir::cast<mlir::RankedTensorType>(
      mlir::cast<mlir::TypeAttr>(pack.getTypes()[number]).getValue());
  if (type.getNumElements() == 0) return success();
  Value source = refOf(value), bucket = packTarget(pack);
  if (!source || !bucket) return failure();
  mlir::Operation* origin = value.getDefiningOp();
  if (!origin) origin = pack;
  Value slot = refInto(builder, value.getLoc(), type, bucket,
                       {pack.getOffsets()[number]});
  if (!accumulationOf(pack)) {
    copy(origin, source, slot);
    return success();
  }
  mlir::Attribute operand = sched::OperandAttr::get(pack.getContext());
  kernel(origin, "accumulate",
         {{"dst", operand},
          {"src", operand},
          {"first", builder.getBoolAttr(section.getName() == "micro_first")}},
         {slot, source}, {slot});
  return success();
}

// Where a collective's result lies: where it was asked to, over the operand
// where that is a sum nobody reads afterwards, or in scratch.
Value SectionLowering::collectiveTarget(mlir::Operation* op) {
  Value value = op->getOperand(0), result = op->getResult(0);
  if (Value ref = wanted.lookup(result)) return refs[result] = ref;
  bool isSum = value.getDefiningOp<optim::AccumulateOp>() != nullptr;
  bool over = liveness.lastUse(value) <= position && (isSum || diesHere(value));
  Value source = over ? refOf(value) : Value();
  if (source && mlir::isa<dist::AllReduceOp, dist::BroadcastOp>(op))
    return refs[result] = source;
  auto scatter = mlir::dyn_cast<dist::ReduceScatterOp>(op);
  if (!scatter) return newResult(result, op);
  Window part = partOf(scatter.getBounds(), typeOf(result).getNumElements());
  if (source)
    return refs[result] =
               refInto(builder, op->getLoc(), typeOf(result), source, part);
  Value target = newResult(result, op);
  if (!scatter.getBounds()) return target;
  // A part of its own bytes, as long as this rank's.
  part.rankOffsets.assign(part.rankSizes.size(), 0);
  return refs[result] =
             refInto(builder, op->getLoc(), typeOf(result), target, part);
}

uint64_t SectionLowering::streamFor(mlir::Operation* op) {
  if (section->getParentOfType<sched::PlanOp>().getStreams().size() == 1)
    return 0;
  if (mlir::isa<dist::AllGatherOp>(op)) return 1;
  if (auto sum = mlir::dyn_cast<optim::AccumulateOp>(op))
    op = sum.getValue().getDefiningOp();
  return mlir::isa_and_nonnull<dist::ReduceScatterOp>(op) ? 2 : 0;
}

LogicalResult SectionLowering::lowerDist(mlir::Operation* op) {
  if (auto pack = mlir::dyn_cast<dist::PackOp>(op))
    return packTarget(pack) ? success() : failure();
  Value source = refOf(op->getOperand(0));
  if (!source) return failure();
  Value target = collectiveTarget(op);
  mlir::MLIRContext* context = op->getContext();
  llvm::SmallVector<mlir::Attribute> args = {sched::OperandAttr::get(context),
                                             op->getAttr("axis")};
  llvm::SmallVector<llvm::StringRef> names = {"src", "axis"};
  if (mlir::isa<dist::BroadcastOp>(op)) {
    args.push_back(builder.getI64IntegerAttr(0));
    names.push_back("root");
  } else if (!mlir::isa<dist::AllGatherOp>(op)) {
    args.push_back(builder.getStringAttr("sum"));
    names.push_back("op");
  }
  if (mlir::Attribute bounds = op->getAttr("bounds")) {
    args.push_back(bounds);
    names.push_back("bounds");
  }
  auto step = builder.create<sched::CollectiveOp>(
      op->getLoc(), op->getName().stripDialect(), builder.getArrayAttr(args),
      builder.getStrArrayAttr(names), llvm::ArrayRef<int64_t>{0},
      mlir::ValueRange{source}, mlir::ValueRange{target});
  step.setStream(streamFor(op));
  annotate(step, op);
  return success();
}

}  // namespace heddle
