// Packs and collectives -> copies and collective steps. Invariant: a value that
// is packed is computed in its slot, or copied there right after the op that
// computes it, so it dies there; the collective then works on the bucket
// itself. What would break it: counting a packed value as dead before its pack,
// whose position is what liveness knows.
#include "ir/optim/OptimDialect.h"
#include "llvm/Support/raw_ostream.h"
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

// What an op is called in a report.
std::string nameOf(mlir::Operation* op) {
  if (auto kernel = mlir::dyn_cast<graph::KernelOp>(op))
    return kernel.getKernel().str();
  return op->getName().getStringRef().str();
}

// The same elements in the same places, whatever their dtype.
bool sameLayout(mlir::RankedTensorType a, mlir::RankedTensorType b) {
  sched::Geometry x = sched::geometryOf(a), y = sched::geometryOf(b);
  if (x.sizes != y.sizes || x.offset != y.offset) return false;
  for (size_t d = 0; d < x.sizes.size(); ++d)
    if (x.sizes[d] != 1 && x.strides[d] != y.strides[d]) return false;
  return true;
}

}  // namespace

optim::AccumulateOp accumulationOf(dist::PackOp pack) {
  if (!pack.getResult().hasOneUse()) return nullptr;
  return mlir::dyn_cast<optim::AccumulateOp>(
      *pack.getResult().getUsers().begin());
}

std::string SectionLowering::whyCopied(dist::PackOp pack, unsigned number) {
  Value value = pack.getValues()[number], root = rootOf(value);
  auto slot = mlir::cast<mlir::RankedTensorType>(
      mlir::cast<mlir::TypeAttr>(pack.getTypes()[number]).getValue());
  mlir::Operation* producer = root.getDefiningOp();
  if (!producer || !inSection.contains(producer))
    return "it is given to the section, not computed in it";
  if (!mlir::isa<optim::ProductOp>(producer)) {
    if (accumulationOf(pack))
      return "it is added to the accumulator, which only a matrix product of "
             "narrow operands on cuda does itself";
    mlir::Type made = typeOf(root).getElementType(),
               sent = slot.getElementType();
    if (made != sent) {
      std::string text;
      llvm::raw_string_ostream(text)
          << "it is made in " << made << " and sent in " << sent;
      return text;
    }
    if (!mlir::isa<graph::KernelOp>(producer) && !graph::isAtenCall(producer))
      return "it is put together from parts";
  }
  sched::Geometry whole = sched::geometryOf(typeOf(root));
  if (!sameLayout(typeOf(value), slot) || !whole.dense() || whole.offset != 0)
    return "it is made in another layout than the parameter's";
  if (whole.storageBytes != sched::geometryOf(slot).storageBytes)
    return "it is a part of what its operator makes";
  if (llvm::count_if(pack.getValues(),
                     [&](Value other) { return rootOf(other) == root; }) > 1)
    return "it is the gradient of two parameters";
  // Reducing in place would change what a later reader sees.
  if (liveness.lastUse(root) !=
      llvm::find(order, pack.getOperation()) - order.begin())
    return "it is read again after it is sent";
  return "";
}

void SectionLowering::planDeliveries() {
  for (mlir::Operation* op : order) {
    auto pack = mlir::dyn_cast<dist::PackOp>(op);
    if (!pack) continue;
    for (auto [i, value] : llvm::enumerate(pack.getValues())) {
      mlir::Operation* producer = rootOf(value).getDefiningOp();
      if (typeOf(value).getNumElements() == 0) continue;
      std::string why = whyCopied(pack, i);
      if (why.empty()) {
        slotOf[rootOf(value)] = {pack, i};
        ++placements.inPlace;
        continue;
      }
      Placements::Copies& copies =
          placements.copied[{producer ? nameOf(producer) : "", why}];
      ++copies.count;
      copies.bytes += typeOf(value).getNumElements() *
                      graph::elementBytes(typeOf(value).getElementType());
      deliveries[inSection.contains(producer) ? producer : op].push_back(
          {pack, i});
    }
  }
}

LogicalResult SectionLowering::deliverAfter(mlir::Operation* op) {
  for (Value result : op->getResults()) {
    auto slot = slotOf.find(result);
    if (slot == slotOf.end()) continue;
    Value bucket = packTarget(slot->second.first);
    if (!bucket ||
        sched::bufferOf(refs.lookup(result)) != sched::bufferOf(bucket))
      return op->emitOpError("was not computed in its slot of the bucket");
  }
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

// The accumulator's shard that the first micro-batch's sum over ranks is: it
// need not be brought there by a step of its own.
Value SectionLowering::firstSum(dist::ReduceScatterOp scatter) {
  if (section.getName() != "micro_first" || !scatter.getResult().hasOneUse())
    return nullptr;
  auto sum = mlir::dyn_cast<optim::AccumulateOp>(
      *scatter.getResult().getUsers().begin());
  if (!sum || sum.getAccumulator().getType() != scatter.getType())
    return nullptr;
  Value ref = refOf(sum.getAccumulator());
  bool sized =
      ref && !ref.getDefiningOp<sched::ValueOp>().getRankSizes().empty();
  return scatter.getBounds() && !sized ? nullptr : ref;
}

// The part of a gathered bucket, gathered where the old one lies, that `value`
// is: what only the gather right behind it reads is computed there.
Value SectionLowering::gatheredPart(Value value) {
  if (!value.hasOneUse()) return nullptr;
  auto gather = mlir::dyn_cast<dist::AllGatherOp>(*value.getUsers().begin());
  Value whole = gather ? wanted.lookup(gather.getResult()) : Value();
  if (!whole || position + 1 >= static_cast<int64_t>(order.size()) ||
      order[position + 1] != gather || order[position] != value.getDefiningOp())
    return nullptr;
  return refInto(builder, value.getLoc(), typeOf(value), whole,
                 partOf(gather.getBounds(), typeOf(value).getNumElements()));
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
  if (Value sum = firstSum(scatter)) return refs[result] = sum;
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
