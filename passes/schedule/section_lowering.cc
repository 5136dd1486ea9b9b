// Walks a section's ops once, in order, and writes their steps. Invariant:
// `position` is the index that liveness knows the current op by.
#include "passes/schedule/section_lowering.h"

#include "ir/dist/DistDialect.h"
#include "ir/optim/OptimDialect.h"
#include "llvm/ADT/STLExtras.h"

namespace heddle {

using mlir::failure;
using mlir::LogicalResult;
using mlir::success;
using mlir::Value;
using sched::RefType;

llvm::SmallVector<mlir::Operation*> sliceFor(
    mlir::Block& block, llvm::ArrayRef<Value> roots,
    llvm::ArrayRef<mlir::Operation*> effects, const RefMap& stops) {
  llvm::DenseSet<mlir::Operation*> needed;
  llvm::SmallVector<mlir::Operation*> work(effects.begin(), effects.end());
  auto visit = [&](Value value) {
    if (stops.count(value)) return;
    if (mlir::Operation* op = value.getDefiningOp()) work.push_back(op);
  };
  llvm::for_each(roots, visit);
  while (!work.empty()) {
    mlir::Operation* op = work.pop_back_val();
    if (!needed.insert(op).second) continue;
    llvm::for_each(op->getOperands(), visit);
  }
  llvm::SmallVector<mlir::Operation*> order;
  for (mlir::Operation& op : block)
    if (needed.contains(&op)) order.push_back(&op);
  return order;
}

Value makeBuffer(mlir::OpBuilder& builder, mlir::Location loc,
                 mlir::RankedTensorType type, sched::Arena arena,
                 sched::Category category, llvm::StringRef label) {
  auto buffer = builder.create<sched::BufferOp>(
      loc, sched::BufferType::get(type.getContext()), arena,
      sched::Space::Device, category,
      static_cast<uint64_t>(sched::geometryOf(type).storageBytes),
      mlir::IntegerAttr(),
      label.empty() ? mlir::StringAttr() : builder.getStringAttr(label));
  return builder.create<sched::ValueOp>(
      loc, RefType::get(type.getContext(), type), buffer);
}

Window partOf(std::optional<llvm::ArrayRef<int64_t>> bounds, int64_t length) {
  Window window;
  if (!bounds) {
    window.rankStride = length;
    return window;
  }
  for (size_t r = 0; r + 1 < bounds->size(); ++r) {
    window.rankOffsets.push_back((*bounds)[r]);
    window.rankSizes.push_back((*bounds)[r + 1] - (*bounds)[r]);
  }
  return window;
}

Value refInto(mlir::OpBuilder& builder, mlir::Location loc,
              mlir::RankedTensorType type, Value source, const Window& window) {
  auto into = source.getDefiningOp<sched::ValueOp>();
  int64_t from = graph::elementBytes(
      mlir::cast<RefType>(source.getType()).getTensor().getElementType());
  int64_t to = graph::elementBytes(type.getElementType());
  // Elements of the source's dtype, counted in the window's.
  auto counted = [&](int64_t elements) { return elements * from / to; };
  llvm::SmallVector<int64_t> offsets(window.rankOffsets);
  if (offsets.empty()) llvm::append_range(offsets, into.getRankOffsets());
  // A whole view of a part is as long as the part.
  llvm::SmallVector<int64_t> sizes(window.rankSizes);
  bool whole =
      window.rankOffsets.empty() && type.getRank() == 1 &&
      type.getNumElements() ==
          mlir::cast<RefType>(source.getType()).getTensor().getNumElements();
  if (sizes.empty() && whole) llvm::append_range(sizes, into.getRankSizes());
  if (from != to)
    for (int64_t& offset : offsets)
      offset = offset < 0 ? offset : counted(offset);
  return builder.create<sched::ValueOp>(
      loc, RefType::get(type.getContext(), type), into.getBuffer(),
      counted(into.getBase() + window.offset),
      counted(into.getRankStride() + window.rankStride), offsets, sizes);
}

SectionLowering::SectionLowering(sched::SectionOp section,
                                 llvm::ArrayRef<mlir::Operation*> order,
                                 llvm::ArrayRef<Value> results,
                                 const RefMap& given)
    : section(section),
      order(order),
      inSection(order.begin(), order.end()),
      refs(given),
      builder(mlir::OpBuilder::atBlockEnd(&section.getBody().front())),
      liveness(order, results) {}

LogicalResult SectionLowering::run() {
  planDeliveries();
  for (auto [i, op] : llvm::enumerate(order)) {
    position = i;
    if (isView(op)) continue;
    if (failed(lowerOp(op)) || failed(deliverAfter(op))) return failure();
  }
  return success();
}

Value SectionLowering::refOf(Value value) {
  if (Value ref = refs.lookup(value)) return ref;
  mlir::Operation* op = value.getDefiningOp();
  Value looksInto = viewSource(op);
  if (!looksInto) {
    mlir::emitError(value.getLoc(), "a value of section '")
        << section.getName() << "' is not computed in it";
    return nullptr;
  }
  Value source = refOf(looksInto);
  if (!source) return nullptr;
  auto type = mlir::cast<mlir::RankedTensorType>(value.getType());
  Window window;
  if (auto slot = mlir::dyn_cast<dist::SlotOp>(op))
    window.offset = slot.getOffset();
  if (auto shard = mlir::dyn_cast<dist::ShardOp>(op))
    window = partOf(shard.getBounds(), type.getNumElements());
  return refs[value] = refInto(builder, value.getLoc(), type, source, window);
}

LogicalResult SectionLowering::addResult(llvm::StringRef kind,
                                         llvm::StringRef name, Value value) {
  Value ref = refOf(value);
  if (!ref) return failure();
  builder.create<sched::ResultOp>(value.getLoc(), kind, name, ref);
  return success();
}

bool SectionLowering::diesHere(Value value) {
  Value ref = refOf(value);
  if (!ref) return false;
  sched::BufferOp buffer = sched::bufferOf(ref);
  return buffer && buffer.getArena() == sched::Arena::Scratch &&
         liveness.lastUse(value) <= position;
}

sched::Category SectionLowering::categoryOf(Value value) {
  if (liveness.lastUse(value) == Liveness::kForever)
    return sched::Category::Output;
  auto phaseOf = [](mlir::Operation* op) {
    auto phase =
        op->getAttrOfType<graph::PhaseAttr>(graph::GraphDialect::kPhaseAttr);
    return phase ? phase.getValue() : graph::Phase::Forward;
  };
  mlir::Operation* producer = value.getDefiningOp();
  int64_t last = liveness.lastUse(value);
  bool crosses = last >= 0 && phaseOf(producer) == graph::Phase::Forward &&
                 phaseOf(order[last]) != graph::Phase::Forward;
  return crosses ? sched::Category::Activation : sched::Category::Temporary;
}

Value SectionLowering::newResult(Value value, mlir::Operation* origin) {
  auto type = mlir::cast<mlir::RankedTensorType>(value.getType());
  if (auto slot = slotOf.find(value); slot != slotOf.end()) {
    auto [pack, number] = slot->second;
    Value bucket = packTarget(pack);
    if (!bucket) return nullptr;
    return refs[value] = refInto(builder, origin->getLoc(), type, bucket,
                                 {pack.getOffsets()[number]});
  }
  if (Value part = gatheredPart(value)) return refs[value] = part;
  Value ref = makeBuffer(builder, origin->getLoc(), type, sched::Arena::Scratch,
                         categoryOf(value), "");
  refs[value] = ref;
  return ref;
}

void SectionLowering::copy(mlir::Operation* origin, Value from, Value to) {
  auto step = builder.create<sched::CopyOp>(origin->getLoc(), from, to);
  annotate(step, origin);
}

sched::KernelOp SectionLowering::kernel(
    mlir::Operation* origin, llvm::StringRef name,
    llvm::ArrayRef<std::pair<llvm::StringRef, mlir::Attribute>> args,
    mlir::ValueRange reads, mlir::ValueRange writes) {
  llvm::SmallVector<mlir::Attribute> values;
  llvm::SmallVector<llvm::StringRef> names;
  for (auto [argName, value] : args) {
    names.push_back(argName);
    values.push_back(value);
  }
  llvm::SmallVector<int64_t> slots =
      llvm::to_vector(llvm::seq<int64_t>(0, writes.size()));
  auto step = builder.create<sched::KernelOp>(
      origin->getLoc(), name, builder.getArrayAttr(values),
      builder.getStrArrayAttr(names), slots, reads, writes);
  annotate(step, origin);
  return step;
}

LogicalResult SectionLowering::lowerOp(mlir::Operation* op) {
  if (auto guard = mlir::dyn_cast<graph::GuardOp>(op)) return lowerGuard(guard);
  if (auto update = mlir::dyn_cast<graph::ViewUpdateOp>(op))
    return lowerViewUpdate(update);
  if (op->getName().getDialectNamespace() ==
      optim::OptimDialect::getDialectNamespace())
    return lowerOptim(op);
  if (op->getName().getDialectNamespace() ==
      dist::DistDialect::getDialectNamespace())
    return lowerDist(op);
  if (auto kernel = mlir::dyn_cast<graph::KernelOp>(op))
    return lowerKernel(kernel);
  if (op->getName().getStringRef() == "graph.copy") return lowerCopy(op);
  if (graph::isAtenCall(op)) return lowerCall(op);
  return op->emitOpError(
      "has no lowering to a step; run the pass that removes it before "
      "graph-lower-to-sched");
}

mlir::FailureOr<mlir::Attribute> SectionLowering::argAttr(
    mlir::Operation* op, const graph::AtenArg& arg,
    llvm::SmallVectorImpl<Value>& reads) {
  mlir::MLIRContext* context = op->getContext();
  auto operand = [&](Value value) -> mlir::FailureOr<mlir::Attribute> {
    if (!value) return mlir::Attribute(builder.getUnitAttr());
    Value ref = refOf(value);
    if (!ref) return failure();
    reads.push_back(ref);
    return mlir::Attribute(sched::OperandAttr::get(context));
  };
  switch (arg.kind) {
    case graph::AtenArg::Kind::kNone:
      return mlir::Attribute(builder.getUnitAttr());
    case graph::AtenArg::Kind::kOperand:
      return operand(arg.value);
    case graph::AtenArg::Kind::kOperandList: {
      llvm::SmallVector<mlir::Attribute> list;
      for (Value value : arg.list) {
        mlir::FailureOr<mlir::Attribute> entry = operand(value);
        if (failed(entry)) return failure();
        list.push_back(*entry);
      }
      return mlir::Attribute(builder.getArrayAttr(list));
    }
    case graph::AtenArg::Kind::kConstant:
      break;
  }
  auto text = mlir::dyn_cast_if_present<mlir::StringAttr>(arg.constant);
  if (text && text.getValue() == "$dev")
    return mlir::Attribute(sched::DeviceAttr::get(context));
  if (text && arg.schemaKind == graph::ArgKind::kLayout)
    return mlir::Attribute(
        sched::LayoutNameAttr::get(context, text.getValue()));
  if (text && arg.schemaKind == graph::ArgKind::kMemoryFormat)
    return mlir::Attribute(
        sched::MemoryFormatAttr::get(context, text.getValue()));
  return arg.constant ? arg.constant : mlir::Attribute(builder.getUnitAttr());
}

LogicalResult SectionLowering::lowerCall(mlir::Operation* op) {
  graph::AtenCall call = graph::decodeAtenCall(op);
  if (!call.mutates.empty() && !call.dps)
    return op->emitOpError("writes through its operand ")
           << call.mutates.front()
           << "; run graph-functionalize before graph-lower-to-sched";

  // Results that are new values of operands: the kernel writes in place, over
  // the operand's own bytes if they die here, else over a copy.
  llvm::DenseMap<Value, Value> replaced;
  size_t fresh = op->getNumResults() - call.mutates.size();
  if (call.mutates.empty()) fresh = op->getNumResults();
  for (auto [i, number] : llvm::enumerate(call.mutates)) {
    Value operand = op->getOperand(number), result = op->getResult(fresh + i);
    bool alone = llvm::count_if(op->getOperands(), [&](Value other) {
                   return rootOf(other) == rootOf(operand);
                 }) == 1;
    Value target;
    if (operand.getType() == result.getType() && alone &&
        !slotOf.count(result) && diesHere(operand)) {
      target = refOf(operand);
    } else {
      Value source = refOf(operand);
      if (!source) return failure();
      target = newResult(result, op);
      copy(op, source, target);
    }
    refs[result] = target;
    replaced[operand] = target;
  }

  llvm::SmallVector<Value> reads, writes;
  llvm::SmallVector<mlir::Attribute> args;
  llvm::SmallVector<llvm::StringRef> names;
  // Only the operand numbers in `mutates` are replaced; an operand that occurs
  // twice keeps its old value elsewhere.
  for (graph::AtenArg& arg : call.args) {
    mlir::FailureOr<mlir::Attribute> value = argAttr(op, arg, reads);
    if (failed(value)) return failure();
    args.push_back(*value);
    names.push_back(arg.name);
  }
  for (auto [i, number] : llvm::enumerate(call.mutates))
    reads[number] = refs[op->getResult(fresh + i)];

  llvm::SmallVector<int64_t> slots;
  for (mlir::OpResult result : op->getResults()) {
    bool used = llvm::any_of(result.getUsers(),
                             [&](mlir::Operation* user) {
                               return inSection.contains(user);
                             }) ||
                liveness.lastUse(result) == Liveness::kForever;
    bool inPlace = result.getResultNumber() >= fresh;
    if (mlir::isa<mlir::NoneType>(result.getType()) || (!used && !inPlace)) {
      slots.push_back(-1);
      continue;
    }
    Value target;
    if (inPlace) {
      target = refs[result];
    } else {
      for (auto [i, operand] : llvm::enumerate(op->getOperands())) {
        if (slotOf.count(result) || !mayWriteOver(op, i) || !diesHere(operand))
          continue;
        target = refs[result] = refOf(operand);
        break;
      }
      if (!target) target = newResult(result, op);
    }
    slots.push_back(writes.size());
    writes.push_back(target);
  }
  auto step = builder.create<sched::AtenOp>(
      op->getLoc(), call.name, builder.getArrayAttr(args),
      builder.getStrArrayAttr(names), slots, reads, writes);
  annotate(step, op);
  return success();
}

LogicalResult SectionLowering::lowerKernel(graph::KernelOp op) {
  llvm::SmallVector<Value> reads, writes;
  llvm::SmallVector<std::pair<llvm::StringRef, mlir::Attribute>> args;
  mlir::Attribute operand = sched::OperandAttr::get(op.getContext());
  for (auto [value, name] :
       llvm::zip(op.getInputs(),
                 op.getOperandNames().getAsValueRange<mlir::StringAttr>())) {
    Value ref = refOf(value);
    if (!ref) return failure();
    reads.push_back(ref);
    args.push_back({name, operand});
  }
  for (mlir::NamedAttribute scalar : op.getScalars())
    args.push_back({scalar.getName().getValue(), scalar.getValue()});
  for (auto [result, number] : llvm::zip(op.getResults(), op.getOverwrites())) {
    Value over = number < 0 ? Value() : op.getInputs()[number];
    bool alone = over && llvm::count_if(op.getInputs(), [&](Value other) {
                           return rootOf(other) == rootOf(over);
                         }) == 1;
    if (alone && !slotOf.count(result) && diesHere(over)) {
      writes.push_back(refs[result] = refOf(over));
    } else {
      writes.push_back(newResult(result, op));
    }
  }
  kernel(op, op.getKernel(), args, reads, writes);
  return success();
}

LogicalResult SectionLowering::lowerGuard(graph::GuardOp op) {
  Value ref = refOf(op.getValue());
  if (!ref) return failure();
  mlir::Attribute args[] = {sched::OperandAttr::get(op.getContext()),
                            builder.getDenseI64ArrayAttr(op.getExpected())};
  builder.create<sched::HostOp>(
      op.getLoc(), "guard", builder.getArrayAttr(args),
      builder.getStrArrayAttr({"value", "expected"}), llvm::ArrayRef<int64_t>{},
      mlir::ValueRange{ref}, mlir::ValueRange{});
  return success();
}

LogicalResult SectionLowering::lowerViewUpdate(graph::ViewUpdateOp op) {
  Value base = refOf(op.getBase()), update = refOf(op.getUpdate());
  if (!base || !update) return failure();
  // An update that looks into the base itself would be half overwritten while
  // it is read.
  bool apart = rootOf(op.getUpdate()) != rootOf(op.getBase());
  Value target = base;
  if (apart && diesHere(op.getBase())) {
    refs[op.getResult()] = base;
  } else {
    target = newResult(op.getResult(), op);
    copy(op, base, target);
  }
  auto updateType =
      mlir::cast<mlir::RankedTensorType>(op.getUpdate().getType());
  auto window = mlir::RankedTensorType::get(
      updateType.getShape(),
      mlir::cast<mlir::RankedTensorType>(op.getResult().getType())
          .getElementType(),
      op.getLayout());
  copy(op, update, refInto(builder, op.getLoc(), window, target));
  return success();
}

// aten::copy(self, src): the result has self's shape and dtype and src's
// elements; self's own are not read.
LogicalResult SectionLowering::lowerCopy(mlir::Operation* op) {
  Value source = refOf(op->getOperand(1));
  if (!source) return failure();
  auto type = mlir::cast<mlir::RankedTensorType>(op->getResult(0).getType());
  sched::Geometry from =
      sched::geometryOf(mlir::cast<RefType>(source.getType()));
  if (llvm::ArrayRef<int64_t>(from.sizes) != type.getShape()) {
    size_t missing = type.getRank() - from.sizes.size();
    llvm::SmallVector<int64_t> strides(type.getRank(), 0);
    for (size_t d = 0; d < from.sizes.size(); ++d)
      strides[missing + d] = from.sizes[d] == 1 ? 0 : from.strides[d];
    auto element =
        mlir::cast<RefType>(source.getType()).getTensor().getElementType();
    auto layout = graph::LayoutAttr::get(op->getContext(), strides, from.offset,
                                         from.storageBytes);
    auto expanded =
        mlir::RankedTensorType::get(type.getShape(), element, layout);
    source = refInto(builder, op->getLoc(), expanded, source);
  }
  copy(op, source, newResult(op->getResult(0), op));
  return success();
}

}  // namespace heddle
