// The sched dialect: a training step as steps on streams over planned bytes. Written by passes/schedule, turned into a plan file by passes/emit.
// Invariant: every byte a step touches is named by a `sched.ref` operand, every order between streams by an event; nothing depends on the text's order except steps of one stream.
// What would break it: a step that keeps state of its own, or a ref whose layout reaches outside its buffer.
#ifndef HEDDLE_SCHED_OPS
#define HEDDLE_SCHED_OPS

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/OpBase.td"
include "mlir/IR/RegionKindInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Sched_Dialect : Dialect {
  let name = "sched";
  let cppNamespace = "::heddle::sched";
  let summary = "Streams, events, buffers and sections";
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
  // Refs carry graph layouts.
  let dependentDialects = ["::heddle::graph::GraphDialect"];
}

// ---- Types ----

class Sched_Type<string name, string typeMnemonic> : TypeDef<Sched_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def Sched_Buffer : Sched_Type<"Buffer", "buffer"> {
  let summary = "A range of bytes in an arena";
}

def Sched_Ref : Sched_Type<"Ref", "ref"> {
  let summary = "A strided tensor over a buffer";
  let description = [{
    The tensor type's layout encoding speaks of the whole buffer: strides and offset in elements, storage bytes at most the buffer's.
  }];
  let parameters = (ins "::mlir::RankedTensorType":$tensor);
  let assemblyFormat = "`<` $tensor `>`";
}

// ---- Attributes ----

class Sched_Attr<string name, string attrMnemonic> : AttrDef<Sched_Dialect, name> {
  let mnemonic = attrMnemonic;
}

def Sched_OperandAttr : Sched_Attr<"Operand", "operand"> { let summary = "The step's next `reads` operand"; }
def Sched_DeviceAttr : Sched_Attr<"Device", "device"> { let summary = "The plan's target device"; }
def Sched_LayoutNameAttr : Sched_Attr<"LayoutName", "layout_name"> {
  let summary = "A torch.layout";
  let parameters = (ins StringRefParameter<>:$value);
  let assemblyFormat = "`<` $value `>`";
}
def Sched_MemoryFormatAttr : Sched_Attr<"MemoryFormat", "memory_format"> {
  let summary = "A torch.memory_format";
  let parameters = (ins StringRefParameter<>:$value);
  let assemblyFormat = "`<` $value `>`";
}
def Sched_RuntimeAttr : Sched_Attr<"Runtime", "runtime"> {
  let summary = "A scalar that the caller sets for every run";
  let parameters = (ins StringRefParameter<>:$value);
  let assemblyFormat = "`<` $value `>`";
}

// Case order is the plan's: runtime/plan/plan.fbs.
class Sched_Enum<string name, string doc, list<I32EnumAttrCase> cases> : I32EnumAttr<name, doc, cases> {
  let cppNamespace = "::heddle::sched";
}
def Sched_Arena : Sched_Enum<"Arena", "What a buffer's offset counts from",
  [I32EnumAttrCase<"Scratch", 0, "scratch">, I32EnumAttrCase<"State", 1, "state">, I32EnumAttrCase<"Input", 2, "input">,
   I32EnumAttrCase<"Constant", 3, "constant">]>;
def Sched_Space : Sched_Enum<"Space", "Memory space",
  [I32EnumAttrCase<"Device", 0, "device">, I32EnumAttrCase<"PinnedHost", 1, "pinned_host">, I32EnumAttrCase<"Host", 2, "host">]>;
def Sched_Category : Sched_Enum<"Category", "What a buffer holds",
  [I32EnumAttrCase<"Parameter", 0, "parameter">, I32EnumAttrCase<"Master", 1, "master">, I32EnumAttrCase<"Buffer", 2, "module_buffer">,
   I32EnumAttrCase<"Optimizer", 3, "optimizer">, I32EnumAttrCase<"Accumulator", 4, "accumulator">, I32EnumAttrCase<"Gradient", 5, "gradient">,
   I32EnumAttrCase<"Activation", 6, "activation">, I32EnumAttrCase<"Temporary", 7, "temporary">, I32EnumAttrCase<"Input", 8, "step_input">,
   I32EnumAttrCase<"Constant", 9, "constant_data">, I32EnumAttrCase<"Output", 10, "output">]>;

// ---- Structure ----

class Sched_Op<string name, list<Trait> traits = []> : Op<Sched_Dialect, name, traits>;

def Sched_PlanOp : Sched_Op<"plan", [IsolatedFromAbove, SingleBlock, NoTerminator]> {
  let summary = "A whole scheduled program";
  let description = [{
    Holds the buffers that outlive a section, their values and bindings, then the sections.

    Constraints:
    * sched_plan_r1: at least one stream; stream names are distinct.
    * sched_plan_r2: section names are distinct and each is one of prologue, micro_first, micro_next, boundary, evaluate, replay.
    * sched_plan_r3: the body holds only buffers, values, bindings and sections.
    * sched_plan_r4: the mesh has as many sizes as axes, each at least 1.

    `mesh_axes` and `mesh_sizes` are the axes of the ranks that run the plan, in rank order; none where there is one rank.
  }];
  let arguments = (ins StrAttr:$target, StrAttr:$precision, StrAttr:$mode, StrAttr:$torch_version, StrAttr:$config, StrArrayAttr:$streams,
    DefaultValuedAttr<StrArrayAttr, "{}">:$mesh_axes, DefaultValuedAttr<DenseI64ArrayAttr, "{}">:$mesh_sizes);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$mode `streams` $streams attr-dict-with-keyword $body";
  let hasRegionVerifier = 1;
}

def Sched_BufferOp : Sched_Op<"buffer"> {
  let summary = "Names a range of bytes";
  let description = [{
    `offset` is absent until `sched-plan-memory` has placed the buffer.

    Constraints:
    * sched_buffer_r1: bytes is not negative.
    * sched_buffer_r2: offset is a multiple of 256 and not negative.
    * sched_buffer_r3: scratch buffers lie in a section, all others directly in the plan.
  }];
  let arguments = (ins Sched_Arena:$arena, Sched_Space:$space, Sched_Category:$category, I64Attr:$bytes, OptionalAttr<I64Attr>:$offset,
    OptionalAttr<StrAttr>:$label);
  let results = (outs Sched_Buffer:$result);
  let assemblyFormat = "$arena $space $category $bytes `bytes` (`at` $offset^)? ($label^)? attr-dict";
  let hasVerifier = 1;
}

def Sched_ValueOp : Sched_Op<"value"> {
  let summary = "Views a buffer as a strided tensor";
  let description = [{
    The layout's first element lies `base` elements behind the buffer's start, and on a rank whose coordinate along the mesh's first axis is c
    another c × `rank_stride` elements behind that. Where ranks differ in more than that, `rank_offsets[c]` is added instead (-1: a rank that does not have the
    value at all), and a flat value has `rank_sizes[c]` elements; its type's length is the largest.

    Constraints:
    * sched_value_r1: the elements reached by the layout lie inside the buffer, on every rank.
    * sched_value_r2: base and rank_stride are not negative.
    * sched_value_r3: rank_offsets and rank_sizes have one entry per rank or none; sizes need a flat type and do not exceed it.
  }];
  let arguments = (ins Sched_Buffer:$buffer, DefaultValuedAttr<I64Attr, "0">:$base, DefaultValuedAttr<I64Attr, "0">:$rank_stride,
    DefaultValuedAttr<DenseI64ArrayAttr, "{}">:$rank_offsets, DefaultValuedAttr<DenseI64ArrayAttr, "{}">:$rank_sizes);
  let skipDefaultBuilders = 1;
  let builders = [OpBuilder<(ins "::mlir::Type":$type, "::mlir::Value":$buffer, CArg<"int64_t", "0">:$base, CArg<"int64_t", "0">:$rank_stride,
    CArg<"::llvm::ArrayRef<int64_t>", "{}">:$rank_offsets, CArg<"::llvm::ArrayRef<int64_t>", "{}">:$rank_sizes), [{
    $_state.addTypes(type);
    $_state.addOperands(buffer);
    Properties& properties = $_state.getOrAddProperties<Properties>();
    properties.base = $_builder.getI64IntegerAttr(base);
    properties.rank_stride = $_builder.getI64IntegerAttr(rank_stride);
    properties.rank_offsets = $_builder.getDenseI64ArrayAttr(rank_offsets);
    properties.rank_sizes = $_builder.getDenseI64ArrayAttr(rank_sizes);
  }]>];
  let results = (outs Sched_Ref:$result);
  let assemblyFormat = "$buffer attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def Sched_InputOp : Sched_Op<"input"> {
  let summary = "Binds a value that the caller gives at every run";
  let arguments = (ins StrAttr:$name, Sched_Ref:$value);
  let assemblyFormat = "$name $value attr-dict `:` type($value)";
}

def Sched_StateOp : Sched_Op<"state"> {
  let summary = "Binds a named tensor that outlives a section";
  let description = [{
    Constraints:
    * sched_state_r1: kind is one of parameter, master, buffer, exp_avg, exp_avg_sq, momentum, accumulator, scaler.
    * sched_state_r2: the value lies in the state arena.
    * sched_state_r3: a shard has its whole type, its bucket offset and one bound more than the mesh has ranks.

    Every element is `initial` until somebody writes it. With `bounds` the value is a shard: a flat part of a bucket that holds the tensor of type `whole` from element `slot_offset` on. Rank r holds the bucket's
    elements [bounds[r], bounds[r + 1]).
  }];
  let arguments = (ins StrAttr:$kind, StrArrayAttr:$names, Sched_Ref:$value, BoolAttr:$trainable, BoolAttr:$persistent, StrAttr:$role,
    OptionalAttr<TypeAttr>:$whole, DefaultValuedAttr<I64Attr, "0">:$slot_offset, DefaultValuedAttr<DenseI64ArrayAttr, "{}">:$bounds,
    DefaultValuedAttr<F64Attr, "0.0">:$initial);
  let builders = [OpBuilder<(ins "::llvm::StringRef":$kind, "::mlir::ArrayAttr":$names, "::mlir::Value":$value, "bool":$trainable, "bool":$persistent,
    "::llvm::StringRef":$role), [{
    build($_builder, $_state, $_builder.getStringAttr(kind), names, value, $_builder.getBoolAttr(trainable), $_builder.getBoolAttr(persistent),
      $_builder.getStringAttr(role), ::mlir::TypeAttr(), $_builder.getI64IntegerAttr(0), $_builder.getDenseI64ArrayAttr({}), $_builder.getF64FloatAttr(0));
  }]>];
  let assemblyFormat = "$kind $names $value attr-dict `:` type($value)";
  let hasVerifier = 1;
}

def Sched_ConstantOp : Sched_Op<"constant"> {
  let summary = "Binds data that is copied to a value's buffer at load";
  let description = [{
    Constraints:
    * sched_constant_r1: data has as many bytes as the value has elements, densely.
  }];
  let arguments = (ins StrAttr:$name, StrAttr:$data, Sched_Ref:$value);
  let assemblyFormat = "$name $value $data attr-dict `:` type($value)";
  let hasVerifier = 1;
}

def Sched_SectionOp : Sched_Op<"section", [SingleBlock, NoTerminator, HasParent<"PlanOp">]> {
  let summary = "A run of steps that the caller starts as a whole";
  let description = [{
    `scratch_bytes` and `live_lower_bound` are absent until `sched-plan-memory` has run; the bound is the largest sum of bytes live at one step.

    Constraints:
    * sched_section_r1: the body holds only buffers, values, steps and results.
    * sched_section_r2: a step's stream is one of the plan's.
    * sched_section_r3: an event is in [0, events) and signalled by at most one step.
    * sched_section_r4: a step waits only for events that an earlier step signals.
    * sched_section_r5: no placed scratch buffer reaches beyond scratch_bytes.
  }];
  let arguments = (ins StrAttr:$name, DefaultValuedAttr<I64Attr, "0">:$events, OptionalAttr<I64Attr>:$scratch_bytes,
    OptionalAttr<I64Attr>:$live_lower_bound);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$name attr-dict-with-keyword $body";
  let hasRegionVerifier = 1;
}

def Sched_ResultOp : Sched_Op<"result", [HasParent<"SectionOp">]> {
  let summary = "Binds a value that the caller reads after the section";
  let description = [{
    Constraints:
    * sched_result_r1: kind is one of loss, gradient, output, new_value.
  }];
  let arguments = (ins StrAttr:$kind, StrAttr:$name, Sched_Ref:$value);
  let assemblyFormat = "$kind $name $value attr-dict `:` type($value)";
  let hasVerifier = 1;
}

// ---- Steps ----

def Sched_StepInterface : OpInterface<"StepInterface"> {
  let cppNamespace = "::heddle::sched";
  let description = "One entry of a section: what it reads and writes, its stream, what it waits for, what it signals.";
  let methods = [
    InterfaceMethod<"Refs the step reads.", "::mlir::OperandRange", "getReads">,
    InterfaceMethod<"Refs the step writes.", "::mlir::OperandRange", "getWrites">,
    InterfaceMethod<"Index of the stream.", "uint64_t", "getStream">,
    InterfaceMethod<"Events waited for.", "::llvm::ArrayRef<int64_t>", "getWaits">,
    InterfaceMethod<"Event signalled.", "std::optional<uint64_t>", "getSignal">,
    InterfaceMethod<"Replaces the events waited for.", "void", "setWaits", (ins "::llvm::ArrayRef<int64_t>":$waits)>,
    InterfaceMethod<"Replaces the event signalled.", "void", "setSignal", (ins "std::optional<uint64_t>":$signal)>,
  ];
}

class Sched_Step<string name, dag extra> : Sched_Op<name, [HasParent<"SectionOp">, AttrSizedOperandSegments, Sched_StepInterface]> {
  let arguments = !con(extra, (ins Variadic<Sched_Ref>:$reads, Variadic<Sched_Ref>:$writes,
    DefaultValuedAttr<I64Attr, "0">:$stream, DefaultValuedAttr<DenseI64ArrayAttr, "{}">:$waits, OptionalAttr<I64Attr>:$signal,
    OptionalAttr<I64Attr>:$rng_id, DefaultValuedAttr<I64Attr, "0">:$phase, DefaultValuedAttr<I64Attr, "0">:$flops));
  let hasVerifier = 1;
}

class Sched_CallStep<string name> : Sched_Step<name,
    (ins StrAttr:$callee, ArrayAttr:$args, StrArrayAttr:$arg_names, DefaultValuedAttr<DenseI64ArrayAttr, "{}">:$result_slots)> {
  let assemblyFormat = [{
    $callee `(` $reads `)` `->` `(` $writes `)` $args (`stream` $stream^)? (`wait` $waits^)? (`signal` $signal^)? attr-dict
    `:` functional-type($reads, $writes)
  }];
  let builders = [OpBuilder<(ins "::llvm::StringRef":$callee, "::mlir::ArrayAttr":$args, "::mlir::ArrayAttr":$arg_names,
    "::llvm::ArrayRef<int64_t>":$result_slots, "::mlir::ValueRange":$reads, "::mlir::ValueRange":$writes), [{
    build($_builder, $_state, $_builder.getStringAttr(callee), args, arg_names, $_builder.getDenseI64ArrayAttr(result_slots), reads, writes,
      $_builder.getI64IntegerAttr(0), $_builder.getDenseI64ArrayAttr({}), ::mlir::IntegerAttr(), ::mlir::IntegerAttr(), $_builder.getI64IntegerAttr(0),
      $_builder.getI64IntegerAttr(0));
  }]>];
}

def Sched_AtenOp : Sched_CallStep<"aten"> {
  let summary = "Calls an ATen or custom operator";
  let description = [{
    `args` has one entry per schema argument: `unit` where absent, `#sched.operand` for the next read, an array of both for a list, else a constant as
    docs/formats.md writes it, with `#sched.device`, `#sched.layout_name` and `#sched.memory_format` where the schema's kind is known.
    `result_slots` has one entry per tensor result: the index into `writes`, or -1 for a result that nobody reads.

    Constraints:
    * sched_call_r1: `args` holds as many `#sched.operand` as there are reads.
    * sched_call_r2: `arg_names` is as long as `args`.
    * sched_call_r3: every write occurs exactly once in `result_slots`.
    * sched_call_r4: no write goes to the constant or input arena.
  }];
}

def Sched_KernelOp : Sched_CallStep<"kernel"> {
  let summary = "Launches a kernel of the registry";
  let description = "As `sched.aten`; arguments are found by their name in `arg_names`.";
}

def Sched_HostOp : Sched_CallStep<"host"> {
  let summary = "Calls a host handler";
  let description = "As `sched.kernel`; the handler runs on the host when everything it waits for is done.";
}

def Sched_CollectiveOp : Sched_CallStep<"collective"> {
  let summary = "Moves data between the ranks of an axis";
  let description = [{
    `callee` is all_gather, reduce_scatter, all_reduce or broadcast. As `sched.kernel` otherwise; every rank runs the collectives of a stream in one order.

    Constraints:
    * sched_collective_r1: callee is one of those; one read, one write, of one element type, both dense.
  }];
}

def Sched_GemmOp : Sched_Step<"gemm", (ins)> {
  let summary = "Multiplies two matrices into a third, or onto it";
  let description = [{
    Reads `a`, `b` and, to add, the matrix it writes: `out = a · b` or `out = a · b + out`, summed and stored in the written dtype.

    Constraints:
    * sched_gemm_r1: two reads, or three of which the last is the write; one write.
    * sched_gemm_r2: a is m×k, b k×n and the write m×n.
    * sched_gemm_r3: a and b are both bf16, f16 or f32; the write is f32.
    * sched_gemm_r4: every matrix has stride 1 along one dimension and, along the other, at least that dimension's size.
    * sched_call_r4 as for `sched.aten`.
  }];
  let builders = [OpBuilder<(ins "::mlir::ValueRange":$reads, "::mlir::Value":$to, "uint64_t":$flops), [{
    build($_builder, $_state, reads, to, $_builder.getI64IntegerAttr(0), $_builder.getDenseI64ArrayAttr({}), ::mlir::IntegerAttr(), ::mlir::IntegerAttr(),
      $_builder.getI64IntegerAttr(0), $_builder.getI64IntegerAttr(flops));
  }]>];
  let assemblyFormat = [{
    `(` $reads `)` `to` $writes (`stream` $stream^)? (`wait` $waits^)? (`signal` $signal^)? attr-dict `:` functional-type($reads, $writes)
  }];
}

def Sched_CopyOp : Sched_Step<"copy", (ins)> {
  let summary = "Copies one value to another, converting the dtype";
  let description = [{
    Constraints:
    * sched_copy_r1: one read and one write of equal sizes.
    * sched_call_r4 as for `sched.aten`.
  }];
  let builders = [OpBuilder<(ins "::mlir::Value":$from, "::mlir::Value":$to), [{
    build($_builder, $_state, from, to, $_builder.getI64IntegerAttr(0), $_builder.getDenseI64ArrayAttr({}), ::mlir::IntegerAttr(), ::mlir::IntegerAttr(),
      $_builder.getI64IntegerAttr(0), $_builder.getI64IntegerAttr(0));
  }]>];
  let assemblyFormat = [{
    $reads `to` $writes (`stream` $stream^)? (`wait` $waits^)? (`signal` $signal^)? attr-dict `:` type($reads) `to` type($writes)
  }];
}

#endif  // HEDDLE_SCHED_OPS
