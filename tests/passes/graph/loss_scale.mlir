// RUN: heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"clip":1.0,"loss_average":"tokens","loss_scale":{"initial_scale_power":8,"loss_scale_window":500,"hysteresis":3}}}))' --mlir-print-op-generic | FileCheck %s
// RUN: heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"loss_average":"batches","loss_scale":24.0}}))' --mlir-print-op-generic | FileCheck %s --check-prefix=STATIC
// RUN: heddle-opt %s --train-pipeline='mode=train optimizer={"skip_nonfinite":true}' | FileCheck %s --check-prefix=SCHED
// RUN: not heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"loss_scale":{"hysteresi":3}}}))' 2>&1 | FileCheck %s --check-prefix=KEY
// RUN: not heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-append-optimizer{config={"loss_scale":0}}))' 2>&1 | FileCheck %s --check-prefix=ZERO

// Tests an fp16 step: the backward pass begins with scale and seed (3 labels round down to 2), the update's norm, factor and predicate are unscaled, the scale is state with an initial
// value; a static scale is no state. What the forward pass reports is not scaled.
// CHECK: #graph.state<"loss_scale", "scaler">, #graph.state<"good_steps", "scaler">, #graph.state<"hysteresis", "scaler">
// CHECK-SAME: #graph.new_state<"loss_scale", "scaler">, #graph.new_state<"good_steps", "scaler">, #graph.new_state<"hysteresis", "scaler">, #graph.output<"grad_norm">
// CHECK: ^bb0(%{{.+}}: tensor<3x4xf16>, %{{.+}}: tensor<3xi64>, %[[SCALE:[a-z0-9]+]]: tensor<f32>, %[[GOOD:[a-z0-9]+]]: tensor<i64>, %[[LEFT:[a-z0-9]+]]: tensor<i64>
// STATIC-NOT: scaler
// SCHED: sched.state "scaler" ["loss_scale"] {{.*}}initial = 6.553600e+04
// SCHED: sched.state "scaler" ["good_steps"]
// SCHED: sched.state "scaler" ["hysteresis"] {{.*}}initial = 2.000000e+00
// SCHED: sched.kernel "loss_scale"
// KEY: unknown key "hysteresi"; did you mean "hysteresis"?
// ZERO: "loss_scale" is not positive
"graph.step"() <{arg_roles = [#graph.param<["w"], true, "matrix">, #graph.input<"labels">], format_version = 1 : i64, precision = "fp16", result_roles = [#graph.loss, #graph.gradient<"w">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<3x4xf16>, %arg1: tensor<3xi64>):
  %0 = "graph._to_copy"(%arg0) <{dtype = f32, non_blocking = false}> : (tensor<3x4xf16>) -> tensor<3x4xf32>
  // CHECK: %[[LOSS:[a-z0-9]+]]:2 = "graph.nll_loss_forward"
  %1:2 = "graph.nll_loss_forward"(%0, %arg1) <{ignore_index = -100 : i64, reduction = 1 : i64}> : (tensor<3x4xf32>, tensor<3xi64>) -> (tensor<f32>, tensor<f32>)
  // CHECK: %[[ONES:[a-z0-9]+]] = "graph.ones_like"(%[[LOSS]]#0)
  // CHECK: %[[HALF:[a-z0-9]+]] = "graph.fill.Scalar"(%[[ONES]]) <{value = 5.000000e-01 : f64}> {graph.phase = #graph.phase<backward>}
  // CHECK: %[[SEED:[a-z0-9]+]] = "graph.mul.Tensor"(%[[HALF]], %[[SCALE]]) {graph.phase = #graph.phase<backward>}
  // STATIC: %[[SEED:[a-z0-9]+]] = "graph.fill.Scalar"(%{{.+}}) <{value = 2.400000e+01 : f64}>
  %2 = "graph.ones_like"(%1#0) {graph.phase = #graph.phase<backward>} : (tensor<f32>) -> tensor<f32>
  // CHECK: "graph.nll_loss_backward"(%[[SEED]],
  // STATIC: "graph.nll_loss_backward"(%[[SEED]],
  %3 = "graph.nll_loss_backward"(%2, %0, %arg1, %1#1) <{ignore_index = -100 : i64, reduction = 1 : i64}> {graph.phase = #graph.phase<backward>} : (tensor<f32>, tensor<3x4xf32>, tensor<3xi64>, tensor<f32>) -> tensor<3x4xf32>
  %4 = "graph._to_copy"(%3) <{dtype = f16, non_blocking = false}> {graph.phase = #graph.phase<backward>} : (tensor<3x4xf32>) -> tensor<3x4xf16>
  // CHECK: %[[NORM:[a-z0-9]+]] = "optim.grad_norm"
  // CHECK: %[[U:[a-z0-9]+]]:9 = "optim.loss_scale"(%[[NORM]], %[[SCALE]], %[[GOOD]], %[[LEFT]]) <{hysteresis = 3 : i64, initial = 2.560000e+02 : f64, max_norm = 1.000000e+00 : f64, min_scale = 1.000000e+00 : f64, seed = 5.000000e-01 : f64, window = 500 : i64}>
  // CHECK: "optim.adamw"(%{{.+}}, %{{.+}}, %{{.+}}, %{{.+}}, %[[U]]#1, %[[U]]#3)
  // STATIC: %{{.+}}:6 = "optim.loss_scale"(%{{[a-z0-9]+}}) <{{{.*}}initial = 2.400000e+01 : f64
  // CHECK: "graph.return"(%[[LOSS]]#0, %{{.+}}, %[[U]]#6, %[[U]]#7, %[[U]]#8, %[[U]]#0,
  "graph.return"(%1#0, %4) : (tensor<f32>, tensor<3x4xf16>) -> ()
}) : () -> ()
