// RUN: heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"clip":1.0,"skip_nonfinite":true,"groups":[{"params":["*.bias"],"weight_decay":0},{"params":["*"],"lr_scale":0.5}]}}))' --mlir-print-op-generic | FileCheck %s
// RUN: heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"loss_average":"batches"}}))' --mlir-print-op-generic | FileCheck %s --check-prefix=BATCHES

// Tests a clipped update: groups by glob, a master for the bf16 weight, state in and out, and a cross-entropy mean that becomes a sum over labels.
// CHECK: arg_roles = [#graph.param<["w"], true, "matrix">, #graph.param<["w.bias"], true, "bias">, #graph.input<"labels">, #graph.state<"w", "accumulator">, #graph.state<"w.bias", "accumulator">, #graph.state<"w", "master">, #graph.state<"w", "exp_avg">, #graph.state<"w", "exp_avg_sq">, #graph.state<"w.bias", "exp_avg">, #graph.state<"w.bias", "exp_avg_sq">]
// CHECK-SAME: loss_average = "tokens"
// CHECK-SAME: result_roles = [#graph.loss, #graph.new_state<"w", "accumulator">, #graph.new_state<"w.bias", "accumulator">, #graph.output<"grad_norm">, #graph.new_state<"w", "master">, #graph.new_value<"w">, #graph.new_state<"w", "exp_avg">, #graph.new_state<"w", "exp_avg_sq">, #graph.new_value<"w.bias">, #graph.new_state<"w.bias", "exp_avg">, #graph.new_state<"w.bias", "exp_avg_sq">]
// BATCHES: loss_average = "batches"
// CHECK: ^bb0(%[[W:[a-z0-9]+]]: tensor<2x3xbf16>, %[[B:[a-z0-9]+]]: tensor<3xf32>, %{{.+}}: tensor<2xi64>, %[[ACC:[a-z0-9]+]]: tensor<2x3xf32>, %[[ACCB:[a-z0-9]+]]: tensor<3xf32>, %[[MASTER:[a-z0-9]+]]: tensor<2x3xf32>
"graph.step"() <{arg_roles = [#graph.param<["w"], true, "matrix">, #graph.param<["w.bias"], true, "bias">, #graph.input<"labels">], format_version = 1 : i64, precision = "bf16", result_roles = [#graph.loss, #graph.gradient<"w">, #graph.gradient<"w.bias">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xbf16>, %arg1: tensor<3xf32>, %arg2: tensor<2xi64>):
  %0 = "graph.add.Tensor"(%arg0, %arg1) <{alpha = 1 : i64}> : (tensor<2x3xbf16>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: "graph.nll_loss_forward"({{.*}}) <{ignore_index = -100 : i64, reduction = 2 : i64}>
  // BATCHES: "graph.nll_loss_forward"({{.*}}) <{ignore_index = -100 : i64, reduction = 1 : i64}>
  %1:2 = "graph.nll_loss_forward"(%0, %arg2) <{ignore_index = -100 : i64, reduction = 1 : i64}> : (tensor<2x3xf32>, tensor<2xi64>) -> (tensor<f32>, tensor<f32>)
  %2 = "graph.ones_like"(%1#0) {graph.phase = #graph.phase<backward>} : (tensor<f32>) -> tensor<f32>
  // CHECK: "graph.nll_loss_backward"({{.*}}) <{ignore_index = -100 : i64, reduction = 2 : i64}>
  %3 = "graph.nll_loss_backward"(%2, %0, %arg2, %1#1) <{ignore_index = -100 : i64, reduction = 1 : i64}> {graph.phase = #graph.phase<backward>} : (tensor<f32>, tensor<2x3xf32>, tensor<2xi64>, tensor<f32>) -> tensor<2x3xf32>
  // CHECK: %[[GW:[a-z0-9]+]] = "graph._to_copy"
  %4 = "graph._to_copy"(%3) <{dtype = bf16, non_blocking = false}> {graph.phase = #graph.phase<backward>} : (tensor<2x3xf32>) -> tensor<2x3xbf16>
  // CHECK: %[[GB:[a-z0-9]+]] = "graph.sum.dim_IntList"
  %5 = "graph.sum.dim_IntList"(%3) <{dim = array<i64: 0>, keepdim = false}> {graph.phase = #graph.phase<backward>} : (tensor<2x3xf32>) -> tensor<3xf32>
  // CHECK: %[[SUM:[a-z0-9]+]] = "optim.accumulate"(%[[ACC]], %[[GW]]) {graph.phase = #graph.phase<backward>} : (tensor<2x3xf32>, tensor<2x3xbf16>) -> tensor<2x3xf32>
  // CHECK: %[[MEAN:[a-z0-9]+]] = "optim.average"(%[[SUM]]) <{divisor = "label_count"}> {graph.phase = #graph.phase<update>}
  // CHECK: %[[SUMB:[a-z0-9]+]] = "optim.accumulate"(%[[ACCB]], %[[GB]])
  // CHECK: %[[MEANB:[a-z0-9]+]] = "optim.average"(%[[SUMB]])
  // BATCHES: "optim.average"(%{{.+}}) <{divisor = "micro_batches"}>
  // BATCHES-NOT: "optim.grad_norm"
  // CHECK: %[[NORM:[a-z0-9]+]] = "optim.grad_norm"(%[[MEAN]], %[[MEANB]])
  // CHECK: %[[CLIP:[a-z0-9]+]] = "optim.clip_factor"(%[[NORM]]) <{max_norm = 1.000000e+00 : f64}>
  // CHECK: %[[FINITE:[a-z0-9]+]] = "optim.finite"(%[[NORM]])
  // CHECK: %[[NEW:[a-z0-9]+]]:3 = "optim.adamw"(%[[MASTER]], %[[MEAN]], %{{.+}}, %{{.+}}, %[[CLIP]], %[[FINITE]]) <{{{.*}}group = 1 : i64, lr_scale = 5.000000e-01 : f64{{.*}}weight_decay = 1.000000e-02 : f64}>
  // CHECK: %[[NEWW:[a-z0-9]+]] = "graph._to_copy"(%[[NEW]]#0) <{dtype = bf16, non_blocking = false}> {graph.phase = #graph.phase<update>}
  // CHECK: %[[NEWB:[a-z0-9]+]]:3 = "optim.adamw"(%[[B]], %[[MEANB]], {{.*}}group = 0 : i64, {{.*}}weight_decay = 0.000000e+00 : f64}>
  // CHECK: "graph.return"(%{{.+}}, %[[SUM]], %[[SUMB]], %[[NORM]], %[[NEW]]#0, %[[NEWW]], %[[NEW]]#1, %[[NEW]]#2, %[[NEWB]]#0, %[[NEWB]]#1, %[[NEWB]]#2)
  "graph.return"(%1#0, %4, %5) : (tensor<f32>, tensor<2x3xbf16>, tensor<3xf32>) -> ()
}) : () -> ()
