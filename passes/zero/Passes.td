// Data parallelism: a step of one rank becomes the step of every rank of axis dp.
#ifndef HEDDLE_PASSES_ZERO_PASSES
#define HEDDLE_PASSES_ZERO_PASSES

include "mlir/Pass/PassBase.td"

def ZeroPartition : Pass<"zero-partition", "::mlir::ModuleOp"> {
  let summary = "Partitions optimizer state, gradients and parameters over data-parallel ranks";
  let description = [{
    Requires a training step after graph-append-optimizer (and, as second step, its evaluation program if there is one) and the module's `dist.mesh`.
    With N ranks along dp and `stage`:

    | stage | parameters | accumulators | masters, moments | collectives |
    |---|---|---|---|---|
    | 0 | whole | whole | whole | all-reduce of accumulators at the boundary |
    | 1 | whole | whole | shard | reduce-scatter of accumulators, all-gather of parameters, both at the boundary |
    | 2 | whole | shard | shard | reduce-scatter of every micro-batch's gradients, all-gather of parameters at the boundary |
    | 3 | shard | shard | shard | all-gather before use in forward and in backward, reduce-scatter as in 2 |

    Every tensor lies in a flat bucket (see the dist dialect). A bucket holds what one layer has of one dtype and one kind of update. Gradients are
    packed right after the last of their bucket is computed, parameters of stage 3 gathered right before the first use; passes that overlap
    them with other work move these ops. Buffers that the step writes become those of the first rank. Frozen parameters stay whole in stages 0 to 2
    and are sharded in stage 3.

    ```mlir
    %1 = "graph.mm"(%x, %arg0) : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    ```
    becomes, in stage 3 on 2 ranks,
    ```mlir
    %1 = "dist.all_gather"(%arg0) <{axis = "dp"}> : (tensor<128xf32>) -> tensor<256xf32>
    %2 = "dist.slot"(%1) <{offset = 0 : i64}> : (tensor<256xf32>) -> tensor<8x8xf32>
    %3 = "graph.mm"(%x, %2) : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    ```
    Refused: for Muon's matrices in stages 0 and 1 another dtype on the wire than the accumulators', a trainable parameter whose storage has gaps or is shared with others, and a parameter that the step returns as an output.
  }];
  let options = [
    Option<"stage", "stage", "int", "0", "ZeRO stage, 0 to 3">,
    Option<"reduceDtype", "reduce-dtype", "std::string", "\"\"", "dtype of gradients on the wire; empty: max(fp32, precision), and where accumulators are sent (stages 0 and 1) no narrower than they">
  ];
  let dependentDialects = ["::heddle::dist::DistDialect", "::heddle::optim::OptimDialect"];
}

#endif  // HEDDLE_PASSES_ZERO_PASSES
