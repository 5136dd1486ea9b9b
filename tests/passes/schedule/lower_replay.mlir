// RUN: heddle-opt %s --graph-lower-to-sched=mode=replay | FileCheck %s

// Tests that a view becomes a value over its root's buffer and no step, and that loss and gradient are results.
// CHECK: sched.plan "replay"
// CHECK: %[[W:.+]] = sched.buffer state device parameter 48 bytes "w"
// CHECK: sched.state "parameter" ["w", "tied"]
// CHECK: %[[XB:.+]] = sched.buffer input device step_input 24 bytes "x"
// CHECK: %[[X:.+]] = sched.value %[[XB]]
// CHECK: sched.section "replay"
// CHECK: %[[WT:.+]] = sched.value %[[W]] : <tensor<3x4xf32, #graph.layout<[1, 3], 0, 48>>>
// CHECK: %[[B:.+]] = sched.buffer scratch device activation 32 bytes
// CHECK: %[[O:.+]] = sched.value %[[B]]
// CHECK: sched.aten "aten::mm"(%[[X]], %[[WT]]) -> (%[[O]])
// CHECK-NOT: "aten::t"
// The gradient of a sum is an expanded scalar: its kernel runs once, the expansion is a value of strides 0.
// CHECK: sched.aten "aten::ones_like"
// CHECK: sched.value {{.*}} #graph.layout<[0, 0], 0, 4>
// CHECK: sched.result "loss" "loss"
// CHECK: sched.result "gradient" "w"
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.param<["w", "tied"], true, "matrix">, #graph.input<"x">], format_version = 1 : i64, precision = "fp32",
                   result_roles = [#graph.loss, #graph.gradient<"w">], target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%w: tensor<4x3xf32>, %x: tensor<2x3xf32>):
    %wt = "graph.t"(%w) : (tensor<4x3xf32>) -> tensor<3x4xf32, #graph.layout<[1, 3], 0, 48>>
    %o = "graph.mm"(%x, %wt) {graph.phase = #graph.phase<forward>} : (tensor<2x3xf32>, tensor<3x4xf32, #graph.layout<[1, 3], 0, 48>>) -> tensor<2x4xf32>
    %l = "graph.sum"(%o) {graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>) -> tensor<f32>
    %one = "graph.ones_like"(%l) <{memory_format = "preserve"}> {graph.phase = #graph.phase<backward>} : (tensor<f32>) -> tensor<f32>
    %go = "graph.expand"(%one) <{implicit = false, size = array<i64: 2, 4>}> {graph.phase = #graph.phase<backward>} : (tensor<f32>) -> tensor<2x4xf32, #graph.layout<[0, 0], 0, 4>>
    %g2 = "graph.mul.Tensor"(%go, %o) {graph.phase = #graph.phase<backward>} : (tensor<2x4xf32, #graph.layout<[0, 0], 0, 4>>, tensor<2x4xf32>) -> tensor<2x4xf32>
    %gt = "graph.t"(%g2) {graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>) -> tensor<4x2xf32, #graph.layout<[1, 4], 0, 32>>
    %gw = "graph.mm"(%gt, %x) {graph.phase = #graph.phase<backward>} : (tensor<4x2xf32, #graph.layout<[1, 4], 0, 32>>, tensor<2x3xf32>) -> tensor<4x3xf32>
    "graph.return"(%l, %gw) : (tensor<f32>, tensor<4x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()
