// One walk over the plan op: buffers and values get their indices where they
// are named, steps refer to them. Invariant: indices follow program order, so
// equal IR gives equal bytes. Anything that ordered by pointer would break
// that.
#include "passes/emit/emit.h"

#include <map>

#include "llvm/ADT/TypeSwitch.h"
#include "mlir/IR/BuiltinOps.h"
#include "runtime/plan/plan.h"
#include "runtime/plan/verify.h"

namespace heddle {
namespace {

using mlir::Attribute;
using mlir::failure;
using mlir::FailureOr;
using mlir::LogicalResult;
using mlir::success;

std::optional<plan::DType> dtypeOf(mlir::Type type) {
  if (type.isUnsignedInteger(8)) return plan::DType::kU8;
  if (auto integer = mlir::dyn_cast<mlir::IntegerType>(type)) {
    if (!integer.isSignless() && !integer.isSigned()) return std::nullopt;
    switch (integer.getWidth()) {
      case 1:
        return plan::DType::kBool;
      case 8:
        return plan::DType::kI8;
      case 16:
        return plan::DType::kI16;
      case 32:
        return plan::DType::kI32;
      case 64:
        return plan::DType::kI64;
      default:
        return std::nullopt;
    }
  }
  if (type.isF16()) return plan::DType::kF16;
  if (type.isBF16()) return plan::DType::kBF16;
  if (type.isF32()) return plan::DType::kF32;
  if (type.isF64()) return plan::DType::kF64;
  if (type.isFloat8E4M3FN()) return plan::DType::kF8E4M3FN;
  if (type.isFloat8E5M2()) return plan::DType::kF8E5M2;
  if (auto complexType = mlir::dyn_cast<mlir::ComplexType>(type))
    return complexType.getElementType().isF32() ? plan::DType::kC64
                                                : plan::DType::kC128;
  return std::nullopt;
}

// Module path and "file:line" of a location: NameLoc around FileLineCol, either
// part may be missing.
plan::Location locationOf(mlir::Location loc) {
  plan::Location result;
  if (auto name = mlir::dyn_cast<mlir::NameLoc>(loc)) {
    result.path = name.getName().str();
    loc = name.getChildLoc();
  }
  if (auto file = mlir::dyn_cast<mlir::FileLineColLoc>(loc))
    result.source =
        file.getFilename().str() + ":" + std::to_string(file.getLine());
  return result;
}

// Names of a gemm step's arguments; the last one only where it adds.
constexpr const char* kGemmArgs[] = {"a", "b", "c"};

class Emitter {
 public:
  FailureOr<plan::Plan> emit(sched::PlanOp op) {
    out.target = op.getTarget().str();
    out.precision = op.getPrecision().str();
    out.mode = op.getMode().str();
    out.torch_version = op.getTorchVersion().str();
    out.config = op.getConfig().str();
    for (llvm::StringRef stream :
         op.getStreams().getAsValueRange<mlir::StringAttr>())
      out.streams.push_back(stream.str());
    for (auto [axis, size] :
         llvm::zip(op.getMeshAxes().getAsValueRange<mlir::StringAttr>(),
                   op.getMeshSizes()))
      out.mesh.push_back({axis.str(), static_cast<uint32_t>(size)});
    out.locations.emplace_back();
    locations[{"", ""}] = 0;
    for (mlir::Operation& each : op.getBody().front())
      if (failed(emitOp(&each))) return failure();
    out.layout_hash = layoutHash();
    return std::move(out);
  }

 private:
  LogicalResult emitOp(mlir::Operation* op) {
    return llvm::TypeSwitch<mlir::Operation*, LogicalResult>(op)
        .Case([&](sched::BufferOp buffer) { return emitBuffer(buffer); })
        .Case([&](sched::ValueOp value) { return emitValue(value); })
        .Case([&](sched::InputOp input) {
          out.inputs.push_back({"input", input.getName().str(),
                                values.lookup(input.getValue())});
          return success();
        })
        .Case([&](sched::StateOp state) {
          plan::StateEntry entry;
          entry.kind = state.getKind().str();
          for (llvm::StringRef name :
               state.getNames().getAsValueRange<mlir::StringAttr>())
            entry.names.push_back(name.str());
          entry.value = values.lookup(state.getValue());
          entry.trainable = state.getTrainable();
          entry.persistent = state.getPersistent();
          entry.role = state.getRole().str();
          entry.initial = state.getInitial().convertToDouble();
          if (!state.getBounds().empty()) {
            sched::Geometry g = sched::geometryOf(
                mlir::cast<mlir::RankedTensorType>(*state.getWhole()));
            entry.sizes.assign(g.sizes.begin(), g.sizes.end());
            entry.strides.assign(g.strides.begin(), g.strides.end());
            entry.slot_offset = state.getSlotOffset();
            entry.bounds.assign(state.getBounds().begin(),
                                state.getBounds().end());
          }
          out.state.push_back(std::move(entry));
          return success();
        })
        .Case([&](sched::ConstantOp constant) {
          llvm::StringRef data = constant.getData();
          out.constants.push_back(
              {constant.getName().str(), values.lookup(constant.getValue()),
               std::vector<uint8_t>(data.bytes_begin(), data.bytes_end())});
          return success();
        })
        .Case([&](sched::SectionOp section) { return emitSection(section); })
        .Default([](mlir::Operation* other) -> LogicalResult {
          return other->emitOpError("cannot be written into a plan");
        });
  }

  LogicalResult emitBuffer(sched::BufferOp op) {
    if (!op.getOffset())
      return op.emitOpError(
          "has no offset; run sched-plan-memory before emitting");
    buffers[op.getResult()] = out.buffers.size();
    out.buffers.push_back({static_cast<plan::Arena>(op.getArena()),
                           static_cast<plan::Space>(op.getSpace()),
                           static_cast<plan::Category>(op.getCategory()),
                           *op.getOffset(), op.getBytes(),
                           op.getLabel().value_or("").str()});
    uint64_t end = sched::alignUp(*op.getOffset() + op.getBytes());
    if (op.getArena() == sched::Arena::State)
      out.state_bytes = std::max(out.state_bytes, end);
    if (op.getArena() == sched::Arena::Constant)
      out.constant_bytes = std::max(out.constant_bytes, end);
    return success();
  }

  LogicalResult emitValue(sched::ValueOp op) {
    auto type =
        mlir::cast<sched::RefType>(op.getResult().getType()).getTensor();
    std::optional<plan::DType> dtype = dtypeOf(type.getElementType());
    if (!dtype)
      return op.emitOpError("has element type ")
             << type.getElementType() << ", which plans do not know";
    sched::Geometry g = sched::geometryOf(type);
    values[op.getResult()] = out.values.size();
    plan::Value value;
    value.buffer = buffers.lookup(op.getBuffer());
    value.dtype = *dtype;
    value.sizes.assign(g.sizes.begin(), g.sizes.end());
    value.strides.assign(g.strides.begin(), g.strides.end());
    value.offset = g.offset + static_cast<int64_t>(op.getBase());
    value.rank_stride = op.getRankStride();
    value.rank_offsets.assign(op.getRankOffsets().begin(),
                              op.getRankOffsets().end());
    value.rank_sizes.assign(op.getRankSizes().begin(), op.getRankSizes().end());
    out.values.push_back(std::move(value));
    return success();
  }

  LogicalResult emitSection(sched::SectionOp section) {
    plan::Section result;
    result.name = section.getName().str();
    result.events = section.getEvents();
    result.scratch_bytes = section.getScratchBytes().value_or(0);
    result.live_lower_bound = section.getLiveLowerBound().value_or(0);
    for (mlir::Operation& op : section.getBody().front()) {
      if (auto step = mlir::dyn_cast<sched::StepInterface>(op)) {
        if (failed(emitStep(step, result))) return failure();
      } else if (auto binding = mlir::dyn_cast<sched::ResultOp>(op)) {
        result.results.push_back({binding.getKind().str(),
                                  binding.getName().str(),
                                  values.lookup(binding.getValue())});
      } else if (failed(emitOp(&op))) {
        return failure();
      }
    }
    out.sections.push_back(std::move(result));
    return success();
  }

  LogicalResult emitStep(sched::StepInterface op, plan::Section& section) {
    plan::Step step;
    step.stream = op.getStream();
    step.waits.assign(op.getWaits().begin(), op.getWaits().end());
    if (op.getSignal()) step.signal = *op.getSignal();
    step.location = locationIndex(op->getLoc());
    for (mlir::Value ref : op->getOperands()) {
      sched::Geometry g =
          sched::geometryOf(mlir::cast<sched::RefType>(ref.getType()));
      step.bytes += g.elements() * g.elementBytes;
    }
    auto common = [&](auto typed) {
      step.rng_id =
          typed.getRngId() ? static_cast<int32_t>(*typed.getRngId()) : -1;
      step.phase = typed.getPhase();
      step.flops = typed.getFlops();
    };
    auto call = [&](auto typed, plan::StepKind kind) -> LogicalResult {
      common(typed);
      step.kind = kind;
      step.name = typed.getCallee().str();
      auto next = typed.getReads().begin();
      for (auto [attr, name] :
           llvm::zip(typed.getArgs(),
                     typed.getArgNames()
                         .template getAsValueRange<mlir::StringAttr>())) {
        FailureOr<plan::Arg> arg = argOf(op, attr, next);
        if (failed(arg)) return failure();
        arg->name = name.str();
        step.args.push_back(std::move(*arg));
      }
      for (int64_t slot : typed.getResultSlots())
        step.results.push_back(slot < 0 ? -1
                                        : static_cast<int32_t>(values.lookup(
                                              typed.getWrites()[slot])));
      return success();
    };
    LogicalResult done =
        llvm::TypeSwitch<mlir::Operation*, LogicalResult>(op)
            .Case([&](sched::AtenOp typed) {
              return call(typed, plan::StepKind::kAten);
            })
            .Case([&](sched::KernelOp typed) {
              return call(typed, plan::StepKind::kKernel);
            })
            .Case([&](sched::HostOp typed) {
              return call(typed, plan::StepKind::kHost);
            })
            .Case([&](sched::CollectiveOp typed) {
              return call(typed, plan::StepKind::kCollective);
            })
            .Case([&](sched::GemmOp typed) {
              common(typed);
              step.kind = plan::StepKind::kGemm;
              step.name = "gemm";
              for (auto [read, name] : llvm::zip(typed.getReads(), kGemmArgs)) {
                plan::Arg arg;
                arg.kind = plan::ArgKind::kValue;
                arg.i = values.lookup(read);
                arg.name = name;
                step.args.push_back(std::move(arg));
              }
              step.results.push_back(values.lookup(typed.getWrites()[0]));
              return success();
            })
            .Case([&](sched::CopyOp typed) {
              common(typed);
              step.kind = plan::StepKind::kCopy;
              step.name = "copy";
              plan::Arg source;
              source.kind = plan::ArgKind::kValue;
              source.i = values.lookup(typed.getReads()[0]);
              source.name = "src";
              step.args.push_back(std::move(source));
              step.results.push_back(values.lookup(typed.getWrites()[0]));
              return success();
            })
            .Default([](mlir::Operation* other) -> LogicalResult {
              return other->emitOpError(
                  "is a step kind that plans do not have");
            });
    section.steps.push_back(std::move(step));
    return done;
  }

  template <typename Iterator>
  FailureOr<plan::Arg> argOf(mlir::Operation* op, Attribute attr,
                             Iterator& next) {
    plan::Arg arg;
    bool known =
        llvm::TypeSwitch<Attribute, bool>(attr)
            .Case([&](mlir::UnitAttr) { return true; })
            .Case([&](sched::OperandAttr) {
              arg.kind = plan::ArgKind::kValue;
              arg.i = values.lookup(*next++);
              return true;
            })
            .Case([&](mlir::ArrayAttr list) {
              arg.kind = plan::ArgKind::kValueList;
              for (Attribute entry : list)
                arg.ints.push_back(
                    mlir::isa<sched::OperandAttr>(entry)
                        ? static_cast<int64_t>(values.lookup(*next++))
                        : -1);
              return llvm::all_of(list, [](Attribute entry) {
                return mlir::isa<sched::OperandAttr, mlir::UnitAttr>(entry);
              });
            })
            .Case([&](mlir::BoolAttr value) {
              arg.kind = plan::ArgKind::kBool;
              arg.i = value.getValue();
              return true;
            })
            .Case([&](mlir::IntegerAttr value) {
              arg.kind = plan::ArgKind::kInt;
              arg.i = value.getInt();
              return true;
            })
            .Case([&](mlir::FloatAttr value) {
              arg.kind = plan::ArgKind::kFloat;
              arg.f = value.getValueAsDouble();
              return true;
            })
            .Case([&](mlir::StringAttr value) {
              arg.kind = plan::ArgKind::kString;
              arg.s = value.str();
              return true;
            })
            .Case([&](mlir::DenseI64ArrayAttr list) {
              arg.kind = plan::ArgKind::kIntList;
              arg.ints.assign(list.asArrayRef().begin(),
                              list.asArrayRef().end());
              return true;
            })
            .Case([&](mlir::DenseF64ArrayAttr list) {
              arg.kind = plan::ArgKind::kFloatList;
              arg.floats.assign(list.asArrayRef().begin(),
                                list.asArrayRef().end());
              return true;
            })
            .Case([&](mlir::DenseBoolArrayAttr list) {
              arg.kind = plan::ArgKind::kBoolList;
              arg.ints.assign(list.asArrayRef().begin(),
                              list.asArrayRef().end());
              return true;
            })
            .Case([&](mlir::TypeAttr type) {
              std::optional<plan::DType> dtype = dtypeOf(type.getValue());
              arg.kind = plan::ArgKind::kDType;
              arg.i = dtype ? static_cast<int64_t>(*dtype) : 0;
              return dtype.has_value();
            })
            .Case([&](sched::DeviceAttr) {
              arg.kind = plan::ArgKind::kDevice;
              return true;
            })
            .Case([&](sched::LayoutNameAttr name) {
              arg.kind = plan::ArgKind::kLayout;
              arg.s = name.getValue().str();
              return true;
            })
            .Case([&](sched::MemoryFormatAttr name) {
              arg.kind = plan::ArgKind::kMemoryFormat;
              arg.s = name.getValue().str();
              return true;
            })
            .Case([&](sched::RuntimeAttr name) {
              arg.kind = plan::ArgKind::kRuntime;
              arg.s = name.getValue().str();
              return true;
            })
            .Default([](Attribute) { return false; });
    if (!known)
      return op->emitOpError("has argument ")
             << attr << ", which plans cannot hold";
    return arg;
  }

  uint32_t locationIndex(mlir::Location loc) {
    plan::Location location = locationOf(loc);
    auto [it, fresh] = locations.try_emplace({location.path, location.source},
                                             out.locations.size());
    if (fresh) out.locations.push_back(std::move(location));
    return it->second;
  }

  // FNV-1a over what decides where each state tensor lies.
  uint64_t layoutHash() const {
    uint64_t hash = 14695981039346656037ull;
    auto mix = [&](const std::string& text) {
      for (unsigned char c : text + '\n') hash = (hash ^ c) * 1099511628211ull;
    };
    for (const plan::StateEntry& entry : out.state) {
      const plan::Value& value = out.values[entry.value];
      mix(entry.kind);
      for (const std::string& name : entry.names) mix(name);
      mix(std::to_string(static_cast<int>(value.dtype)));
      for (int64_t size : value.sizes) mix(std::to_string(size));
      for (int64_t stride : value.strides) mix(std::to_string(stride));
      mix(std::to_string(out.buffers[value.buffer].offset));
      mix(std::to_string(value.offset));
      for (int64_t bound : entry.bounds) mix(std::to_string(bound));
      if (!entry.bounds.empty()) mix(std::to_string(entry.slot_offset));
    }
    return hash;
  }

  plan::Plan out;
  llvm::DenseMap<mlir::Value, uint32_t> buffers;
  llvm::DenseMap<mlir::Value, uint32_t> values;
  std::map<std::pair<std::string, std::string>, uint32_t> locations;
};

}  // namespace

std::string signatureOf(sched::StepInterface step) {
  llvm::ArrayRef<int64_t> slots;
  std::string text = llvm::TypeSwitch<mlir::Operation*, std::string>(step)
                         .Case<sched::AtenOp, sched::KernelOp, sched::HostOp,
                               sched::CollectiveOp>([&](auto call) {
                           slots = call.getResultSlots();
                           return call.getCallee().str();
                         })
                         .Case([](sched::GemmOp) { return "gemm"; })
                         .Default([](mlir::Operation*) { return "copy"; });
  bool known = true;
  auto add = [&](mlir::Value ref) {
    auto type = mlir::cast<sched::RefType>(ref.getType()).getTensor();
    std::optional<plan::DType> dtype = dtypeOf(type.getElementType());
    known &= dtype.has_value();
    if (!known) return;
    text += std::string(" ") + plan::DTypeName(*dtype) + "[";
    for (auto [d, size] : llvm::enumerate(type.getShape()))
      text += (d ? "," : "") + std::to_string(size);
    text += "]";
  };
  for (mlir::Value read : step.getReads()) add(read);
  text += " ->";
  if (mlir::isa<sched::GemmOp, sched::CopyOp>(step.getOperation())) {
    add(step.getWrites()[0]);
  } else {
    for (int64_t slot : slots)
      if (slot >= 0) add(step.getWrites()[slot]);
  }
  return known ? text : "";
}

FailureOr<std::vector<uint8_t>> emitPlan(sched::PlanOp op) {
  FailureOr<plan::Plan> plan = Emitter().emit(op);
  if (failed(plan)) return failure();
  std::vector<uint8_t> bytes = plan::Serialize(*plan);
  absl::StatusOr<plan::Plan> parsed =
      plan::ParsePlan(bytes.data(), bytes.size());
  absl::Status status = parsed.ok() ? plan::Verify(*parsed) : parsed.status();
  if (!status.ok())
    return op.emitOpError("was written as a plan that the reader refuses: ")
           << std::string(status.message());
  return bytes;
}

}  // namespace heddle
