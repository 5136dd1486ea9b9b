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

#endif  // HEDDLE_PASSES_VERIFY_PASSES
