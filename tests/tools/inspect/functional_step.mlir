// RUN: heddle-inspect %s | FileCheck %s
// Tests counting by hand: the transposed weight is a view (no bytes), the saved product an activation, the call is not ODS.
// CHECK: target cpu, precision fp32
// CHECK: parameter 1 tensor 6 elements 24 B
// CHECK: input 1 tensor 8 elements 32 B
// CHECK: fc
// CHECK-SAME: 6
// CHECK: Section step: 6 ops, 2 results (1 gradients)
// Two products of 4x2 by 2x3 shapes, forward and for the weight.
// CHECK: matmul 2 96 FLOP
// CHECK: ODS ops: 5 of 6
// CHECK: others: aten::trace x1
// CHECK: Live memory, peak
// CHECK: activations
// CHECK: Lives longest
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.param<["fc.weight"], true, "matrix">, #graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.loss, #graph.gradient<"fc.weight">], target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%w: tensor<3x2xf32>, %x: tensor<4x2xf32>):
    %0 = "graph.t"(%w) {graph.phase = #graph.phase<forward>} : (tensor<3x2xf32>) -> tensor<2x3xf32, #graph.layout<[1, 2], 0, 24>> loc("fc")
    %1 = "graph.mm"(%x, %0) {graph.phase = #graph.phase<forward>} : (tensor<4x2xf32>, tensor<2x3xf32, #graph.layout<[1, 2], 0, 24>>) -> tensor<4x3xf32> loc("fc")
    %2 = "graph.call"(%1) <{args = [#graph.operand], callee = "aten::trace"}> {graph.phase = #graph.phase<forward>} : (tensor<4x3xf32>) -> tensor<f32>
    %3 = "graph.t"(%1) {graph.phase = #graph.phase<backward>} : (tensor<4x3xf32>) -> tensor<3x4xf32, #graph.layout<[1, 3], 0, 48>> loc("fc")
    %4 = "graph.mm"(%3, %x) {graph.phase = #graph.phase<backward>} : (tensor<3x4xf32, #graph.layout<[1, 3], 0, 48>>, tensor<4x2xf32>) -> tensor<3x2xf32> loc("fc")
    %5 = "graph.detach"(%4) {graph.phase = #graph.phase<backward>} : (tensor<3x2xf32>) -> tensor<3x2xf32>
    "graph.return"(%2, %5) : (tensor<f32>, tensor<3x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
