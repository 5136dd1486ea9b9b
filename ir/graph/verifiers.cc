// The labelled rules of the graph dialect. Each message ends with the rule's
// name, which the op's description lists and an invalid test plants a fault
// for. Invariant: a verified program can be read with plain casts: operand
// kinds, roles, attribute types and counts all hold.
#include "ir/graph/GraphOps.h"
#include "ir/graph/op_table.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"

using namespace mlir;

#define GET_OP_CLASSES
#include "ir/graph/GraphOps.cc.inc"

namespace heddle::graph {
namespace detail {

std::optional<int64_t> integerAttr(Operation* op, llvm::StringRef name) {
  auto value = op->getAttrOfType<IntegerAttr>(name);
  return value ? std::optional<int64_t>(value.getInt()) : std::nullopt;
}

Phase phaseOf(Operation* op) {
  auto phase = op->getAttrOfType<PhaseAttr>(GraphDialect::kPhaseAttr);
  return phase ? phase.getValue() : Phase::Forward;
}

LogicalResult verifyLinked(Operation* op) {
  for (llvm::StringRef name : {llvm::StringRef(GraphDialect::kNodeAttr),
                               llvm::StringRef(GraphDialect::kRecomputeOfAttr),
                               llvm::StringRef(GraphDialect::kRngIdAttr)}) {
    Attribute value = op->getDiscardableAttr(name);
    if (value &&
        !(llvm::isa<IntegerAttr>(value) &&
          llvm::cast<IntegerAttr>(value).getType().isSignlessInteger(64))) {
      return op->emitOpError("has ")
             << name << " = " << value
             << ", which is not an i64 (graph_linked_r1)";
    }
  }
  Attribute phase = op->getDiscardableAttr(GraphDialect::kPhaseAttr);
  if (phase && !llvm::isa<PhaseAttr>(phase))
    return op->emitOpError("has graph.phase = ")
           << phase << ", which is not a #graph.phase (graph_linked_r2)";
  return success();
}

LogicalResult verifyViewLike(Operation* op) {
  auto source = llvm::cast<RankedTensorType>(op->getOperand(0).getType());
  int64_t storage = geometryOf(source).storageBytes;
  for (Type type : op->getResultTypes()) {
    auto result = llvm::dyn_cast<RankedTensorType>(type);
    if (!result)
      return op->emitOpError("has a result that is no tensor (graph_view_r1)");
    int64_t bytes = geometryOf(result).storageBytes;
    if (bytes != storage) {
      return op->emitOpError("looks into a storage of ")
             << storage << " bytes, but its result's type names one of "
             << bytes << " bytes (graph_view_r1)";
    }
    llvm::StringRef name = op->getName().stripDialect();
    bool reshapes = llvm::is_contained(
        {"view", "_unsafe_view", "_reshape_alias", "t", "transpose.int",
         "permute", "unsqueeze", "squeeze", "squeeze.dim", "squeeze.dims",
         "alias", "detach", "lift_fresh"},
        name);
    if (reshapes && result.getNumElements() != source.getNumElements()) {
      return op->emitOpError("turns ")
             << source.getNumElements() << " elements into "
             << result.getNumElements() << " (graph_view_r2)";
    }
  }
  return success();
}

}  // namespace detail

LogicalResult GraphDialect::verifyOperationAttribute(Operation* op,
                                                     NamedAttribute attribute) {
  llvm::StringRef name = attribute.getName();
  if (name == kNodeAttr || name == kPhaseAttr || name == kRecomputeOfAttr ||
      name == kRngIdAttr)
    return success();
  return op->emitOpError("has the unknown attribute ")
         << name << " (graph_linked_r3)";
}

//===--- graph.step ---===//

// Later phases bring roles of dialects of their own, which their verify passes
// check.
static bool isForeign(Attribute role) {
  llvm::StringRef dialect = role.getDialect().getNamespace();
  return dialect != GraphDialect::getDialectNamespace() && dialect != "builtin";
}

static LogicalResult verifyArgRoles(StepOp step, llvm::StringSet<>& params) {
  Block& body = step.getBody().front();
  if (step.getArgRoles().size() != body.getNumArguments()) {
    return step.emitOpError("has ")
           << step.getArgRoles().size() << " argument roles for "
           << body.getNumArguments() << " arguments (graph_step_r1)";
  }
  llvm::StringSet<> names;
  for (auto [i, role] : llvm::enumerate(step.getArgRoles())) {
    if (!llvm::isa<RankedTensorType>(body.getArgument(i).getType()))
      return step.emitOpError("argument ")
             << i << " is not a tensor (graph_step_r1)";
    llvm::SmallVector<StringAttr, 1> own;
    if (auto param = llvm::dyn_cast<ParamAttr>(role)) {
      if (param.getNames().empty() ||
          !llvm::all_of(param.getNames(), llvm::IsaPred<StringAttr>)) {
        return step.emitOpError("argument ")
               << i << " is a parameter without a name (graph_step_r1)";
      }
      for (Attribute name : param.getNames())
        own.push_back(llvm::cast<StringAttr>(name));
    } else if (auto buffer = llvm::dyn_cast<BufferAttr>(role)) {
      own.push_back(buffer.getName());
    } else if (!llvm::isa<InputAttr, ConstantAttr, StateAttr>(role) &&
               !isForeign(role)) {
      return step.emitOpError("argument ")
             << i << " has " << role
             << ", which is not an argument role (graph_step_r1)";
    }
    for (StringAttr name : own) {
      if (!names.insert(name.getValue()).second)
        return step.emitOpError("names two parameters or buffers ")
               << name << " (graph_step_r4)";
      if (llvm::isa<ParamAttr>(role)) params.insert(name.getValue());
    }
  }
  return success();
}

// Bytes that a tensor's elements take, or nothing where no arithmetic on them
// is safe.
static std::optional<int64_t> bytesOfType(RankedTensorType type) {
  int64_t bytes = elementBytes(type.getElementType());
  for (int64_t size : type.getShape()) {
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) {
      return std::nullopt;
    }
  }
  return bytes;
}

// Comes before the ops' own verifiers, which multiply sizes.
static LogicalResult verifySizes(StepOp step) {
  auto check = [&](Operation* op, TypeRange types) -> LogicalResult {
    for (Type type : types) {
      auto tensor = llvm::dyn_cast<RankedTensorType>(type);
      if (tensor && !bytesOfType(tensor)) {
        return op->emitOpError("has a tensor of type ")
               << tensor
               << ", whose shape is not static or too large (graph_step_r6)";
      }
    }
    return success();
  };
  Block& body = step.getBody().front();
  if (failed(check(step, body.getArgumentTypes()))) return failure();
  for (Operation& op : body) {
    if (failed(check(&op, op.getResultTypes()))) return failure();
  }
  return success();
}

LogicalResult StepOp::verify() {
  if (getFormatVersion() != static_cast<uint64_t>(kFormatVersion)) {
    return emitOpError("has format_version ")
           << getFormatVersion() << ", but this compiler reads version "
           << kFormatVersion << "; capture the step again (graph_step_r3)";
  }
  llvm::StringSet<> params;
  if (failed(verifyArgRoles(*this, params))) return failure();
  return verifySizes(*this);
}

LogicalResult StepOp::verifyRegions() {
  llvm::StringSet<> params;
  if (failed(verifyArgRoles(*this, params))) return failure();
  auto ret = llvm::dyn_cast<ReturnOp>(getBody().front().getTerminator());
  if (!ret) return emitOpError("does not end in graph.return (graph_step_r2)");
  if (getResultRoles().size() != ret.getNumOperands()) {
    return emitOpError("has ")
           << getResultRoles().size() << " result roles for "
           << ret.getNumOperands() << " returned values (graph_step_r2)";
  }
  for (auto [role, value] : llvm::zip(getResultRoles(), ret.getValues())) {
    if (!llvm::isa<LossAttr, GradientAttr, NewValueAttr, NewStateAttr,
                   OutputAttr>(role) &&
        !isForeign(role))
      return emitOpError("has ")
             << role << ", which is not a result role (graph_step_r2)";
    auto type = llvm::cast<RankedTensorType>(value.getType());
    if (llvm::isa<LossAttr>(role) &&
        !(type.getNumElements() == 1 &&
          llvm::isa<FloatType>(type.getElementType()))) {
      return emitOpError("has a loss of type ") << type << " (graph_step_r5)";
    }
    if (auto gradient = llvm::dyn_cast<GradientAttr>(role);
        gradient && !params.contains(gradient.getName().getValue())) {
      return emitOpError("returns a gradient of ")
             << gradient.getName() << ", which is no parameter (graph_step_r4)";
    }
  }
  return success();
}

//===--- graph.guard, graph.view_update ---===//

LogicalResult GuardOp::verify() {
  auto type = llvm::cast<RankedTensorType>(getValue().getType());
  if (static_cast<int64_t>(getExpected().size()) != type.getNumElements()) {
    return emitOpError("expects ")
           << getExpected().size() << " values of a tensor with "
           << type.getNumElements() << " elements (graph_guard_r1)";
  }
  if (!llvm::isa<IntegerType>(type.getElementType()))
    return emitOpError("reads a value of type ") << type << " (graph_guard_r2)";
  return success();
}

LogicalResult ViewUpdateOp::verify() {
  auto update = llvm::cast<RankedTensorType>(getUpdate().getType());
  auto onError = [&] { return emitOpError("graph_view_update_r1: "); };
  if (failed(getLayout().verifyEncoding(update.getShape(),
                                        update.getElementType(), onError)))
    return failure();
  int64_t storage =
      geometryOf(llvm::cast<RankedTensorType>(getBase().getType()))
          .storageBytes;
  if (getLayout().getStorageBytes() != storage) {
    return emitOpError("updates a storage of ")
           << getLayout().getStorageBytes() << " bytes in a base of " << storage
           << " bytes (graph_view_update_r2)";
  }
  return success();
}

//===--- graph.composite ---===//

LogicalResult CompositeOp::verify() {
  llvm::StringRef function = getKind();
  function.consume_back("_backward");
  if (!llvm::is_contained({"rms_norm", "rotary", "swiglu", "cross_entropy"},
                          function)) {
    return emitOpError("has the unknown kind \"")
           << getKind() << "\" (graph_composite_r1)";
  }
  Block& body = getBody().front();
  if (body.getArgumentTypes() != getInputs().getTypes())
    return emitOpError(
        "has a body whose arguments are not its operands' types "
        "(graph_composite_r2)");
  auto yield = body.empty() ? YieldOp() : llvm::dyn_cast<YieldOp>(body.back());
  if (!yield || yield.getValues().getTypes() != getResults().getTypes()) {
    return emitOpError(
        "has a body that does not end in a graph.yield of its results' types "
        "(graph_composite_r3)");
  }
  return success();
}

//===--- graph.kernel ---===//

LogicalResult KernelOp::verify() {
  llvm::StringSet<> names;
  for (llvm::StringRef name : getOperandNames().getAsValueRange<StringAttr>()) {
    if (!names.insert(name).second)
      return emitOpError("names two operands '")
             << name << "' (graph_kernel_r1)";
  }
  if (getOperandNames().size() != getInputs().size())
    return emitOpError("has ")
           << getInputs().size() << " operands and " << getOperandNames().size()
           << " names for them (graph_kernel_r1)";
  for (NamedAttribute scalar : getScalars()) {
    Attribute value = scalar.getValue();
    auto integer = llvm::dyn_cast<IntegerAttr>(value);
    auto real = llvm::dyn_cast<FloatAttr>(value);
    if (!(integer && integer.getType().isInteger(64)) &&
        !(real && real.getType().isF64()))
      return emitOpError("has scalar '")
             << scalar.getName().getValue() << "' = " << value
             << ", which is neither i64 nor f64 (graph_kernel_r2)";
    if (names.contains(scalar.getName().getValue()))
      return emitOpError("has a scalar and an operand named '")
             << scalar.getName().getValue() << "' (graph_kernel_r2)";
  }
  if (getOverwrites().size() != getResults().size())
    return emitOpError("has ")
           << getResults().size() << " results and " << getOverwrites().size()
           << " entries in overwrites (graph_kernel_r3)";
  llvm::DenseSet<int64_t> taken;
  for (auto [i, number] : llvm::enumerate(getOverwrites())) {
    if (number == -1) continue;
    if (number < 0 || number >= static_cast<int64_t>(getInputs().size()) ||
        getInputs()[number].getType() != getResults()[i].getType() ||
        !taken.insert(number).second)
      return emitOpError("may not write result ")
             << i << " over operand " << number << " (graph_kernel_r3)";
  }
  return success();
}

//===--- graph.call ---===//

// How many operands `args` stands for, or nothing if an entry is malformed.
static std::optional<size_t> operandsNamed(ArrayAttr args) {
  size_t count = 0;
  for (Attribute arg : args) {
    if (llvm::isa<OperandMarkerAttr>(arg)) ++count;
    if (auto list = llvm::dyn_cast<ArrayAttr>(arg)) {
      for (Attribute entry : list) {
        if (!llvm::isa<OperandMarkerAttr, UnitAttr>(entry)) return std::nullopt;
        count += llvm::isa<OperandMarkerAttr>(entry);
      }
    }
  }
  return count;
}

LogicalResult CallOp::verify() {
  auto [ns, name] = getCallee().split("::");
  if (ns.empty() || name.empty())
    return emitOpError("has callee \"")
           << getCallee()
           << "\", which is not \"ns::name.overload\" (graph_call_r1)";
  if (const OpRow* row =
          findOp(std::string_view(getCallee().data(), getCallee().size()))) {
    return emitOpError("calls \"") << getCallee() << "\", which is the op "
                                   << row->mlirName << " (graph_call_r1)";
  }
  std::optional<size_t> named = operandsNamed(getArgs());
  if (!named)
    return emitOpError(
        "has an argument list whose entries are not #graph.operand or unit "
        "(graph_call_r2)");
  if (*named != getInputs().size())
    return emitOpError("has args for ")
           << *named << " operands, but " << getInputs().size()
           << " operands (graph_call_r2)";
  if (!getMutates())
    return getDps() ? emitOpError("has dps without mutates (graph_call_r5)")
                    : success();

  llvm::ArrayRef<int64_t> mutates = *getMutates();
  llvm::SmallVector<bool> seen(getInputs().size(), false);
  for (int64_t i : mutates) {
    if (i < 0 || i >= static_cast<int64_t>(seen.size()) || seen[i]) {
      return emitOpError("mutates operand ")
             << i << " of " << seen.size()
             << ", which is out of range or named twice (graph_call_r3)";
    }
    seen[i] = true;
  }
  if (getDps()) {
    if (getNumResults() < mutates.size())
      return emitOpError("has ")
             << getNumResults() << " results for " << mutates.size()
             << " new values (graph_call_r4)";
    for (auto [i, result] :
         llvm::zip(mutates, getResults().take_back(mutates.size()))) {
      auto have = llvm::dyn_cast<RankedTensorType>(result.getType());
      auto want = llvm::cast<RankedTensorType>(getInputs()[i].getType());
      if (!have || have.getShape() != want.getShape() ||
          have.getElementType() != want.getElementType()) {
        return emitOpError("gives operand ")
               << i << " of type " << want << " a new value of type "
               << result.getType() << " (graph_call_r4)";
      }
    }
    return success();
  }
  if (getFreshResults() || getNumResults() == 0) return success();
  if (getNumResults() != mutates.size()) {
    return emitOpError("has ")
           << getNumResults() << " results for " << mutates.size()
           << " operands it writes and no fresh_results (graph_call_r4)";
  }
  for (auto [i, result] : llvm::zip(mutates, getResults())) {
    if (result.getType() != getInputs()[i].getType()) {
      return emitOpError("returns the handle of operand ")
             << i << " of type " << getInputs()[i].getType() << " as "
             << result.getType() << " (graph_call_r4)";
    }
  }
  return success();
}

}  // namespace heddle::graph
