// Passes that close a phase: they change nothing and fail where a later phase would misread the program.
#ifndef HEDDLE_PASSES_VERIFY_PASSES
#define HEDDLE_PASSES_VERIFY_PASSES

include "mlir/Pass/PassBase.td"

def VerifyFunctional : Pass<"graph-verify-functional", "::heddle::graph::StepOp"> {
  let summary = "Checks that a step is made of values only";
  let description = [{
    Closes the phase that graph-functionalize begins. Rules:
    * functional_r1: no graph.call writes through an operand.
    * functional_r2: a parameter, buffer or state has one new value at most.
    * functional_r3: what a guard reads depends on constants and on integer or bool inputs and buffers only, and on no random op.
  }];
}

def VerifyDistributed : Pass<"dist-verify", "::mlir::ModuleOp"> {
  let summary = "Checks that a step fits the mesh it runs on";
  let description = [{
    Closes the phase of sharding passes. Rules:
    * dist_mesh_r1: every collective and shard names an axis of the module's mesh.
    * dist_all_gather_r2, dist_reduce_scatter_r2, dist_shard_r1: lengths agree with the axis's number of ranks.
    * dist_bucket_r1: a bucket argument has the element type and length that its members and bounds ask for; every new bucket has its argument, of the same type.
    * dist_bucket_r2: training and evaluation lay a bucket out alike.
  }];
}

#endif  // HEDDLE_PASSES_VERIFY_PASSES
