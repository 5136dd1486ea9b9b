// The graph dialect, its attributes and its op interfaces.
// Invariant: the text forms below are the ones docs/formats.md gives to capture; a change here is a change of the file format.
#ifndef HEDDLE_GRAPH_DIALECT
#define HEDDLE_GRAPH_DIALECT

include "mlir/IR/OpBase.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/BuiltinAttributeInterfaces.td"
include "mlir/IR/TensorEncoding.td"

def Graph_Dialect : Dialect {
  let name = "graph";
  let cppNamespace = "::heddle::graph";
  let summary = "A captured training step";
  let useDefaultAttributePrinterParser = 1;
  let hasOperationAttrVerify = 1;
  let extraClassDeclaration = [{
    static constexpr llvm::StringLiteral kNodeAttr = "graph.node";
    static constexpr llvm::StringLiteral kPhaseAttr = "graph.phase";
    static constexpr llvm::StringLiteral kRecomputeOfAttr = "graph.recompute_of";
    static constexpr llvm::StringLiteral kRngIdAttr = "graph.rng_id";

    void registerAttributes();
    void registerAtenOps();
  }];
}

//===--- Attributes ---===//

class Graph_Attr<string name, string attrMnemonic, list<Trait> traits = []> : AttrDef<Graph_Dialect, name, traits> {
  let mnemonic = attrMnemonic;
}

def Graph_LayoutAttr : Graph_Attr<"Layout", "layout", [DeclareAttrInterfaceMethods<VerifiableTensorEncoding>]> {
  let summary = "Where a tensor's elements lie in its storage";
  let description = [{
    Element strides, element offset into the storage and the storage's bytes. No encoding means row-major, offset 0, a storage of exactly the tensor's bytes.

    Constraints:
    * graph_layout_r1: as many strides as the tensor has dimensions.
    * graph_layout_r2: strides and offset are not negative.
    * graph_layout_r3: the storage covers every element.
    * graph_layout_r4: every dimension of the tensor is known.
  }];
  let parameters = (ins ArrayRefParameter<"int64_t">:$strides, "int64_t":$offset, "int64_t":$storageBytes);
  let hasCustomAssemblyFormat = 1;
}

def Graph_OperandAttr : Graph_Attr<"OperandMarker", "operand"> { let summary = "Stands for the next operand in graph.call's args"; }

def Graph_Forward : I32EnumAttrCase<"Forward", 0, "forward">;
def Graph_Backward : I32EnumAttrCase<"Backward", 1, "backward">;
def Graph_Update : I32EnumAttrCase<"Update", 2, "update">;
def Graph_Phase : I32EnumAttr<"Phase", "part of the step", [Graph_Forward, Graph_Backward, Graph_Update]> {
  let cppNamespace = "::heddle::graph";
  let genSpecializedAttr = 0;
}
def Graph_PhaseAttr : EnumAttr<Graph_Dialect, Graph_Phase, "phase"> { let assemblyFormat = "`<` $value `>`"; }

// Roles of a step's arguments.
def Graph_ParamAttr : Graph_Attr<"Param", "param"> {
  let summary = "A parameter under all its names";
  let parameters = (ins "::mlir::ArrayAttr":$names, "::mlir::BoolAttr":$trainable, "::mlir::StringAttr":$kind);
  let assemblyFormat = "`<` $names `,` $trainable `,` $kind `>`";
  let extraClassDeclaration = [{
    // The first name, which stands for the parameter in results, state and checkpoints.
    ::mlir::StringAttr getName() const { return ::llvm::cast<::mlir::StringAttr>(getNames()[0]); }
  }];
}
def Graph_BufferAttr : Graph_Attr<"Buffer", "buffer"> {
  let parameters = (ins "::mlir::StringAttr":$name, "::mlir::BoolAttr":$persistent);
  let assemblyFormat = "`<` $name `,` $persistent `>`";
}
class Graph_NamedRole<string name, string attrMnemonic> : Graph_Attr<name, attrMnemonic> {
  let parameters = (ins "::mlir::StringAttr":$name);
  let assemblyFormat = "`<` $name `>`";
}
def Graph_InputAttr : Graph_NamedRole<"Input", "input">;
def Graph_ConstantAttr : Graph_NamedRole<"Constant", "constant">;
def Graph_StateAttr : Graph_Attr<"State", "state"> {
  let summary = "State of the named parameter: master, accumulator, exp_avg, exp_avg_sq, momentum; or of the kind scaler, which belongs to no parameter";
  let parameters = (ins "::mlir::StringAttr":$name, "::mlir::StringAttr":$kind);
  let assemblyFormat = "`<` $name `,` $kind `>`";
}

// Roles of a step's results.
def Graph_LossAttr : Graph_Attr<"Loss", "loss">;
def Graph_GradientAttr : Graph_NamedRole<"Gradient", "gradient">;
def Graph_NewValueAttr : Graph_NamedRole<"NewValue", "new_value"> { let summary = "The new value of the argument of that name: a buffer, or a parameter after its update"; }
def Graph_NewStateAttr : Graph_Attr<"NewState", "new_state"> {
  let summary = "The new value of the state argument of that name and kind";
  let parameters = (ins "::mlir::StringAttr":$name, "::mlir::StringAttr":$kind);
  let assemblyFormat = "`<` $name `,` $kind `>`";
}
def Graph_OutputAttr : Graph_NamedRole<"Output", "output">;

//===--- Interfaces ---===//

class Graph_Interface<string name> : OpInterface<name> { let cppNamespace = "::heddle::graph"; }

def Graph_Pointwise : Graph_Interface<"Pointwise"> {
  let description = [{Each result element depends on the operands' elements at the same (broadcast) position only.}];
}

def Graph_ViewLike : Graph_Interface<"ViewLike"> {
  let description = [{
    Results look into the first operand's storage; their types say where.

    Constraints:
    * graph_view_r1: no result looks outside the operand's storage: the storages have equal bytes.
    * graph_view_r2: a view that only reshapes keeps the number of elements.
  }];
  let methods = [InterfaceMethod<"The tensor looked into.", "::mlir::Value", "getViewSource", (ins), "", "return $_op->getOperand(0);">];
  let verify = "return ::heddle::graph::detail::verifyViewLike($_op);";
}

def Graph_Shardable : Graph_Interface<"Shardable"> {
  let description = [{Has a partitioning rule: sharding passes may split its operands.}];
}

def Graph_Costed : Graph_Interface<"Costed"> {
  let description = [{What executing the op takes. Multiply and add count as two operations; bytes are those of operands read and results written once each.}];
  let methods = [
    InterfaceMethod<"Floating-point operations.", "int64_t", "getFlops", (ins), "", "return ::heddle::graph::detail::flopsOf($_op);">,
    InterfaceMethod<"Bytes moved.", "int64_t", "getBytes", (ins), "", "return ::heddle::graph::detail::bytesOf($_op);">
  ];
}

def Graph_Linked : Graph_Interface<"Linked"> {
  let description = [{
    Belongs to an autograd node, shared by a forward op and its backward ops.

    Constraints:
    * graph_linked_r1: graph.node, graph.recompute_of and graph.rng_id are i64.
    * graph_linked_r2: graph.phase is a #graph.phase.
    * graph_linked_r3: no other attribute begins with "graph.".
  }];
  let methods = [
    InterfaceMethod<"The autograd node, if any.", "std::optional<int64_t>", "getNode", (ins), "",
      "return ::heddle::graph::detail::integerAttr($_op, GraphDialect::kNodeAttr);">,
    InterfaceMethod<"Node of the forward op that this op repeats, if any.", "std::optional<int64_t>", "getRecomputeOf", (ins), "",
      "return ::heddle::graph::detail::integerAttr($_op, GraphDialect::kRecomputeOfAttr);">,
    InterfaceMethod<"Part of the step.", "::heddle::graph::Phase", "getPhase", (ins), "", "return ::heddle::graph::detail::phaseOf($_op);">
  ];
  let verify = "return ::heddle::graph::detail::verifyLinked($_op);";
}

#endif  // HEDDLE_GRAPH_DIALECT
