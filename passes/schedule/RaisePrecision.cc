// Types and dtype attributes of an fp64 program -> f64, in place. Invariant:
// only element types change, and with them the bytes of the storages they lie
// in. An op whose meaning depends on a narrower type (a reinterpreting view)
// would be changed by it, so it is refused.
#include "passes/schedule/Passes.h"

namespace heddle {

#define GEN_PASS_DEF_RAISEPRECISION
#include "passes/schedule/Passes.h.inc"

namespace {

using mlir::Attribute;
using mlir::Type;

bool isNarrow(Type type) {
  if (auto complexType = mlir::dyn_cast<mlir::ComplexType>(type))
    return isNarrow(complexType.getElementType());
  return mlir::isa<mlir::FloatType>(type) && type.getIntOrFloatBitWidth() < 64;
}

Type raisedElement(Type type) {
  if (!isNarrow(type)) return type;
  Type f64 = mlir::FloatType::getF64(type.getContext());
  return mlir::isa<mlir::ComplexType>(type) ? Type(mlir::ComplexType::get(f64))
                                            : f64;
}

// The layout over a storage whose elements of type `from` became wider.
graph::LayoutAttr raisedLayout(graph::LayoutAttr layout, Type from) {
  int64_t scale =
      graph::elementBytes(raisedElement(from)) / graph::elementBytes(from);
  return graph::LayoutAttr::get(layout.getContext(), layout.getStrides(),
                                layout.getOffset(),
                                layout.getStorageBytes() * scale);
}

Type raisedType(Type type) {
  auto tensor = mlir::dyn_cast<mlir::RankedTensorType>(type);
  if (!tensor || !isNarrow(tensor.getElementType())) return type;
  Attribute encoding = tensor.getEncoding();
  if (auto layout = mlir::dyn_cast_if_present<graph::LayoutAttr>(encoding))
    encoding = raisedLayout(layout, tensor.getElementType());
  return mlir::RankedTensorType::get(
      tensor.getShape(), raisedElement(tensor.getElementType()), encoding);
}

Attribute raisedAttr(Attribute attr) {
  if (auto type = mlir::dyn_cast<mlir::TypeAttr>(attr))
    return mlir::TypeAttr::get(raisedElement(type.getValue()));
  if (auto list = mlir::dyn_cast<mlir::ArrayAttr>(attr))
    return mlir::ArrayAttr::get(attr.getContext(),
                                llvm::map_to_vector(list, raisedAttr));
  return attr;
}

struct RaisePrecisionPass : impl::RaisePrecisionBase<RaisePrecisionPass> {
  void runOnOperation() final {
    graph::StepOp step = getOperation();
    if (step.getPrecision() != "fp64") return markAllAnalysesPreserved();
    mlir::Block& block = step.getBody().front();
    if (failed(check(block))) return signalPassFailure();
    for (mlir::BlockArgument argument : block.getArguments())
      argument.setType(raisedType(argument.getType()));
    for (mlir::Operation& op : block) {
      if (auto update = mlir::dyn_cast<graph::ViewUpdateOp>(op)) {
        // The result still has its old type here.
        Type element =
            mlir::cast<mlir::RankedTensorType>(update.getResult().getType())
                .getElementType();
        if (isNarrow(element))
          update.setLayoutAttr(raisedLayout(update.getLayout(), element));
      }
      for (mlir::Value result : op.getResults())
        result.setType(raisedType(result.getType()));
      for (mlir::NamedAttribute attr : op.getAttrs())
        if (Attribute raised = raisedAttr(attr.getValue());
            raised != attr.getValue())
          op.setAttr(attr.getName(), raised);
      // The argument of _softmax and _log_softmax that asks for a wider result
      // than input: there is none wider now.
      if (op.hasAttr("half_to_float"))
        op.setAttr("half_to_float", mlir::BoolAttr::get(&getContext(), false));
    }
  }

  static mlir::LogicalResult check(mlir::Block& block) {
    for (mlir::Operation& op : block) {
      bool reinterprets = op.getName().getStringRef() == "graph.view.dtype";
      for (mlir::Value result : op.getResults()) {
        auto tensor = mlir::dyn_cast<mlir::RankedTensorType>(result.getType());
        if (!tensor) continue;
        Type element = tensor.getElementType();
        if (mlir::isa<mlir::FloatType>(element) &&
            element.getIntOrFloatBitWidth() == 8)
          return op.emitOpError("makes ")
                 << element
                 << ", which precision fp64 cannot raise; compile with another "
                    "precision";
        if (reinterprets &&
            (isNarrow(element) || isNarrow(mlir::cast<mlir::RankedTensorType>(
                                               op.getOperand(0).getType())
                                               .getElementType())))
          return op.emitOpError(
              "reinterprets the bytes of a float that precision fp64 raises; "
              "compile with another precision");
      }
    }
    return mlir::success();
  }
};

}  // namespace
}  // namespace heddle
