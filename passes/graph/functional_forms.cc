// Turns one in-place call into pure ops: the operator without the underscore
// where it surely gives the same element type and a row-major result, otherwise
// the same call marked `dps`. Invariant: the arithmetic is the in-place
// kernel's; where the two might round or promote differently the call stays.
// What would break it: an operator whose functional overload promotes types and
// is not in the op table's pointwise class.
#include "passes/graph/functional_forms.h"

#include "ir/graph/aten_call.h"

using namespace mlir;

namespace heddle::graph {
namespace {

Type elementOf(Value value) {
  return llvm::cast<RankedTensorType>(value.getType()).getElementType();
}

// What eager promotion would make of `self` and the rest, if that is self's own
// element type.
bool keepsElementType(const AtenCall& call, const OpRow& row, Type self) {
  for (auto [schema, arg] :
       llvm::zip(llvm::ArrayRef(row.args, row.numArgs), call.args)) {
    bool isMask = llvm::StringRef(schema.name) == "mask";
    if (arg.kind == AtenArg::Kind::kOperand && !isMask &&
        elementOf(arg.value) != self)
      return false;
    if (schema.kind != ArgKind::kScalar || !arg.constant) continue;
    bool isFloat = llvm::isa<FloatAttr>(arg.constant);
    if (isFloat && llvm::isa<IntegerType>(self)) return false;
    if (self.isInteger(1) && !llvm::isa<BoolAttr>(arg.constant)) return false;
  }
  // Comparisons and logical operators answer in bool whatever they read;
  // division of integers answers in float.
  llvm::StringRef name =
      llvm::StringRef(row.mlirName).drop_front(sizeof("graph.") - 1);
  llvm::StringRef base = name.split('.').first;
  bool answersBool = llvm::is_contained(
      {"eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
       "logical_xor", "logical_not", "isnan", "isinf"},
      base);
  if (answersBool) return self.isInteger(1);
  return llvm::isa<FloatType>(self) ||
         llvm::is_contained(
             {"add", "sub", "mul", "neg", "abs", "clamp", "clamp_min",
              "clamp_max", "bitwise_and", "bitwise_or", "bitwise_xor",
              "bitwise_not", "masked_fill", "fill"},
             base);
}

bool hasRowMajorStrides(Value value) {
  auto type = llvm::cast<RankedTensorType>(value.getType());
  return llvm::ArrayRef(geometryOf(type).strides) ==
         llvm::ArrayRef(rowMajorStrides(type.getShape()));
}

// "aten::add_.Tensor" -> the row of "aten::add.Tensor".
const OpRow* functionalRow(llvm::StringRef callee) {
  auto [base, overload] = callee.split('.');
  if (!base.consume_back("_")) return nullptr;
  std::string name = base.str();
  // bernoulli_ has other overload names than bernoulli.
  if (!overload.empty())
    name += "." + (callee == "aten::bernoulli_.float" ? std::string("p")
                                                      : overload.str());
  return findOp(name);
}

// Rows whose result has self's element type and, for a row-major self, is
// row-major, whatever the other operands are.
bool followsSelf(const OpRow& row) {
  llvm::StringRef name(row.mlirName);
  return llvm::any_of(
      llvm::ArrayRef<llvm::StringRef>{
          "graph.scatter", "graph.index_put", "graph.index_add",
          "graph.index_copy", "graph.index_fill", "graph.masked_scatter",
          "graph.bernoulli", "graph.tril", "graph.triu"},
      [&](llvm::StringRef prefix) { return name.starts_with(prefix); });
}

Operation* createFromRow(OpBuilder& builder, CallOp call,
                         const AtenCall& decoded, const OpRow& row,
                         Type resultType) {
  llvm::SmallVector<Value> operands;
  llvm::SmallVector<NamedAttribute> attributes;
  llvm::SmallVector<int32_t> segments;
  for (auto [schema, arg] :
       llvm::zip(llvm::ArrayRef(row.args, row.numArgs), decoded.args)) {
    size_t before = operands.size();
    llvm::SmallVector<bool> present;
    if (arg.kind == AtenArg::Kind::kOperand) operands.push_back(arg.value);
    for (Value entry : arg.list) {
      present.push_back(static_cast<bool>(entry));
      if (entry) operands.push_back(entry);
    }
    if (schema.kind == ArgKind::kOptionalTensorList) {
      attributes.push_back(
          builder.getNamedAttr((llvm::Twine(schema.name) + "_present").str(),
                               builder.getDenseBoolArrayAttr(present)));
    }
    if (schema.kind <= ArgKind::kOptionalTensorList)
      segments.push_back(operands.size() - before);
    if (arg.kind == AtenArg::Kind::kConstant)
      attributes.push_back(builder.getNamedAttr(schema.name, arg.constant));
  }
  if (row.segmented)
    attributes.push_back(builder.getNamedAttr(
        "operandSegmentSizes", builder.getDenseI32ArrayAttr(segments)));
  return createAten(builder, call.getLoc(), row.mlirName, resultType, operands,
                    attributes, call);
}

// copy_: the source in the destination's shape and element type.
FailureOr<Value> copied(OpBuilder& builder, CallOp call,
                        const AtenCall& decoded) {
  if (decoded.args.size() < 2 ||
      decoded.args[1].kind != AtenArg::Kind::kOperand)
    return call.emitOpError("has no source tensor"), failure();
  auto target = llvm::cast<RankedTensorType>(decoded.args[0].value.getType());
  Value source = decoded.args[1].value;
  auto type = llvm::cast<RankedTensorType>(source.getType());
  if (type.getShape() != target.getShape()) {
    int64_t lead = target.getRank() - type.getRank();
    if (lead < 0)
      return call.emitOpError("copies ") << type << " into " << target,
             failure();
    Geometry from = geometryOf(type);
    llvm::SmallVector<int64_t> strides(target.getRank(), 0);
    for (int64_t i = 0; i < type.getRank(); ++i) {
      bool same = type.getDimSize(i) == target.getDimSize(lead + i);
      if (!same && type.getDimSize(i) != 1)
        return call.emitOpError("copies ") << type << " into " << target,
               failure();
      strides[lead + i] = same ? from.strides[i] : 0;
    }
    auto layout = LayoutAttr::get(builder.getContext(), strides, from.offset,
                                  from.storageBytes);
    auto expanded =
        RankedTensorType::get(target.getShape(), type.getElementType(), layout);
    source = createAten(
                 builder, call.getLoc(), "graph.expand", expanded, source,
                 {builder.getNamedAttr("implicit", builder.getBoolAttr(false)),
                  builder.getNamedAttr(
                      "size", builder.getDenseI64ArrayAttr(target.getShape()))},
                 call)
                 ->getResult(0);
  }
  if (type.getElementType() != target.getElementType()) {
    source =
        createAten(
            builder, call.getLoc(), "graph._to_copy", denseType(target), source,
            {builder.getNamedAttr("dtype",
                                  TypeAttr::get(target.getElementType())),
             builder.getNamedAttr("memory_format",
                                  builder.getStringAttr("contiguous")),
             builder.getNamedAttr("non_blocking", builder.getBoolAttr(false))},
            call)
            ->getResult(0);
  }
  return source;
}

}  // namespace

Operation* createAten(OpBuilder& builder, Location loc,
                      llvm::StringRef mlirName, TypeRange results,
                      ValueRange operands,
                      llvm::ArrayRef<NamedAttribute> attributes,
                      Operation* linkedTo) {
  OperationState state(loc, mlirName, operands, results, attributes);
  for (NamedAttribute attribute : linkedTo->getDiscardableAttrs())
    state.attributes.append(attribute);
  const OpRow* row =
      findOpByMlirName(std::string_view(mlirName.data(), mlirName.size()));
  if (!row || !row->random) state.attributes.erase(GraphDialect::kRngIdAttr);
  return builder.create(state);
}

FailureOr<llvm::SmallVector<Value>> functionalForm(
    CallOp call, OpBuilder& builder,
    llvm::SmallVectorImpl<Value>& freshResults) {
  AtenCall decoded = decodeAtenCall(call);
  llvm::StringRef callee = call.getCallee();
  llvm::ArrayRef<int64_t> mutates = *call.getMutates();
  bool writesSelf = mutates == llvm::ArrayRef<int64_t>{0} &&
                    !decoded.args.empty() &&
                    decoded.args[0].kind == AtenArg::Kind::kOperand &&
                    !call.getFreshResults();
  Value self = writesSelf ? decoded.args[0].value : Value();

  if (writesSelf && callee == "aten::copy_") {
    FailureOr<Value> value = copied(builder, call, decoded);
    if (failed(value)) return failure();
    return llvm::SmallVector<Value>{*value};
  }
  if (writesSelf && hasRowMajorStrides(self)) {
    RankedTensorType result =
        denseType(llvm::cast<RankedTensorType>(self.getType()));
    if (callee == "aten::zero_") {
      NamedAttribute zero =
          builder.getNamedAttr("value", builder.getI64IntegerAttr(0));
      return llvm::SmallVector<Value>{createAten(builder, call.getLoc(),
                                                 "graph.fill.Scalar", result,
                                                 self, zero, call)
                                          ->getResult(0)};
    }
    // Backward of indexing calls the implementation, whose last argument only
    // says whether indices are checked; index_put always checks.
    if (callee == "aten::_index_put_impl_" && decoded.args.size() == 5) {
      callee = "aten::index_put_";
      decoded.args.pop_back();
    }
    const OpRow* row = functionalRow(callee);
    if (row && row->isView) {
      return call.emitOpError(
                 "changes the shape of its operand in place, which a value "
                 "cannot do; write ")
                 << row->atenName << " and use its result",
             failure();
    }
    // Complex arithmetic rounds otherwise in place than out of place.
    bool rounds = row && row->pointwise &&
                  llvm::isa<mlir::ComplexType>(result.getElementType());
    bool fits = row && row->numResults == 1 && !rounds &&
                row->numArgs == static_cast<int>(decoded.args.size()) &&
                (followsSelf(*row) ||
                 (row->pointwise &&
                  keepsElementType(decoded, *row, result.getElementType())));
    if (fits)
      return llvm::SmallVector<Value>{
          createFromRow(builder, call, decoded, *row, result)->getResult(0)};
  }

  size_t fresh = call.getFreshResults() ? call.getNumResults() : 0;
  llvm::SmallVector<Type> types(
      call->getResults().take_front(fresh).getTypes());
  for (int64_t i : mutates)
    types.push_back(
        denseType(llvm::cast<RankedTensorType>(call.getInputs()[i].getType())));
  OperationState state(call.getLoc(), CallOp::getOperationName(),
                       call->getOperands(), types, {});
  state.addAttributes({builder.getNamedAttr("args", call.getArgs()),
                       builder.getNamedAttr("callee", call.getCalleeAttr()),
                       builder.getNamedAttr("dps", builder.getUnitAttr()),
                       builder.getNamedAttr("mutates", call.getMutatesAttr())});
  for (NamedAttribute attribute : call->getDiscardableAttrs())
    state.attributes.append(attribute);
  Operation* pure = builder.create(state);
  llvm::append_range(freshResults, pure->getResults().take_front(fresh));
  return llvm::SmallVector<Value>(pure->getResults().drop_front(fresh));
}

}  // namespace heddle::graph
