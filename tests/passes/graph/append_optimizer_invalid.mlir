// RUN: not heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"weight_deacy":0}}))' 2>&1 | FileCheck %s --check-prefix=KEY
// RUN: not heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"groups":[{"params":["*.bias"]}]}}))' 2>&1 | FileCheck %s --check-prefix=GROUP
// RUN: not heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"loss_average":"tokens"}}))' 2>&1 | FileCheck %s --check-prefix=TOKENS
// RUN: not heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"clip":0}}))' 2>&1 | FileCheck %s --check-prefix=CLIP
// RUN: not heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"betas":[0.9,1.0]}}))' 2>&1 | FileCheck %s --check-prefix=BETAS

// Tests that a misspelt key names the nearest, that a parameter outside every group, an impossible average and values out of range are refused.
// KEY: unknown key "weight_deacy"; did you mean "weight_decay"?
// GROUP: no param group takes "w"; add one with "params": ["*"]
// TOKENS: loss_average="tokens" needs a loss that is an unweighted cross-entropy mean; use "batches"
// CLIP: "clip" is 0; leave it out to switch clipping off
// BETAS: "betas" is not a pair of numbers in [0, 1)
"graph.step"() <{arg_roles = [#graph.param<["w"], true, "matrix">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.loss, #graph.gradient<"w">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  %0 = "graph.sum"(%arg0) : (tensor<2xf32>) -> tensor<f32>
  %1 = "graph.ones_like"(%arg0) : (tensor<2xf32>) -> tensor<2xf32>
  "graph.return"(%0, %1) : (tensor<f32>, tensor<2xf32>) -> ()
}) : () -> ()
