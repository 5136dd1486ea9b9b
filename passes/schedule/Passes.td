// Passes from the graph to a schedule.
#ifndef HEDDLE_SCHEDULE_PASSES
#define HEDDLE_SCHEDULE_PASSES

include "mlir/Pass/PassBase.td"

def RaisePrecision : Pass<"graph-raise-precision", "::heddle::graph::StepOp"> {
  let summary = "Raises every narrower floating type of an fp64 program to f64";
  let description = [{
    Requires a functional step. Leaves programs of other precisions alone. In an `fp64` program, captured with f64 parameters, models still round inside (RMSNorm, rotary
    embedding and loss in fp32); afterwards no value, argument or dtype attribute is a float narrower than f64, so results are comparable to a double reference.

    ```mlir
    %1 = "graph._to_copy"(%0) <{dtype = f32, non_blocking = false}> : (tensor<4xf64>) -> tensor<4xf32>
    ```
    becomes
    ```mlir
    %1 = "graph._to_copy"(%0) <{dtype = f64, non_blocking = false}> : (tensor<4xf64>) -> tensor<4xf64>
    ```
    Refused: `view.dtype` of a float that is raised, and 8-bit floats.
  }];
}

def LowerToSched : Pass<"graph-lower-to-sched", "::mlir::ModuleOp"> {
  let summary = "Lowers graph steps to a sched.plan with its sections";
  let description = [{
    Requires functional graph steps (after graph-functionalize); a second `graph.step` in the module is the evaluation program. Afterwards the module holds one
    `sched.plan`: every view is a value over its root's buffer, every other op one step in program order, unplaced scratch buffers.

    Mode `replay` makes one section `replay` whose results are the step's. Mode `train` cuts at `optim.accumulate`: `micro_first` and `micro_next` end in the
    accumulators, `boundary` starts from them. Guards go to `prologue` with the ops they depend on.

    With `overlap` and more than one rank gathers run on stream `gather`, reduce-scatters and the sums they are added to on stream `reduce`; what must wait for what
    is for `sched-insert-events` to find.
  }];
  let options = [
    Option<"mode", "mode", "std::string", "\"replay\"", "replay or train">,
    Option<"lossAverage", "loss-average", "std::string", "\"\"", "tokens or batches; empty: tokens where the loss is a masked cross-entropy mean, else batches">,
    Option<"sidecar", "sidecar", "std::string", "\"\"", "Safetensors file with the constants and the buffers that no checkpoint holds">,
    Option<"evalSidecar", "eval-sidecar", "std::string", "\"\"", "The evaluation program's sidecar; empty: `sidecar`">,
    Option<"config", "config", "std::string", "\"{}\"", "JSON object recorded in the plan">,
    Option<"overlap", "overlap", "bool", "false", "Collectives of several ranks on streams of their own">,
  ];
  let dependentDialects = ["::heddle::sched::SchedDialect"];
}

def PlanMemory : Pass<"sched-plan-memory", "::heddle::sched::PlanOp"> {
  let summary = "Gives every buffer its offset";
  let description = [{
    State, input and constant buffers follow each other in program order; a section's scratch buffers share bytes where their lifetimes (first to last step,
    results to the end) do not meet. Writes `scratch_bytes` and `live_lower_bound` on each section.
  }];
}

def InsertEvents : Pass<"sched-insert-events", "::heddle::sched::PlanOp"> {
  let summary = "Orders steps of different streams that touch the same bytes";
  let description = [{
    Requires placed buffers, since two buffers that share bytes order their users as a value does. For each step, the latest conflicting step of every other stream
    signals an event that the step waits for, unless an earlier wait of its stream covers it. Code of one stream is left alone.
  }];
}

def VerifySchedule : Pass<"sched-verify", "::heddle::sched::PlanOp"> {
  let summary = "Proves that live buffers do not overlap and that every use is ordered";
  let description = [{
    Changes nothing. Rules:
    * sched_verify_r1: every buffer has an offset.
    * sched_verify_r2: no two buffers of an arena that are alive at one step share bytes.
    * sched_verify_r3: a step reads scratch bytes only after a step wrote them.
    * sched_verify_r4: two steps of different streams that touch the same bytes, one writing, are ordered by events.
  }];
}

def AccumulateInGemm : Pass<"graph-accumulate-in-gemm", "::heddle::graph::StepOp"> {
  let summary = "Adds matrix products to their accumulators inside the multiplication";
  let description = [{
    Requires a functional step with its accumulations. On a CUDA target, a `graph.mm` of bf16 or f16 matrices whose only reader is an `optim.accumulate` into f32
    (through views that amount to nothing or a transposition) becomes one `optim.accumulate_product`, one whose only reader is a `dist.pack` of f32 an `optim.product`:
    no gradient of the narrow type exists afterwards. Everything else, and every CPU program, stays as it is.

    ```mlir
    %g = "graph.mm"(%dyt, %x) : (tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xbf16>
    %s = "optim.accumulate"(%acc, %g) : (tensor<4x2xf32>, tensor<4x2xbf16>) -> tensor<4x2xf32>
    ```
    becomes
    ```mlir
    %s = "optim.accumulate_product"(%acc, %dyt, %x) : (tensor<4x2xf32>, tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xf32>
    ```
  }];
  let dependentDialects = ["::heddle::optim::OptimDialect"];
}

#endif  // HEDDLE_SCHEDULE_PASSES
