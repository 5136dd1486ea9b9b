// Passes that put a captured step into the form that the rest of the compiler works on.
#ifndef HEDDLE_PASSES_GRAPH_PASSES
#define HEDDLE_PASSES_GRAPH_PASSES

include "mlir/Pass/PassBase.td"

def Functionalize : Pass<"graph-functionalize", "::heddle::graph::StepOp"> {
  let summary = "Replaces writes through handles by new values";
  let description = [{
    Requires a step as captured: values are handles on storages, a graph.call with `mutates` writes through them.

    Afterwards no op writes: an in-place call is the functional operator where that one exists and gives the same element type, otherwise a
    graph.call marked `dps`; a write through a view makes a new value of the whole storage by graph.view_update; views that were taken before
    a write and used after it are taken again; a buffer that was written leaves the step as `#graph.new_value`. Every value is bitwise what it was.

    ```mlir
    %1 = "graph.select.int"(%0) <{dim = 0 : i64, index = 1 : i64}> : (tensor<2x4xf32>) -> tensor<4xf32, #graph.layout<[1], 4, 32>>
    %2 = "graph.call"(%1, %arg1) <{args = [#graph.operand, #graph.operand, 1 : i64], callee = "aten::add_.Tensor", mutates = array<i64: 0>}> : ...
    "graph.return"(%0)
    ```
    becomes
    ```mlir
    %1 = "graph.select.int"(%0) <{dim = 0 : i64, index = 1 : i64}> : (tensor<2x4xf32>) -> tensor<4xf32, #graph.layout<[1], 4, 32>>
    %2 = "graph.add.Tensor"(%1, %arg1) <{alpha = 1 : i64}> : ... -> tensor<4xf32>
    %3 = "graph.view_update"(%0, %2) <{layout = #graph.layout<[1], 4, 32>}> : ... -> tensor<2x4xf32>
    "graph.return"(%3)
    ```
    Refused: a write to a parameter or an input, and a write through a view whose base does not own the whole storage under the view.
  }];
}

def CanonicalizeViews : Pass<"graph-canonicalize-views", "::heddle::graph::StepOp"> {
  let summary = "Removes views that look at what another value already shows";
  let description = [{
    Requires graph-functionalize. A view whose type, layout included, is that of a value earlier in its chain is that value; a row-major reshape of a
    row-major reshape takes the first one's source. Leaves the views of different layouts alone: the layout is what kernels see.

    ```mlir
    %1 = "graph.t"(%0) : (tensor<2x3xf32>) -> tensor<3x2xf32, #graph.layout<[1, 3], 0, 24>>
    %2 = "graph.t"(%1) : (tensor<3x2xf32, #graph.layout<[1, 3], 0, 24>>) -> tensor<2x3xf32>
    "graph.return"(%2)
    ```
    becomes `"graph.return"(%0)`.
  }];
}

def DeadCode : Pass<"graph-dce", "::heddle::graph::StepOp"> {
  let summary = "Removes ops whose results nothing reads";
  let description = [{
    Keeps guards, calls that write, and random ops: a replay consumes the generator in recorded order, so a draw whose result is unused still counts.
    The same holds before and after graph-functionalize.
  }];
}

def CommonSubexpressions : Pass<"graph-cse", "::heddle::graph::StepOp"> {
  let summary = "Merges ops that compute the same value";
  let description = [{
    Requires graph-functionalize. Two ops are the same where name, operands, result types and all attributes but the autograd node agree. Kept apart: random ops; a
    recomputed op and what it repeats (merging them would undo the checkpoint); ops of different phases unless they are views (keeping a forward value alive
    for the backward pass costs memory, and whether it pays is another pass's question).
  }];
}

def AppendOptimizer : Pass<"graph-append-optimizer", "::heddle::graph::StepOp"> {
  let summary = "Writes accumulation and the update (AdamW, Muon) after the backward pass";
  let description = [{
    Requires graph-functionalize and gradients among the step's results.

    Afterwards every trainable parameter with a gradient has state arguments (`accumulator`, `exp_avg`, `exp_avg_sq`, and `master` where the parameter's
    element type is not the master's; `momentum` instead of the moments in a group with `muon`), its gradient is accumulated, averaged and applied by optim.adamw or
    optim.muon in phase `update`, and its new value and state are results in
    the gradient's place. The options are one JSON object:

    ```
    {"groups": [{"params": ["*.bias", "*norm*"], "weight_decay": 0.0}, {"params": ["*"]} ],    first group with a matching glob takes the parameter
                {"params": ["*"], "roles": ["matrix", "stack"], "muon": {"momentum": 0.95, "nesterov": true, "momentum_form": "torch", "ns": "gram",
                 "coefficients": "keller_jordan", "ns_steps": 5, "ns_dtype", "scale": "match_rms", "split": {"*.q_proj.weight": 16}, "eps": 1e-7,
                 "norm_eps": "add", "state_dtype"}}],                                        such a group takes only parameters of these roles
     "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "lr_scale": 1.0,                 defaults of the groups
     "clip": 1.0,                              limit of the global gradient norm; left out: no clipping
     "skip_nonfinite": false,                  leave the state alone where the norm is not finite
     "loss_average": "batches" | "tokens",
     "loss_scale": 128.0 | {"initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2, "consecutive_hysteresis": false, "min_loss_scale": 1},
     "accumulate_dtype", "master_dtype", "state_dtype": "fp32" | "fp64" | "bf16" | "fp16"}      left out: the wider of fp32 and the parameter's
    ```
    `tokens` needs a masked cross-entropy mean as the loss and makes it a sum, divided by the labels of all micro-batches at the end; `batches` divides by the number
    of micro-batches; left out: tokens where the loss allows it. The choice is noted in the step's `loss_average`. A parameter without a gradient is left alone, with a remark.

    In an fp16 step the backward pass begins with a scale, which optim.loss_scale takes out again: a number, or the one that DeepSpeed's parameters give, which is state of
    kind `scaler`. Left out: the parameters above. Such a step always leaves its state alone where the norm is not finite.
  }];
  let options = [Option<"config", "config", "std::string", "\"{}\"", "the optimizer's configuration, a JSON object">];
  let dependentDialects = ["::heddle::optim::OptimDialect"];
}

def RaiseComposites : Pass<"graph-raise-composites", "::heddle::graph::StepOp"> {
  let summary = "Wraps RMSNorm, rotary embedding, SwiGLU and cross entropy in region ops";
  let description = [{
    Requires graph-functionalize; finds more after graph-canonicalize-views and graph-cse. Forward functions are found by their structure, backward ones by the
    autograd nodes that forward ops share with their backward ops, together with the additions that sum their gradients. Bodies are the captured ops, in order, so
    graph-inline-composites undoes this pass exactly but for the order of independent ops. A match that is no single region of the program (an outside op lies on
    a path through it) is left alone with a remark.

    ```mlir
    %1 = "graph.silu"(%gate) {graph.node = 4 : i64} : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %2 = "graph.mul.Tensor"(%1, %up) {graph.node = 5 : i64} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
    ```
    becomes
    ```mlir
    %1 = "graph.composite"(%gate, %up) <{kind = "swiglu"}> ({
    ^bb0(%a: tensor<2x4xf32>, %b: tensor<2x4xf32>):
      %2 = "graph.silu"(%a) ...
      %3 = "graph.mul.Tensor"(%2, %b) ...
      "graph.yield"(%3) ...
    }) {graph.node = 5 : i64} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
    ```
  }];
}

def InlineComposites : Pass<"graph-inline-composites", "::heddle::graph::StepOp"> {
  let summary = "Replaces composites by their bodies";
  let description = [{
    Afterwards the step has no graph.composite. For lowerings that have no kernel for a composite's kind.
  }];
}

#endif  // HEDDLE_PASSES_GRAPH_PASSES
