// Binds step arguments by role. Invariant: bindings are written in argument
// order, so that the state arena's layout follows the program. Reordering them
// changes the layout hash and with it which plans may share state.
#include "passes/schedule/plan_lowering.h"

#include <cstring>

#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/ADT/TypeSwitch.h"

namespace heddle {

using mlir::failure;
using mlir::LogicalResult;
using mlir::success;
using mlir::Value;

namespace {

std::string safetensorsName(mlir::Type type) {
  if (type.isInteger(1)) return "BOOL";
  if (type.isUnsignedInteger(8)) return "U8";
  if (auto integer = mlir::dyn_cast<mlir::IntegerType>(type))
    return "I" + std::to_string(integer.getWidth());
  if (type.isBF16()) return "BF16";
  if (type.isF16()) return "F16";
  if (type.isF32()) return "F32";
  if (type.isF64()) return "F64";
  if (type.isFloat8E4M3FN()) return "F8_E4M3";
  if (type.isFloat8E5M2()) return "F8_E5M2";
  if (auto complexType = mlir::dyn_cast<mlir::ComplexType>(type))
    return complexType.getElementType().isF32() ? "C64" : "C128";
  return "?";
}

// The bytes of `tensor` as f64 elements; "" where its dtype is no narrower
// float.
std::string raised(const SidecarTensor& tensor) {
  const llvm::fltSemantics* semantics =
      tensor.dtype == "F32"    ? &llvm::APFloat::IEEEsingle()
      : tensor.dtype == "F16"  ? &llvm::APFloat::IEEEhalf()
      : tensor.dtype == "BF16" ? &llvm::APFloat::BFloat()
                               : nullptr;
  std::string result;
  if (!semantics) return result;
  unsigned bits = llvm::APFloat::getSizeInBits(*semantics);
  for (size_t at = 0; at < tensor.data.size(); at += bits / 8) {
    uint64_t raw = 0;
    std::memcpy(&raw, tensor.data.data() + at, bits / 8);
    double value =
        llvm::APFloat(*semantics, llvm::APInt(bits, raw)).convertToDouble();
    result.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return result;
}

sched::Category categoryOf(llvm::StringRef kind) {
  return llvm::StringSwitch<sched::Category>(kind)
      .Case("parameter", sched::Category::Parameter)
      .Case("accumulator", sched::Category::Accumulator)
      .Case("master", sched::Category::Master)
      .Default(sched::Category::Optimizer);
}

}  // namespace

PlanLowering::PlanLowering(sched::PlanOp plan)
    : plan(plan),
      builder(mlir::OpBuilder::atBlockEnd(&plan.getBody().front())) {}

sched::SectionOp PlanLowering::addSection(mlir::Location loc,
                                          llvm::StringRef name) {
  auto section = builder.create<sched::SectionOp>(
      loc, builder.getStringAttr(name), builder.getI64IntegerAttr(0),
      mlir::IntegerAttr(), mlir::IntegerAttr());
  section.getBody().emplaceBlock();
  return section;
}

Value PlanLowering::stateOf(llvm::StringRef kind, llvm::StringRef name) const {
  auto it = byKey.find((kind + " " + name).str());
  return it == byKey.end() ? Value() : it->second;
}

LogicalResult PlanLowering::bind(graph::StepOp step, const Sidecar& sidecar,
                                 llvm::StringRef scope) {
  measureArenas(step);
  // Parameters first: the names of state are its parameter's.
  for (mlir::Attribute role : step.getArgRoles())
    if (auto param = mlir::dyn_cast<graph::ParamAttr>(role))
      parameterNames[param.getName().str()] = param.getNames();
  for (auto [argument, role] :
       llvm::zip(step.getBody().getArguments(), step.getArgRoles()))
    if (failed(bindOne(step, argument, role, sidecar, scope))) return failure();
  return success();
}

mlir::FailureOr<Value> PlanLowering::shared(
    mlir::BlockArgument argument, const std::string& key, sched::Arena arena,
    sched::Category category, llvm::StringRef label, bool& fresh) {
  Value& ref = byKey[key];
  fresh = !ref;
  auto type = mlir::cast<mlir::RankedTensorType>(argument.getType());
  if (fresh) {
    ref = makeBuffer(builder, argument.getLoc(), type, arena, category, label);
  } else if (mlir::cast<sched::RefType>(ref.getType()).getTensor() != type) {
    mlir::emitError(argument.getLoc(), "'")
        << key << "' has type " << type << " here but "
        << mlir::cast<sched::RefType>(ref.getType()).getTensor()
        << " in the training program; capture both with the same batch shapes "
           "and dtypes";
    return failure();
  }
  refs[argument] = ref;
  return ref;
}

LogicalResult PlanLowering::addData(mlir::BlockArgument argument,
                                    llvm::StringRef name, Value ref,
                                    const Sidecar& sidecar) {
  auto type = mlir::cast<mlir::RankedTensorType>(argument.getType());
  auto it = sidecar.find(name.str());
  if (it == sidecar.end())
    return mlir::emitError(argument.getLoc(), "'")
           << name
           << "' has no data: the sidecar (step.safetensors beside step.mlir) "
              "does not hold it; capture again or name its file";
  SidecarTensor tensor = it->second;
  // An fp64 program's constants were recorded as the model made them.
  if (type.getElementType().isF64() && tensor.dtype != "F64") {
    if (std::string data = raised(tensor); !data.empty())
      tensor = {"F64", tensor.shape, std::move(data)};
  }
  if (llvm::ArrayRef<int64_t>(tensor.shape) != type.getShape() ||
      tensor.dtype != safetensorsName(type.getElementType()))
    return mlir::emitError(argument.getLoc(), "'")
           << name << "' is " << type << " in the program but " << tensor.dtype
           << "["
           << llvm::join(
                  llvm::map_range(tensor.shape,
                                  [](int64_t d) { return std::to_string(d); }),
                  ",")
           << "] in the sidecar; both must come from one capture";
  sched::Geometry g = sched::geometryOf(type);
  if (!g.dense() || g.offset != 0 || type.getEncoding())
    return mlir::emitError(argument.getLoc(), "'")
           << name << "' is a constant that is not row-major: " << type;
  builder.create<sched::ConstantOp>(
      argument.getLoc(), name,
      builder.getStringAttr(llvm::StringRef(tensor.data)), ref);
  return success();
}

// A bucket's ref in the range of bytes that it shares with others. The range is
// made once all its buckets are known, from the step's own roles.
Value PlanLowering::placeInArena(mlir::BlockArgument argument,
                                 dist::BucketAttr bucket) {
  auto type = mlir::cast<mlir::RankedTensorType>(argument.getType());
  std::string key =
      (bucket.getKind().getValue() + " " + bucket.getArena().getValue()).str();
  Value& range = arenas[key];
  if (!range)
    range =
        makeBuffer(builder, argument.getLoc(),
                   mlir::RankedTensorType::get({arenaElements[key]},
                                               type.getElementType()),
                   sched::Arena::State, categoryOf(bucket.getKind().getValue()),
                   bucket.getArena().getValue());
  Window window;
  if (bucket.getBounds().empty()) {
    window.offset = bucket.getStarts()[0];
  } else {
    window = partOf(bucket.getBounds().asArrayRef(), 0);
    window.rankOffsets.assign(bucket.getStarts().asArrayRef().begin(),
                              bucket.getStarts().asArrayRef().end());
  }
  return refInto(builder, argument.getLoc(), type, range, window);
}

// How long the ranges are that buckets share.
void PlanLowering::measureArenas(graph::StepOp step) {
  for (mlir::Attribute role : step.getArgRoles()) {
    auto bucket = mlir::dyn_cast<dist::BucketAttr>(role);
    if (!bucket || bucket.getArena().empty()) continue;
    int64_t end = 0;
    llvm::ArrayRef<int64_t> bounds = bucket.getBounds(),
                            starts = bucket.getStarts();
    if (bounds.empty()) {
      for (auto member : bucket.getMembers().getAsRange<dist::MemberAttr>())
        end = std::max(end, starts[0] + member.getOffset() +
                                mlir::cast<mlir::RankedTensorType>(
                                    member.getType().getValue())
                                    .getNumElements());
    }
    for (size_t r = 0; r + 1 < bounds.size(); ++r)
      end = std::max(end, starts[r] + bounds[r + 1] - bounds[r]);
    int64_t& length = arenaElements[(bucket.getKind().getValue() + " " +
                                     bucket.getArena().getValue())
                                        .str()];
    // Slots' alignment behind the last one too: a bucket is that long.
    length = std::max(length, (end + dist::kSlotAlignment - 1) /
                                  dist::kSlotAlignment * dist::kSlotAlignment);
  }
}

// One state entry per tensor of a bucket: a window on the whole bucket, or the
// shard together with what the tensor is of the bucket.
void PlanLowering::bindMembers(dist::BucketAttr bucket, Value ref) {
  llvm::StringRef kind = bucket.getKind().getValue();
  llvm::ArrayRef<int64_t> bounds = bucket.getBounds();
  for (auto member : bucket.getMembers().getAsRange<dist::MemberAttr>()) {
    auto type = mlir::cast<mlir::RankedTensorType>(member.getType().getValue());
    Value value = bounds.empty() ? refInto(builder, ref.getLoc(), type, ref,
                                           {member.getOffset()})
                                 : ref;
    bool isParameter = kind == "parameter";
    auto state = builder.create<sched::StateOp>(
        ref.getLoc(), kind, member.getNames(), value,
        isParameter ? member.getTrainable().getValue() : true,
        kind != "accumulator",
        isParameter ? member.getRole().getValue() : kind);
    if (bounds.empty()) continue;
    state.setWholeAttr(member.getType());
    state.setSlotOffset(member.getOffset());
    state.setBounds(bounds);
  }
}

// The loss scale and its counters belong to the step and begin with what the
// op that changes them says.
void PlanLowering::bindScaler(graph::StepOp step, mlir::StringAttr name,
                              Value ref) {
  double initial = 0;
  for (auto op : step.getBody().front().getOps<optim::LossScaleOp>()) {
    if (name == "loss_scale") initial = op.getInitial().convertToDouble();
    if (name == "hysteresis") initial = op.getHysteresis();
  }
  auto state = builder.create<sched::StateOp>(
      ref.getLoc(), "scaler", builder.getArrayAttr({name}), ref,
      /*trainable=*/false, /*persistent=*/true, "scaler");
  state.setInitialAttr(builder.getF64FloatAttr(initial));
}

LogicalResult PlanLowering::bindOne(graph::StepOp step,
                                    mlir::BlockArgument argument,
                                    mlir::Attribute role,
                                    const Sidecar& sidecar,
                                    llvm::StringRef scope) {
  mlir::Location loc = argument.getLoc();
  bool fresh = false;
  return llvm::TypeSwitch<mlir::Attribute, LogicalResult>(role)
      .Case([&](graph::ParamAttr param) -> LogicalResult {
        auto ref = shared(argument, "parameter " + param.getName().str(),
                          sched::Arena::State, sched::Category::Parameter,
                          param.getName(), fresh);
        if (failed(ref)) return failure();
        if (fresh)
          builder.create<sched::StateOp>(loc, "parameter", param.getNames(),
                                         *ref, param.getTrainable().getValue(),
                                         true, param.getKind());
        return success();
      })
      .Case([&](graph::BufferAttr buffer) -> LogicalResult {
        auto ref = shared(argument, "buffer " + buffer.getName().str(),
                          sched::Arena::State, sched::Category::Buffer,
                          buffer.getName(), fresh);
        if (failed(ref)) return failure();
        if (!fresh) return success();
        bool persistent = buffer.getPersistent().getValue();
        builder.create<sched::StateOp>(loc, "buffer",
                                       builder.getArrayAttr({buffer.getName()}),
                                       *ref, false, persistent, "buffer");
        return persistent ? success()
                          : addData(argument, buffer.getName(), *ref, sidecar);
      })
      .Case([&](graph::InputAttr input) -> LogicalResult {
        auto ref = shared(argument, "input " + input.getName().str(),
                          sched::Arena::Input, sched::Category::Input,
                          input.getName(), fresh);
        if (failed(ref)) return failure();
        if (fresh) builder.create<sched::InputOp>(loc, input.getName(), *ref);
        return success();
      })
      .Case([&](graph::ConstantAttr constant) -> LogicalResult {
        std::string label = (scope + constant.getName().getValue()).str();
        auto ref = shared(argument, "constant " + label, sched::Arena::Constant,
                          sched::Category::Constant, label, fresh);
        if (failed(ref)) return failure();
        return addData(argument, constant.getName(), *ref, sidecar);
      })
      .Case([&](graph::StateAttr state) -> LogicalResult {
        llvm::StringRef kind = state.getKind().getValue();
        auto ref = shared(
            argument, (kind + " " + state.getName().getValue()).str(),
            sched::Arena::State, categoryOf(kind), state.getName(), fresh);
        if (failed(ref)) return failure();
        if (kind == "scaler") {
          if (fresh) bindScaler(step, state.getName(), *ref);
          return success();
        }
        auto names = parameterNames.find(state.getName().str());
        if (names == parameterNames.end())
          return step.emitOpError("has state '")
                 << kind << "' of '" << state.getName()
                 << "', which is no parameter of it";
        if (fresh)
          // Accumulators hold nothing between two steps that a checkpoint
          // would need.
          builder.create<sched::StateOp>(loc, kind, names->second, *ref, true,
                                         kind != "accumulator", kind);
        return success();
      })
      .Case([&](dist::BucketAttr bucket) -> LogicalResult {
        llvm::StringRef kind = bucket.getKind().getValue();
        std::string key = (kind + " " + bucket.getName().getValue()).str();
        bool placed = !bucket.getArena().empty() && !byKey.count(key);
        if (placed) byKey[key] = placeInArena(argument, bucket);
        auto ref = shared(argument, key, sched::Arena::State, categoryOf(kind),
                          bucket.getName(), fresh);
        if (failed(ref)) return failure();
        if (fresh || placed) bindMembers(bucket, *ref);
        return success();
      })
      .Default([&](mlir::Attribute other) -> LogicalResult {
        return mlir::emitError(loc, "argument has role ")
               << other << ", which no plan can bind";
      });
}

}  // namespace heddle
