// The ops of the graph dialect that are no ATen operators: the step and what binds it. GraphAtenOps.td has the operators.
// Invariant: these few are what most passes include; the generated operators are reached through interfaces and the op table.
#ifndef HEDDLE_GRAPH_OPS
#define HEDDLE_GRAPH_OPS

include "ir/graph/GraphAten.td"
include "mlir/IR/RegionKindInterface.td"

def Graph_StepOp : Op<Graph_Dialect, "step", [IsolatedFromAbove, SingleBlockImplicitTerminator<"ReturnOp">]> {
  let summary = "A whole training step as one flat block in program order";
  let description = [{
    Constraints:
    * graph_step_r1: one role per argument, an argument role each.
    * graph_step_r2: one role per returned value, a result role each.
    * graph_step_r3: format_version is 1.
    * graph_step_r4: names are unique among parameters and buffers, and a gradient's name is a parameter's.
    * graph_step_r5: a loss is a floating tensor of one element.
    * graph_step_r6: every tensor has a static shape and less than 2^63 bytes.

    `fusion` is written by graph-fuse-kernels: how many composites of each kind became kernels, and how many were left to be inlined.

    `loss_average` is written by graph-append-optimizer: `tokens` says that the loss result is the sum over the micro-batch's labels, to be divided by the label
    count of all micro-batches; `batches`, that it is the micro-batch's own mean.
  }];
  let arguments = (ins ArrayAttr:$arg_roles, I64Attr:$format_version, OptionalAttr<DictionaryAttr>:$fusion, OptionalAttr<StrAttr>:$loss_average, StrAttr:$precision, ArrayAttr:$result_roles, StrAttr:$target, StrAttr:$torch_version);
  let regions = (region SizedRegion<1>:$body);
  let hasVerifier = 1;
  let hasRegionVerifier = 1;
}

def Graph_ReturnOp : Op<Graph_Dialect, "return", [Terminator, HasParent<"StepOp">]> {
  let summary = "Ends a step with its results";
  let arguments = (ins Variadic<Graph_Tensor>:$values);
  let builders = [OpBuilder<(ins), "">];
}

def Graph_GuardOp : Op<Graph_Dialect, "guard", [Graph_Linked]> {
  let summary = "A value the host read while the step was recorded";
  let description = [{
    The recorded program holds only for batches where `value` equals `expected`, elements in row-major order, bools as 0 and 1.

    Constraints:
    * graph_guard_r1: one expected value per element.
    * graph_guard_r2: the value is of integer or bool type.
  }];
  let arguments = (ins Graph_Tensor:$value, DenseI64ArrayAttr:$expected);
  let hasVerifier = 1;
}

def Graph_CallOp : Op<Graph_Dialect, "call", [Graph_Linked, Graph_Costed]> {
  let summary = "Any operator without an ODS op, executable and opaque to sharding";
  let description = [{
    `args` has one entry per schema argument; `#graph.operand` stands for the next operand, an array of entries for a list, `unit` for an absent argument.

    Without `dps`, operands in `mutates` are written through, and results are those operands' handles, unless `fresh_results` is there: then the results are
    new tensors. With `dps` (after graph-functionalize) nothing is written: the last `mutates.size()` results are the new values of those operands,
    in that order, and the results before them are the call's fresh results. The executor runs the kernel in place on a copy of the operand (or the dead operand itself).

    Constraints:
    * graph_call_r1: callee is "ns::name" or "ns::name.overload", and no ODS op exists for it.
    * graph_call_r2: args name as many operands as there are.
    * graph_call_r3: mutates holds operand numbers in range, each once.
    * graph_call_r4: a result that is an operand's handle has the operand's type; a `dps` result has its shape and element type.
    * graph_call_r5: dps needs mutates.
  }];
  let arguments = (ins Variadic<Graph_Tensor>:$inputs, ArrayAttr:$args, StrAttr:$callee, UnitAttr:$dps, UnitAttr:$fresh_results, OptionalAttr<DenseI64ArrayAttr>:$mutates);
  let results = (outs Variadic<AnyTypeOf<[Graph_Tensor, NoneType]>>:$results);
  let hasVerifier = 1;
}

def Graph_ViewUpdateOp : Op<Graph_Dialect, "view_update", [Graph_Linked, Graph_Costed, AllTypesMatch<["base", "result"]>]> {
  let summary = "The base with the elements under a view replaced";
  let description = [{
    The result has the base's elements, except that those which `layout` selects in the base's storage are the update's. The update is of the view's shape; where
    its own elements lie does not matter.

    Constraints:
    * graph_view_update_r1: layout fits the update's shape.
    * graph_view_update_r2: layout's storage is the base's.
  }];
  let arguments = (ins Graph_Tensor:$base, Graph_Tensor:$update, Graph_LayoutAttr:$layout);
  let results = (outs Graph_Tensor:$result);
  let hasVerifier = 1;
}

def Graph_CompositeOp : Op<Graph_Dialect, "composite", [Graph_Linked, Graph_Costed, IsolatedFromAbove, SingleBlock]> {
  let summary = "Captured ops that together are one known function";
  let description = [{
    The body is the program as it was captured, so inlining it gives the same bits; the kind is what a fusion or sharding pass matches. Values of a forward
    composite that its backward one reads are results beside the function's own.

    Kinds: `rms_norm`, `rotary`, `swiglu`, `cross_entropy`, each also with `_backward`. A backward composite carries its forward composite's `graph.node`.

    Constraints:
    * graph_composite_r1: kind is one of those.
    * graph_composite_r2: the body's arguments have the operands' types.
    * graph_composite_r3: the body ends in graph.yield of the results' types.
  }];
  let arguments = (ins Variadic<Graph_Tensor>:$inputs, StrAttr:$kind);
  let results = (outs Variadic<Graph_Tensor>:$results);
  let regions = (region SizedRegion<1>:$body);
  let hasVerifier = 1;
}

def Graph_YieldOp : Op<Graph_Dialect, "yield", [Terminator, HasParent<"CompositeOp">]> {
  let summary = "Ends a composite's body with its results";
  let arguments = (ins Variadic<Graph_Tensor>:$values);
}

def Graph_KernelOp : Op<Graph_Dialect, "kernel", [Graph_Linked, Graph_Costed]> {
  let summary = "One launch of a kernel of the registry";
  let description = [{
    Written by graph-fuse-kernels in a composite's place. The registry's entry `kernel` says what is computed from the operands, found by `operand_names`, and from
    `scalars`; results are found by position. A result that nothing reads is memory that the kernel works in. `overwrites` has, for each result, the number of the
    operand whose bytes the kernel may write it over, or -1.

    Constraints:
    * graph_kernel_r1: one name per operand, each once.
    * graph_kernel_r2: scalars are i64 or f64, under names that no operand has.
    * graph_kernel_r3: one entry of overwrites per result: -1 or an operand of the result's type, each operand once.
  }];
  let arguments = (ins Variadic<Graph_Tensor>:$inputs, StrAttr:$kernel, StrArrayAttr:$operand_names, DenseI64ArrayAttr:$overwrites, DictionaryAttr:$scalars);
  let results = (outs Variadic<Graph_Tensor>:$results);
  let hasVerifier = 1;
}

#endif  // HEDDLE_GRAPH_OPS
