// Verifiers of the sched dialect, one function per op, one message per labelled
// rule of SchedOps.td. Invariant: what they accept the plan's reader accepts
// too. A rule added here alone would make the text stricter than the file.
#include <set>

#include "ir/sched/Sched.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSet.h"

namespace heddle::sched {
namespace {

using mlir::failure;
using mlir::LogicalResult;
using mlir::success;
using mlir::Value;

bool isOneOf(llvm::StringRef text,
             std::initializer_list<llvm::StringRef> names) {
  return llvm::is_contained(names, text);
}

int64_t countOperands(mlir::ArrayAttr args) {
  int64_t n = 0;
  for (mlir::Attribute arg : args) {
    if (mlir::isa<OperandAttr>(arg)) ++n;
    if (auto list = mlir::dyn_cast<mlir::ArrayAttr>(arg))
      n += countOperands(list);
  }
  return n;
}

// sched_call_r4
LogicalResult verifyWrites(mlir::Operation* op, mlir::OperandRange writes) {
  for (mlir::Value write : writes) {
    BufferOp buffer = bufferOf(write);
    if (!buffer)
      return op->emitOpError("writes a ref that no sched.value makes");
    if (buffer.getArena() == Arena::Input ||
        buffer.getArena() == Arena::Constant)
      return op->emitOpError("writes into the ")
             << stringifyArena(buffer.getArena()) << " arena (sched_call_r4)";
  }
  return success();
}

template <typename Call>
LogicalResult verifyCall(Call op) {
  int64_t placeholders = countOperands(op.getArgs());
  if (placeholders != static_cast<int64_t>(op.getReads().size()))
    return op.emitOpError("has ")
           << op.getReads().size() << " reads but args name " << placeholders
           << " (sched_call_r1)";
  if (op.getArgs().size() != op.getArgNames().size())
    return op.emitOpError("has ")
           << op.getArgs().size() << " args but " << op.getArgNames().size()
           << " arg_names (sched_call_r2)";
  llvm::SmallVector<int> uses(op.getWrites().size(), 0);
  for (int64_t slot : op.getResultSlots()) {
    if (slot < -1 || slot >= static_cast<int64_t>(uses.size()))
      return op.emitOpError("has result slot ")
             << slot << " but " << uses.size() << " writes (sched_call_r3)";
    if (slot >= 0) ++uses[slot];
  }
  for (auto [i, n] : llvm::enumerate(uses))
    if (n != 1)
      return op.emitOpError("names write ")
             << i << " in " << n << " result slots, expected 1 (sched_call_r3)";
  return verifyWrites(op, op.getWrites());
}

}  // namespace

LogicalResult PlanOp::verifyRegions() {
  if (getStreams().empty()) return emitOpError("has no stream (sched_plan_r1)");
  if (getMeshAxes().size() != getMeshSizes().size() ||
      !llvm::all_of(getMeshSizes(), [](int64_t size) { return size > 0; }))
    return emitOpError("has ")
           << getMeshAxes().size() << " mesh axes and " << getMeshSizes().size()
           << " sizes (sched_plan_r4)";
  llvm::StringSet<> streams;
  for (auto name : getStreams().getAsValueRange<mlir::StringAttr>())
    if (!streams.insert(name).second)
      return emitOpError("names stream '") << name << "' twice (sched_plan_r1)";
  llvm::StringMap<SectionOp> sections;
  for (mlir::Operation& op : getBody().front()) {
    if (auto section = mlir::dyn_cast<SectionOp>(op)) {
      llvm::StringRef name = section.getName();
      if (!isOneOf(name, {"prologue", "micro_first", "micro_next", "boundary",
                          "evaluate", "replay"}))
        return section.emitOpError("has unknown name '")
               << name << "' (sched_plan_r2)";
      auto [it, fresh] = sections.try_emplace(name, section);
      if (!fresh) {
        auto error = section.emitOpError("is a second section '")
                     << name << "' (sched_plan_r2)";
        error.attachNote(it->second.getLoc()) << "first one here";
        return error;
      }
    } else if (!mlir::isa<BufferOp, ValueOp, InputOp, StateOp, ConstantOp>(
                   op)) {
      return op.emitOpError(
          "does not belong directly in a plan (sched_plan_r3)");
    }
  }
  return success();
}

LogicalResult BufferOp::verify() {
  if (static_cast<int64_t>(getBytes()) < 0)
    return emitOpError("has ")
           << static_cast<int64_t>(getBytes()) << " bytes (sched_buffer_r1)";
  if (std::optional<uint64_t> offset = getOffset()) {
    int64_t at = static_cast<int64_t>(*offset);
    if (at < 0 || at % kAlignment != 0)
      return emitOpError("is placed at ") << at << ", expected a multiple of "
                                          << kAlignment << " (sched_buffer_r2)";
  }
  bool inSection = mlir::isa_and_nonnull<SectionOp>((*this)->getParentOp());
  if (inSection != (getArena() == Arena::Scratch))
    return emitOpError("of arena ")
           << stringifyArena(getArena()) << " lies "
           << (inSection ? "in a section" : "outside of a section")
           << " (sched_buffer_r3)";
  return success();
}

LogicalResult ValueOp::verify() {
  auto buffer = getBuffer().getDefiningOp<BufferOp>();
  if (!buffer) return emitOpError("views a buffer that no sched.buffer makes");
  Geometry g = geometryOf(mlir::cast<RefType>(getResult().getType()));
  if (g.elementBytes == 0)
    return emitOpError("has an element type that no tensor may have");
  if (g.sizes.size() != g.strides.size())
    return emitOpError("has ")
           << g.sizes.size() << " sizes but " << g.strides.size() << " strides";
  for (int64_t stride : g.strides)
    if (stride < 0)
      return emitOpError("has the negative stride ")
             << stride << " (sched_value_r1)";
  if (static_cast<int64_t>(getBase()) < 0 ||
      static_cast<int64_t>(getRankStride()) < 0)
    return emitOpError("has a negative base or rank_stride (sched_value_r2)");
  int64_t ranks = 1;
  for (int64_t size : (*this)->getParentOfType<PlanOp>().getMeshSizes())
    ranks *= size;
  for (llvm::ArrayRef<int64_t> table : {getRankOffsets(), getRankSizes()})
    if (!table.empty() && static_cast<int64_t>(table.size()) != ranks)
      return emitOpError("has a table of ")
             << table.size() << " entries for " << ranks
             << " ranks (sched_value_r3)";
  for (int64_t size : getRankSizes())
    if (size < 0 || g.sizes.size() != 1 || size > g.sizes[0])
      return emitOpError("has ")
             << size << " elements on a rank of a value of "
             << getResult().getType() << " (sched_value_r3)";
  int64_t bytes = extentOf(getResult()).end;
  if (g.offset < 0 ||
      (g.elements() > 0 && bytes > static_cast<int64_t>(buffer.getBytes()))) {
    auto error = emitOpError("reaches byte ")
                 << bytes << " of a buffer of " << buffer.getBytes()
                 << " bytes (sched_value_r1)";
    error.attachNote(buffer.getLoc()) << "buffer named here";
    return error;
  }
  return success();
}

LogicalResult StateOp::verify() {
  if (!isOneOf(getKind(), {"parameter", "master", "buffer", "exp_avg",
                           "exp_avg_sq", "momentum", "accumulator", "scaler"}))
    return emitOpError("has unknown kind '")
           << getKind() << "' (sched_state_r1)";
  BufferOp buffer = bufferOf(getValue());
  if (!buffer || buffer.getArena() != Arena::State)
    return emitOpError(
        "binds a value outside the state arena (sched_state_r2)");
  if (getBounds().empty()) return success();
  auto whole = getWhole() ? mlir::dyn_cast<mlir::RankedTensorType>(*getWhole())
                          : mlir::RankedTensorType();
  int64_t ranks = 1;
  for (int64_t size : (*this)->getParentOfType<PlanOp>().getMeshSizes())
    ranks *= size;
  if (!whole || static_cast<int64_t>(getBounds().size()) != ranks + 1 ||
      !llvm::is_sorted(getBounds()))
    return emitOpError("is a shard with ")
           << getBounds().size() << " bounds for " << ranks
           << " ranks (sched_state_r3)";
  return success();
}

LogicalResult ConstantOp::verify() {
  Geometry g = geometryOf(mlir::cast<RefType>(getValue().getType()));
  int64_t bytes = g.elements() * g.elementBytes;
  if (static_cast<int64_t>(getData().size()) != bytes)
    return emitOpError("has ")
           << getData().size() << " bytes of data for a value of " << bytes
           << " bytes (sched_constant_r1)";
  return success();
}

LogicalResult ResultOp::verify() {
  if (!isOneOf(getKind(), {"loss", "gradient", "output", "new_value"}))
    return emitOpError("has unknown kind '")
           << getKind() << "' (sched_result_r1)";
  return success();
}

LogicalResult SectionOp::verifyRegions() {
  int64_t streams = (*this)->getParentOfType<PlanOp>().getStreams().size();
  int64_t events = getEvents();
  llvm::DenseMap<int64_t, mlir::Operation*> signalled;
  for (mlir::Operation& op : getBody().front()) {
    if (auto buffer = mlir::dyn_cast<BufferOp>(op)) {
      std::optional<uint64_t> offset = buffer.getOffset(),
                              limit = getScratchBytes();
      if (offset && limit && *offset + buffer.getBytes() > *limit)
        return buffer.emitOpError("ends at byte ")
               << *offset + buffer.getBytes() << " of " << *limit
               << " scratch bytes (sched_section_r5)";
      continue;
    }
    if (mlir::isa<ValueOp, ResultOp>(op)) continue;
    auto step = mlir::dyn_cast<StepInterface>(op);
    if (!step)
      return op.emitOpError("does not belong in a section (sched_section_r1)");
    if (static_cast<int64_t>(step.getStream()) >= streams)
      return op.emitOpError("runs on stream ")
             << step.getStream() << " of " << streams << " (sched_section_r2)";
    for (int64_t event : step.getWaits())
      if (!signalled.contains(event))
        return op.emitOpError("waits for event ")
               << event << ", which no earlier step signals (sched_section_r4)";
    if (std::optional<uint64_t> signal = step.getSignal()) {
      int64_t event = *signal;
      if (event < 0 || event >= events)
        return op.emitOpError("signals event ")
               << event << " of " << events << " (sched_section_r3)";
      auto [it, fresh] = signalled.try_emplace(event, &op);
      if (!fresh) {
        auto error = op.emitOpError("signals event ")
                     << event << " a second time (sched_section_r3)";
        error.attachNote(it->second->getLoc()) << "first signalled here";
        return error;
      }
    }
  }
  return success();
}

LogicalResult CollectiveOp::verify() {
  auto element = [](Value ref) {
    return mlir::cast<RefType>(ref.getType()).getTensor().getElementType();
  };
  bool known = isOneOf(
      getCallee(), {"all_gather", "reduce_scatter", "all_reduce", "broadcast"});
  if (!known || getReads().size() != 1 || getWrites().size() != 1 ||
      element(getReads()[0]) != element(getWrites()[0]) ||
      !geometryOf(mlir::cast<RefType>(getReads()[0].getType())).dense() ||
      !geometryOf(mlir::cast<RefType>(getWrites()[0].getType())).dense())
    return emitOpError("is no collective '")
           << getCallee()
           << "' from one dense value to another (sched_collective_r1)";
  return verifyCall(*this);
}
LogicalResult AtenOp::verify() { return verifyCall(*this); }
LogicalResult KernelOp::verify() { return verifyCall(*this); }
LogicalResult HostOp::verify() { return verifyCall(*this); }

LogicalResult GemmOp::verify() {
  size_t reads = getReads().size();
  if ((reads != 2 && reads != 3) || getWrites().size() != 1 ||
      (reads == 3 && getReads()[2] != getWrites()[0]))
    return emitOpError("has ")
           << reads << " reads and " << getWrites().size()
           << " writes, expected a, b, where it adds also the one write "
              "(sched_gemm_r1)";
  auto tensorOf = [](mlir::Value ref) {
    return mlir::cast<RefType>(ref.getType()).getTensor();
  };
  auto a = tensorOf(getReads()[0]), b = tensorOf(getReads()[1]),
       out = tensorOf(getWrites()[0]);
  if (a.getRank() != 2 || b.getRank() != 2 || out.getRank() != 2 ||
      a.getDimSize(1) != b.getDimSize(0) ||
      out.getDimSize(0) != a.getDimSize(0) ||
      out.getDimSize(1) != b.getDimSize(1))
    return emitOpError("multiplies ")
           << a << " and " << b << " into " << out << " (sched_gemm_r2)";
  mlir::Type element = a.getElementType();
  if (element != b.getElementType() || !out.getElementType().isF32() ||
      !(element.isBF16() || element.isF16() || element.isF32()))
    return emitOpError("multiplies ")
           << a << " and " << b << " into " << out << " (sched_gemm_r3)";
  for (mlir::RankedTensorType matrix : {a, b, out}) {
    if (!isMatrix(geometryOf(matrix)))
      return emitOpError("has the matrix ")
             << matrix << ", whose rows and columns are both apart "
             << "(sched_gemm_r4)";
  }
  return verifyWrites(*this, getWrites());
}

LogicalResult CopyOp::verify() {
  if (getReads().size() != 1 || getWrites().size() != 1)
    return emitOpError("has ")
           << getReads().size() << " reads and " << getWrites().size()
           << " writes, expected one each (sched_copy_r1)";
  auto from = mlir::cast<RefType>(getReads()[0].getType()).getTensor(),
       to = mlir::cast<RefType>(getWrites()[0].getType()).getTensor();
  if (from.getShape() != to.getShape())
    return emitOpError("copies ")
           << from << " to " << to << ", whose sizes differ (sched_copy_r1)";
  return verifyWrites(*this, getWrites());
}

}  // namespace heddle::sched
