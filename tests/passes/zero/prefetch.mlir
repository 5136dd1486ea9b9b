// RUN: heddle-opt %s --pass-pipeline='builtin.module(graph.step(zero-prefetch))' --mlir-print-op-generic | FileCheck %s
// RUN: heddle-opt %s --pass-pipeline='builtin.module(graph.step(zero-prefetch{in-flight=512}))' --mlir-print-op-generic | FileCheck %s --check-prefix=SMALL

// Tests that each gather stands where the one before it stood, that their order stays, and that a bucket larger than what may be in flight is left where it is used.
// CHECK: %[[A:.+]] = "dist.all_gather"(%arg1)
// CHECK-NEXT: %[[B:.+]] = "dist.all_gather"(%arg2)
// CHECK: "graph.mul.Tensor"(%arg0, %[[A]])
// CHECK: %[[C:.+]] = "dist.all_gather"(%arg3)
// CHECK: "graph.mul.Tensor"(%{{.+}}, %[[B]])
// CHECK: "graph.mul.Tensor"(%{{.+}}, %[[C]])
// The update's gather is not moved.
// CHECK-NEXT: "dist.all_gather"(%arg1) <{axis = "dp"}> {graph.phase = #graph.phase<update>}
// SMALL: "dist.all_gather"(%arg1)
// SMALL: "graph.mul.Tensor"
// SMALL-NEXT: "dist.all_gather"(%arg2)
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"a">, #graph.input<"b">, #graph.input<"c">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%x: tensor<256xf32>, %a: tensor<128xf32>, %b: tensor<128xf32>, %c: tensor<128xf32>):
    %0 = "dist.all_gather"(%a) <{axis = "dp"}> {graph.phase = #graph.phase<forward>} : (tensor<128xf32>) -> tensor<256xf32>
    %1 = "graph.mul.Tensor"(%x, %0) : (tensor<256xf32>, tensor<256xf32>) -> tensor<256xf32>
    %2 = "dist.all_gather"(%b) <{axis = "dp"}> {graph.phase = #graph.phase<forward>} : (tensor<128xf32>) -> tensor<256xf32>
    %3 = "graph.mul.Tensor"(%1, %2) : (tensor<256xf32>, tensor<256xf32>) -> tensor<256xf32>
    %4 = "dist.all_gather"(%c) <{axis = "dp"}> {graph.phase = #graph.phase<backward>} : (tensor<128xf32>) -> tensor<256xf32>
    %5 = "graph.mul.Tensor"(%3, %4) : (tensor<256xf32>, tensor<256xf32>) -> tensor<256xf32>
    %6 = "dist.all_gather"(%a) <{axis = "dp"}> {graph.phase = #graph.phase<update>} : (tensor<128xf32>) -> tensor<256xf32>
    "graph.return"() : () -> ()
  }) : () -> ()
}) {dist.mesh = [#dist.axis<"dp", 2>]} : () -> ()
