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

    Muon's matrices are taken in batches of which `muon-stack` bytes, and at least two matrices, are in flight: momentum, Newton-Schulz per shape, update, before the next. Each matrix
    is its own whatever stands beside it, so batches change no bit.
  }];
  let options = [
    Option<"mode", "mode", "std::string", "\"replay\"", "replay or train">,
    Option<"lossAverage", "loss-average", "std::string", "\"\"", "tokens or batches; empty: tokens where the loss is a masked cross-entropy mean, else batches">,
    Option<"sidecar", "sidecar", "std::string", "\"\"", "Safetensors file with the constants and the buffers that no checkpoint holds">,
    Option<"evalSidecar", "eval-sidecar", "std::string", "\"\"", "The evaluation program's sidecar; empty: `sidecar`">,
    Option<"config", "config", "std::string", "\"{}\"", "JSON object recorded in the plan">,
    Option<"overlap", "overlap", "bool", "false", "Collectives of several ranks on streams of their own">,
    Option<"muonStack", "muon-stack", "int64_t", "1073741824", "bytes of matrices, before and after Newton-Schulz, that are in flight at a time">,
  ];
  let dependentDialects = ["::heddle::sched::SchedDialect"];
}

def PlanMemory : Pass<"sched-plan-memory", "::heddle::sched::PlanOp"> {
  let summary = "Gives every buffer its offset";
  let description = [{
    State, input and constant buffers follow each other in program order; a section's scratch buffers share bytes where their lifetimes (first to last step,
    results to the end) do not meet. Writes `scratch_bytes` and `live_lower_bound` on each section.

    Bytes that are used again order the streams that use them. So a buffer that a step of another stream than the compute stream (0) touches keeps its bytes until that step is
    over by the values that steps hand on alone, and one that such a step fills has them from when the computation that it waits for is over: no computation waits for a reduction
    to use its bucket's bytes again, and no reduction for computation that it does not need.
    * At most `reducing` elements on their way keep their bytes so, or as many as make the arena no larger than these do. Of more, the oldest give them up from their last step on, which `sched-place-collectives` puts where the
      reduction is expected to be over: what uses the bytes again waits then, as a rule for nothing.
    * Where the arena would exceed what `memory`, or nine tenths of `device-memory`, leave beside state, half of them do, and so on. At last none does, and lifetimes are first to
      last step: the smallest arena, whose waits are the price of memory.
  }];
  let options = [
    Option<"reducing", "reducing", "int64_t", "500000000", "elements of gradients on their way that keep their bytes">,
    Option<"memory", "memory", "int64_t", "0", "bytes that the plan may use on a rank; 0: not limited">,
    Option<"deviceMemory", "device-memory", "int64_t", "0", "bytes of a rank's device where `memory` is 0: nine tenths are the limit">,
  ];
}

def PlaceCollectives : Pass<"sched-place-collectives", "::heddle::sched::PlanOp"> {
  let summary = "Puts gathers ahead of their use, reductions behind the work that hides them, and keeps gathered what memory allows";
  let description = [{
    Requires unplaced scratch buffers. Steps are priced from the table of devices, or from `costs` where that names a file of `heddle-run --measure` that has them. Then, in
    each section whose gathers bring parameters into scratch:
    * With `unshard` and a budget of `memory` or nine tenths of `device-memory` bytes, parameters gathered in both passes are gathered once where their bytes fit under the budget over the planned
      memory curve. The choice is the one that saves most of the time that gathers keep the compute stream waiting; a gather that work hides stays.
    * On streams of their own, each gather is issued as late as the work up to its first use hides it, but not while `prefetch` elements are on their way ahead of their
      use, nor while `max-live` elements are gathered.
    * A reduction keeps its bytes until the work that goes on meanwhile has hidden it, at most `reducing` elements at a time: nothing waits for it to reuse them.

    Two steps that touch the same bytes, one writing, never change their order, nor do two collectives of a stream. Parameters are elements, as DeepSpeed counts them
    (`stage3_prefetch_bucket_size`, `stage3_max_live_parameters`, `reduce_bucket_size`). What was kept gathered is written into the plan's configuration.
    Refused: a budget that the plan does not fit in even with nothing kept; a file of costs that has none of the plan's operators.
  }];
  let options = [
    Option<"prefetch", "prefetch", "int64_t", "500000000", "elements on their way ahead of their use at which no further gather is issued">,
    Option<"maxLive", "max-live", "int64_t", "std::numeric_limits<int64_t>::max()", "gathered elements at which no gather is issued ahead of its use">,
    Option<"reducing", "reducing", "int64_t", "500000000", "elements of gradients on their way at a time">,
    Option<"memory", "memory", "int64_t", "0", "bytes that the plan may use on a rank; 0: not limited">,
    Option<"deviceMemory", "device-memory", "int64_t", "0", "bytes of a rank's device where `memory` is 0: nine tenths are the budget of what is kept, and nothing is refused">,
    Option<"unshard", "unshard", "bool", "true", "keep parameters gathered where `memory` allows">,
    Option<"costs", "costs", "std::string", "\"\"", "file that heddle-run --measure wrote; empty: the table">,
  ];
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
