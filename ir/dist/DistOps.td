// The dist dialect: a step as every rank of a mesh runs it, on local shapes, with collectives by axis name.
// Invariant: one program for all ranks; whatever differs between ranks is a window that the rank's coordinate places (`dist.shard`) or a value that arrives from elsewhere.
// What would break it: a constant that was computed from one rank's number.
#ifndef HEDDLE_DIST_OPS
#define HEDDLE_DIST_OPS

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/OpBase.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Dist_Dialect : Dialect {
  let name = "dist";
  let cppNamespace = "::heddle::dist";
  let summary = "Meshes, buckets and collectives";
  let description = [{
    The mesh is the module's attribute `dist.mesh`, an array of `#dist.axis` in rank order, the last axis varying fastest.

    A bucket is a flat tensor in which the tensors of one layer, dtype and kind of update lie one after another, each at a multiple of 128
    elements, so that buckets of parameters, masters, moments and gradients agree in every offset. A shard is one rank's contiguous part of it.
  }];
  let useDefaultAttributePrinterParser = 1;
  let hasOperationAttrVerify = 1;
  let dependentDialects = ["::heddle::graph::GraphDialect"];
  let extraClassDeclaration = [{
    static constexpr llvm::StringLiteral kMeshAttr = "dist.mesh";
    void registerAttributes();
  }];
}

//===--- Attributes ---===//

class Dist_Attr<string name, string attrMnemonic> : AttrDef<Dist_Dialect, name> { let mnemonic = attrMnemonic; }

def Dist_AxisAttr : Dist_Attr<"Axis", "axis"> {
  let summary = "A named axis of the mesh and its number of ranks";
  let parameters = (ins "::mlir::StringAttr":$name, "int64_t":$size);
  let assemblyFormat = "`<` $name `,` $size `>`";
}

def Dist_MemberAttr : Dist_Attr<"Member", "member"> {
  let summary = "A tensor's place in a bucket: all its names, first element, whole type, whether it trains, its role";
  let parameters = (ins "::mlir::ArrayAttr":$names, "int64_t":$offset, "::mlir::TypeAttr":$type, "::mlir::BoolAttr":$trainable, "::mlir::StringAttr":$role);
  let assemblyFormat = "`<` $names `,` $offset `,` $type `,` $trainable `,` $role `>`";
}

def Dist_BucketAttr : Dist_Attr<"Bucket", "bucket"> {
  let summary = "Role of an argument that is a bucket, or a shard of one";
  let description = [{
    `kind` is the state's: parameter, master, exp_avg, exp_avg_sq, momentum or accumulator. Empty `bounds`: every rank holds the whole bucket.
    Else the argument is a shard: rank r holds the bucket's elements [bounds[r], bounds[r + 1]), from its own element 0.

    Buckets of one non-empty `arena` lie in one range of bytes, so that a rank-dependent choice of tensors has one base address. `starts` says where: one element
    for a whole bucket, one per rank for a shard.
  }];
  let parameters = (ins "::mlir::StringAttr":$name, "::mlir::StringAttr":$kind, "::mlir::ArrayAttr":$members, "::mlir::DenseI64ArrayAttr":$bounds,
    "::mlir::StringAttr":$arena, "::mlir::DenseI64ArrayAttr":$starts);
  let assemblyFormat = "`<` $name `,` $kind `,` $members `,` $bounds `,` $arena `,` $starts `>`";
}

def Dist_NewBucketAttr : Dist_Attr<"NewBucket", "new_bucket"> {
  let summary = "Role of a result: the new value of the bucket argument of that name and kind";
  let parameters = (ins "::mlir::StringAttr":$name, "::mlir::StringAttr":$kind);
  let assemblyFormat = "`<` $name `,` $kind `>`";
}

//===--- Ops ---===//

class Dist_Op<string name, list<Trait> traits = []> : Op<Dist_Dialect, name, traits # [Pure]>;

def Dist_SlotOp : Dist_Op<"slot"> {
  let summary = "One tensor of a bucket";
  let description = [{
    A window, not a copy: the result lies in the bucket's bytes from element `offset` on, in its own type's layout.

    Constraints:
    * dist_slot_r1: bucket and result have one element type, and the result's storage lies inside the bucket.
  }];
  let arguments = (ins AnyRankedTensor:$bucket, I64Attr:$offset);
  let results = (outs AnyRankedTensor:$result);
  let hasVerifier = 1;
}

def Dist_ShardOp : Dist_Op<"shard"> {
  let summary = "This rank's part of a bucket";
  let description = [{
    Without bounds a window of the result's length L at element coordinate × L, where the coordinate is the rank's along `axis`. With bounds rank r's window is
    [bounds[r], bounds[r + 1]), and the result's length the largest of them.

    Constraints:
    * dist_shard_r1: bucket and result are flat and of one element type; without bounds, the bucket's length is a multiple of the result's.
    * dist_bounds_r1: bounds ascend from 0 to the bucket's length, and the shard is as long as the longest part.
  }];
  let arguments = (ins AnyRankedTensor:$bucket, StrAttr:$axis, OptionalAttr<DenseI64ArrayAttr>:$bounds);
  let builders = [OpBuilder<(ins "::mlir::Type":$type, "::mlir::Value":$bucket, "::llvm::StringRef":$axis, "::llvm::ArrayRef<int64_t>":$bounds), [{
    build($_builder, $_state, type, bucket, $_builder.getStringAttr(axis),
      bounds.empty() ? ::mlir::DenseI64ArrayAttr() : $_builder.getDenseI64ArrayAttr(bounds));
  }]>];
  let results = (outs AnyRankedTensor:$result);
  let hasVerifier = 1;
}

def Dist_PackOp : Dist_Op<"pack"> {
  let summary = "Lays tensors out as a bucket";
  let description = [{
    Value i is converted to the result's element type and lies from element `offsets[i]` on in memory order of its own type in `types[i]`.
    What lies between is unspecified. The lowering writes each value where it belongs as soon as it is computed.

    Constraints:
    * dist_pack_r1: as many offsets and types as values; shapes agree.
    * dist_pack_r2: offsets ascend, no two tensors overlap, all lie inside the result.
  }];
  let arguments = (ins Variadic<AnyRankedTensor>:$values, DenseI64ArrayAttr:$offsets, TypeArrayAttr:$types);
  let results = (outs AnyRankedTensor:$result);
  let hasVerifier = 1;
}

class Dist_Collective<string name> : Dist_Op<name> {
  let arguments = (ins AnyRankedTensor:$value, StrAttr:$axis);
  let results = (outs AnyRankedTensor:$result);
  let hasVerifier = 1;
}

// With bounds rank r's part of the longer tensor is [bounds[r], bounds[r + 1]).
class Dist_Partition<string name> : Dist_Op<name> {
  let arguments = (ins AnyRankedTensor:$value, StrAttr:$axis, OptionalAttr<DenseI64ArrayAttr>:$bounds);
  let results = (outs AnyRankedTensor:$result);
  let hasVerifier = 1;
  let builders = [OpBuilder<(ins "::mlir::Type":$type, "::mlir::Value":$value, "::llvm::StringRef":$axis, "::llvm::ArrayRef<int64_t>":$bounds), [{
    build($_builder, $_state, type, value, $_builder.getStringAttr(axis),
      bounds.empty() ? ::mlir::DenseI64ArrayAttr() : $_builder.getDenseI64ArrayAttr(bounds));
  }]>];
}

def Dist_AllGatherOp : Dist_Partition<"all_gather"> {
  let summary = "Concatenates the shards of all ranks of an axis, on every rank";
  let description = [{
    Constraints:
    * dist_all_gather_r1: flat tensors of one element type.
    * dist_all_gather_r2: without bounds, the result is as many times longer as the axis has ranks.
    * dist_bounds_r1 as for `dist.shard`.
  }];
}

def Dist_ReduceScatterOp : Dist_Partition<"reduce_scatter"> {
  let summary = "Sums over the ranks of an axis, each rank keeping its part";
  let description = [{
    Constraints:
    * dist_reduce_scatter_r1: flat tensors of one element type.
    * dist_reduce_scatter_r2: without bounds, the value is as many times longer as the axis has ranks.
    * dist_bounds_r1 as for `dist.shard`.
  }];
}

def Dist_AllReduceOp : Dist_Collective<"all_reduce"> {
  let summary = "Sums over the ranks of an axis";
  let description = [{
    Constraints:
    * dist_all_reduce_r1: value and result have one type.
  }];
}

def Dist_BroadcastOp : Dist_Collective<"broadcast"> {
  let summary = "Gives the value of the axis's first rank to all of its ranks";
  let description = [{
    Constraints:
    * dist_broadcast_r1: value and result have one type.
  }];
}

#endif  // HEDDLE_DIST_OPS
