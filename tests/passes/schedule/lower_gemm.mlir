// RUN: heddle-opt %s --train-pipeline='mode=train optimizer={}' | FileCheck %s

// Tests a weight gradient on a GPU: the product goes straight into the accumulator's bytes, over what they held in the first micro-batch and onto it in the next ones;
// no buffer holds the gradient. The second weight is stored as it is multiplied, so its gradient is the transposed product.
// CHECK: sched.state "accumulator" ["w"] %[[W:[0-9]+]]
// CHECK: sched.state "accumulator" ["v"] %[[V:[0-9]+]]
// CHECK: sched.section "micro_first"
// CHECK: sched.gemm(%[[A:.+]], %[[B:.+]]) to %[[W]] {flops = 48 : i64, phase = 1 : i64}
// CHECK: %[[VT:.+]] = sched.value %{{.+}} : <tensor<3x4xf32, #graph.layout<[1, 3], 0, 48>>>
// CHECK: sched.gemm(%{{.+}}, %{{.+}}) to %[[VT]] {
// CHECK-NOT: "accumulate"
// CHECK: sched.section "micro_next"
// CHECK: sched.gemm(%{{.+}}, %{{.+}}, %[[W]]) to %[[W]]
// CHECK: sched.gemm(%{{.+}}, %{{.+}}, %[[VN:.+]]) to %[[VN]]
// CHECK: sched.section "boundary"
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.param<["w"], true, "matrix">, #graph.param<["v"], true, "matrix">, #graph.input<"x">, #graph.input<"d">, #graph.input<"e">], format_version = 1 : i64,
                   precision = "bf16", result_roles = [#graph.loss, #graph.gradient<"w">, #graph.gradient<"v">], target = "cuda", torch_version = "2.11.0"}> ({
  ^bb0(%w: tensor<3x4xbf16>, %v: tensor<4x3xbf16>, %x: tensor<2x3xbf16>, %d: tensor<2x4xbf16>, %e: tensor<2x4xbf16>):
    %o = "graph.mm"(%x, %w) {graph.phase = #graph.phase<forward>} : (tensor<2x3xbf16>, tensor<3x4xbf16>) -> tensor<2x4xbf16>
    %l = "graph.sum"(%o) {graph.phase = #graph.phase<forward>} : (tensor<2x4xbf16>) -> tensor<bf16>
    %xt = "graph.t"(%x) {graph.phase = #graph.phase<backward>} : (tensor<2x3xbf16>) -> tensor<3x2xbf16, #graph.layout<[1, 3], 0, 12>>
    %g = "graph.mm"(%xt, %d) {graph.phase = #graph.phase<backward>} : (tensor<3x2xbf16, #graph.layout<[1, 3], 0, 12>>, tensor<2x4xbf16>) -> tensor<3x4xbf16>
    %p = "graph.mm"(%xt, %e) {graph.phase = #graph.phase<backward>} : (tensor<3x2xbf16, #graph.layout<[1, 3], 0, 12>>, tensor<2x4xbf16>) -> tensor<3x4xbf16>
    %h = "graph.t"(%p) {graph.phase = #graph.phase<backward>} : (tensor<3x4xbf16>) -> tensor<4x3xbf16, #graph.layout<[1, 4], 0, 24>>
    "graph.return"(%l, %g, %h) : (tensor<bf16>, tensor<3x4xbf16>, tensor<4x3xbf16, #graph.layout<[1, 4], 0, 24>>) -> ()
  }) : () -> ()
}) : () -> ()
