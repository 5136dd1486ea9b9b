// How schema arguments become operands and attributes, and the classes of ATen ops.
// Invariant: op_table_gen.py reads argument kinds from the record names below; renaming one changes the op table.
#ifndef HEDDLE_GRAPH_ATEN
#define HEDDLE_GRAPH_ATEN

include "ir/graph/GraphDialect.td"

def Graph_Tensor : RankedTensorOf<[I1, UI8, I8, I16, I32, I64, F16, BF16, F32, F64, Complex<F32>, Complex<F64>, F8E4M3FN, F8E5M2]>;

def TensorArg : TypeConstraint<Graph_Tensor.predicate, "tensor", "::mlir::RankedTensorType">;
def OptionalTensorArg : Optional<Graph_Tensor>;
def TensorListArg : Variadic<Graph_Tensor>;
def OptionalTensorListArg : Variadic<Graph_Tensor>;
def PresentArg : ConfinedAttr<DenseBoolArrayAttr, []>;
def TensorRes : TypeConstraint<Or<[Graph_Tensor.predicate, NoneType.predicate]>, "tensor, or none where undefined", "::mlir::Type">;
def TensorListRes : Variadic<Graph_Tensor>;

def Graph_Int : TypedSignlessIntegerAttrBase<I64, "int64_t", "int">;
def Graph_Scalar : Attr<Or<[I64Attr.predicate, F64Attr.predicate, BoolAttr.predicate]>, "int, float or bool"> { let storageType = "::mlir::Attribute"; let returnType = "::mlir::Attribute"; let convertFromStorage = "$_self"; }
def Graph_Type : TypeAttrBase<"::mlir::Type", "element type">;

def IntArg : ConfinedAttr<I64Attr, []>;
def FloatArg : ConfinedAttr<F64Attr, []>;
def BoolArg : ConfinedAttr<BoolAttr, []>;
def ScalarArg : ConfinedAttr<Graph_Scalar, []>;
def IntListArg : ConfinedAttr<DenseI64ArrayAttr, []>;
def FloatListArg : ConfinedAttr<DenseF64ArrayAttr, []>;
def BoolListArg : ConfinedAttr<DenseBoolArrayAttr, []>;
def StringArg : ConfinedAttr<StrAttr, []>;
def ScalarTypeArg : ConfinedAttr<Graph_Type, []>;
def DeviceArg : ConfinedAttr<StrAttr, []>;
def LayoutArg : ConfinedAttr<StrAttr, []>;
def MemoryFormatArg : ConfinedAttr<StrAttr, []>;
def OptionalIntArg : OptionalAttr<I64Attr>;
def OptionalFloatArg : OptionalAttr<F64Attr>;
def OptionalBoolArg : OptionalAttr<BoolAttr>;
def OptionalScalarArg : OptionalAttr<Graph_Scalar>;
def OptionalIntListArg : OptionalAttr<DenseI64ArrayAttr>;
def OptionalFloatListArg : OptionalAttr<DenseF64ArrayAttr>;
def OptionalBoolListArg : OptionalAttr<DenseBoolArrayAttr>;
def OptionalStringArg : OptionalAttr<StrAttr>;
def OptionalScalarTypeArg : OptionalAttr<Graph_Type>;
def OptionalDeviceArg : OptionalAttr<StrAttr>;
def OptionalLayoutArg : OptionalAttr<StrAttr>;
def OptionalMemoryFormatArg : OptionalAttr<StrAttr>;
// Holds the place of a Generator in the schema's order.
def Graph_NoAttr : Attr<CPred<"false">, "nothing: a generator is never written"> { let storageType = "::mlir::Attribute"; let returnType = "::mlir::Attribute"; let convertFromStorage = "$_self"; }
def GeneratorArg : OptionalAttr<Graph_NoAttr>;

class Aten_Op<string mnemonic, dag args, dag outs, list<Trait> traits> : Op<Graph_Dialect, mnemonic, traits # [Graph_Linked, Graph_Costed]> {
  let arguments = args;
  let results = outs;
  // One builder instead of ODS's six per op: passes copy attributes from op to op, they seldom write them one by one.
  let skipDefaultBuilders = 1;
  let builders = [OpBuilder<(ins "::mlir::TypeRange":$types, "::mlir::ValueRange":$values, "::llvm::ArrayRef<::mlir::NamedAttribute>":$attributes), [{
    $_state.addTypes(types); $_state.addOperands(values); $_state.addAttributes(attributes);
  }]>];
}

class MatmulOp<string mnemonic, dag args, dag outs, list<Trait> traits = []> : Aten_Op<mnemonic, args, outs, traits # [Graph_Shardable]> {
  let description = [{
    Constraints:
    * graph_matmul_r1: both matrices have the rank the product needs.
    * graph_matmul_r2: the summed dimensions are equal.
    * graph_matmul_r3: the result has the outer dimensions.
  }];
  let hasVerifier = 1;
  let extraClassDefinition = "::llvm::LogicalResult $cppClass::verify() { return detail::verifyMatmul(getOperation()); }";
}
class ConvolutionOp<string mnemonic, dag args, dag outs, list<Trait> traits = []> : Aten_Op<mnemonic, args, outs, traits>;
class AttentionOp<string mnemonic, dag args, dag outs, list<Trait> traits = []> : Aten_Op<mnemonic, args, outs, traits # [Graph_Shardable]> {
  let description = [{
    Constraints:
    * graph_attention_r1: query, key and value have rank 4 and one batch size and, but for the value's, one head size.
  }];
  let hasVerifier = 1;
  let extraClassDefinition = "::llvm::LogicalResult $cppClass::verify() { return detail::verifyAttention(getOperation()); }";
}
class ViewOp<string mnemonic, dag args, dag outs, list<Trait> traits = []> : Aten_Op<mnemonic, args, outs, traits # [Graph_ViewLike, Graph_Shardable]>;
class PointwiseOp<string mnemonic, dag args, dag outs, list<Trait> traits = []> : Aten_Op<mnemonic, args, outs, traits # [Graph_Pointwise, Graph_Shardable]>;
class RandomOp<string mnemonic, dag args, dag outs, list<Trait> traits = []> : Aten_Op<mnemonic, args, outs, traits # [Graph_Shardable]>;
class ReductionOp<string mnemonic, dag args, dag outs, list<Trait> traits = []> : Aten_Op<mnemonic, args, outs, traits # [Graph_Shardable]>;
class LossOp<string mnemonic, dag args, dag outs, list<Trait> traits = []> : Aten_Op<mnemonic, args, outs, traits # [Graph_Shardable]>;
class IndexingOp<string mnemonic, dag args, dag outs, list<Trait> traits = []> : Aten_Op<mnemonic, args, outs, traits # [Graph_Shardable]>;
class FactoryOp<string mnemonic, dag args, dag outs, list<Trait> traits = []> : Aten_Op<mnemonic, args, outs, traits # [Graph_Shardable]>;

#endif  // HEDDLE_GRAPH_ATEN
