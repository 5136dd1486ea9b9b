// Passes that replace known functions of a step by kernels of the registry.
#ifndef HEDDLE_PASSES_FUSION_PASSES
#define HEDDLE_PASSES_FUSION_PASSES

include "mlir/Pass/PassBase.td"

def FuseKernels : Pass<"graph-fuse-kernels", "::heddle::graph::StepOp"> {
  let summary = "Replaces composites by kernels";
  let description = [{
    Requires graph-raise-composites. A composite whose body is, operator by operator, the form that a kernel computes becomes one graph.kernel; a forward composite
    whose values its backward one reads is replaced together with it, or not at all. What becomes a kernel rounds once per result instead of once per operator, so
    results differ from the captured operators' within the element type's rounding; nothing else changes.

    Taken along: additions that feed an RMSNorm or its gradient, the widening cast of a cross entropy's logits and the narrowing one of their gradient, and the copy
    that makes a rotated gradient contiguous.

    Supported: bf16, f16 and f32; rows that lie densely in their last dimension, any strides in up to three others; any size of the last dimension (RMSNorm's up to 50000).
    Every other composite stays as it is, with a remark that says why; `fusion` on the step counts both. Further attributes of the step do not matter.

    ```mlir
    %1:2 = "graph.composite"(%gate, %up) <{kind = "swiglu"}> ({
    ^bb0(%a: tensor<2x4xf32>, %b: tensor<2x4xf32>):
      %2 = "graph.silu"(%a) ...
      %3 = "graph.mul.Tensor"(%2, %b) ...
      "graph.yield"(%2, %3) ...
    }) : (tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x4xf32>, tensor<2x4xf32>)
    ```
    becomes
    ```mlir
    %1 = "graph.kernel"(%gate, %up) <{kernel = "swiglu", operand_names = ["gate", "up"], overwrites = array<i64: -1>, scalars = {}}> : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
    ```
  }];
}

def FuseUpdates : Pass<"graph-fuse-updates", "::heddle::graph::StepOp"> {
  let summary = "Joins the AdamW updates of many parameters into few kernels";
  let description = [{
    Requires graph-append-optimizer. All optim.adamw of equal hyperparameters and dtypes, with the casts of their new masters to the compute dtype, become one
    optim.multi_adamw at the place of the last; optim.grad_norm is marked `fused`. Leaves alone what it cannot join: an update whose new value has a reader other
    than its cast and the step's results.

    ```mlir
    %1:3 = "optim.adamw"(%master, %grad, %m, %v) ...
    %2 = "graph._to_copy"(%1#0) <{dtype = bf16, ...}> ...
    ```
    of every parameter becomes
    ```mlir
    %1:4 = "optim.multi_adamw"(%master, %grad, %m, %v, %param) ... -> (master, m, v, param)
    ```
  }];
  let dependentDialects = ["::heddle::optim::OptimDialect"];
}

#endif  // HEDDLE_PASSES_FUSION_PASSES
