// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-append-optimizer{config={\"groups\":[{\"params\":[\"*.bias\"],\"weight_decay\":0.0},{\"params\":[\"*\"]}],\"clip\":1.0,\"skip_nonfinite\":true}},graph-fuse-updates))" --mlir-print-op-generic | FileCheck %s
// RUN: heddle-opt %s --train-pipeline='mode=train fuse=always optimizer={"clip":1.0,"skip_nonfinite":true}' | FileCheck %s --check-prefix=PLAN

// Tests that parameters of one group are updated together with their bf16 copies, that another weight decay is another group, and that the norm is the fused one.
// CHECK-LABEL: "graph.step"
// CHECK-NOT: "optim.adamw"
// CHECK: %[[NORM:.+]] = "optim.grad_norm"({{.*}}) <{fused}>
// CHECK: %[[B:.+]]:4 = "optim.multi_adamw"({{.*}}) <{{{.*}}weight_decay = 0.000000e+00 : f64}>
// CHECK: %[[A:.+]]:8 = "optim.multi_adamw"({{.*}}) <{{{.*}}operandSegmentSizes = array<i32: 2, 2, 2, 2, 2, 1, 1>, resultSegmentSizes = array<i32: 2, 2, 2, 2>, weight_decay = 1.000000e-02 : f64}>
// CHECK-NOT: "graph._to_copy"
// CHECK: "graph.return"

// One step of each kernel; the parameters are written in place, so nothing is copied.
// PLAN: sched.section "boundary"
// PLAN: sched.kernel "multi_grad_norm"({{.*}}) -> ({{.*}}, {{.*}}, {{.*}}, %[[PART:.+]]) {{.*}}result_slots = array<i64: 0, 1, 2, 3>}{{.*}}!sched.ref<tensor<6xf64>>
// PLAN: sched.kernel "multi_adamw"
// PLAN-NOT: sched.copy
"graph.step"() <{arg_roles = [#graph.param<["a.weight"], true, "matrix">, #graph.param<["a.bias"], true, "bias">, #graph.param<["b.weight"], true, "matrix">, #graph.input<"x">], format_version = 1 : i64, precision = "bf16", result_roles = [#graph.loss, #graph.gradient<"a.weight">, #graph.gradient<"a.bias">, #graph.gradient<"b.weight">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xbf16>, %arg1: tensor<4xbf16>, %arg2: tensor<3xbf16>, %arg3: tensor<2x4xbf16>):
  %0 = "graph.mul.Tensor"(%arg3, %arg0) {graph.node = 1 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xbf16>, tensor<2x4xbf16>) -> tensor<2x4xbf16>
  %1 = "graph.sum"(%0) {graph.node = 2 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xbf16>) -> tensor<bf16>
  %2 = "graph.neg"(%arg1) {graph.phase = #graph.phase<backward>} : (tensor<4xbf16>) -> tensor<4xbf16>
  %3 = "graph.neg"(%arg2) {graph.phase = #graph.phase<backward>} : (tensor<3xbf16>) -> tensor<3xbf16>
  %4 = "graph.neg"(%arg3) {graph.phase = #graph.phase<backward>} : (tensor<2x4xbf16>) -> tensor<2x4xbf16>
  "graph.return"(%1, %4, %2, %3) : (tensor<bf16>, tensor<2x4xbf16>, tensor<4xbf16>, tensor<3xbf16>) -> ()
}) : () -> ()
