// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-raise-composites))" --mlir-print-op-generic | FileCheck %s
// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-raise-composites,graph-inline-composites))" --mlir-print-op-generic | FileCheck %s --check-prefix=INLINE

// Tests an RMSNorm with its backward ops, found by their nodes; the sum with a residual gradient in their midst belongs to them, the op in between that reads a result moves behind.
// INLINE-NOT: graph.composite
// INLINE: "graph.return"
// CHECK-LABEL: #graph.output<"norm">
// CHECK: ^bb0(%[[X:.+]]: tensor<2x4xf32>, %[[W:.+]]: tensor<4xf32>, %[[G:.+]]: tensor<2x4xf32>, %[[RES:.+]]: tensor<2x4xf32>):
// CHECK-NEXT: %[[FWD:.+]]:3 = "graph.composite"(%[[X]], %[[W]]) <{kind = "rms_norm"}> ({
// CHECK: "graph.pow.Tensor_Scalar"
// CHECK: "graph.rsqrt"
// CHECK: "graph.yield"
// CHECK: {graph.node = 6 : i64, graph.phase = #graph.phase<forward>}
// CHECK-NEXT: %[[BWD:.+]]:2 = "graph.composite"(%[[G]], %[[W]], %[[FWD]]#1, %[[FWD]]#0, %[[RES]], %[[X]]) <{kind = "rms_norm_backward"}> ({
// CHECK: "graph.yield"
// CHECK: {graph.node = 6 : i64, graph.phase = #graph.phase<backward>}
// CHECK-NEXT: %[[NEG:.+]] = "graph.neg"(%[[BWD]]#0)
// CHECK-NEXT: "graph.return"(%[[FWD]]#2, %[[BWD]]#1, %[[NEG]])
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"w">, #graph.input<"g">, #graph.input<"res">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"y">, #graph.output<"gx">, #graph.output<"norm">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xf32>, %arg1: tensor<4xf32>, %arg2: tensor<2x4xf32>, %arg3: tensor<2x4xf32>):
  %0 = "graph.pow.Tensor_Scalar"(%arg0) <{exponent = 2 : i64}> {graph.node = 1 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %1 = "graph.mean.dim"(%0) <{dim = array<i64: -1>, keepdim = true}> {graph.node = 2 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>) -> tensor<2x1xf32>
  %2 = "graph.add.Scalar"(%1) <{alpha = 1 : i64, other = 1.000000e-06 : f64}> {graph.node = 3 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %3 = "graph.rsqrt"(%2) {graph.node = 4 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %4 = "graph.mul.Tensor"(%arg0, %3) {graph.node = 5 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  %5 = "graph.mul.Tensor"(%arg1, %4) {graph.node = 6 : i64, graph.phase = #graph.phase<forward>} : (tensor<4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %6 = "graph.mul.Tensor"(%arg2, %arg1) {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %7 = "graph.mul.Tensor"(%6, %4) {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %8 = "graph.neg"(%7) {graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %9 = "graph.mul.Tensor"(%6, %3) {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  %10 = "graph.add.Tensor"(%arg3, %9) <{alpha = 1 : i64}> {graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %11 = "graph.mul.Scalar"(%arg0) <{other = 2 : i64}> {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %12 = "graph.add.Tensor"(%10, %11) <{alpha = 1 : i64}> {graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  "graph.return"(%5, %12, %8) : (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>) -> ()
}) : () -> ()

// Tests SwiGLU, both rotary forms and cross entropy, and that a rotation whose halves come from two tensors is none.
// CHECK-LABEL: #graph.output<"others">
// CHECK: kind = "swiglu"
// CHECK: kind = "rotary"
// CHECK: kind = "rotary"
// CHECK: kind = "cross_entropy"
// CHECK-NOT: kind = "rotary"
// CHECK: "graph.return"
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">, #graph.input<"c">, #graph.input<"s">, #graph.input<"t">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"a">, #graph.output<"b">, #graph.output<"c">, #graph.output<"d">, #graph.output<"others">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xf32>, %arg1: tensor<2x4xf32>, %arg2: tensor<4xf32>, %arg3: tensor<2xf32>, %arg4: tensor<2xi64>):
  %0 = "graph.silu"(%arg0) : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %1 = "graph.mul.Tensor"(%0, %arg1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %2 = "graph.mul.Tensor"(%arg0, %arg2) : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %3 = "graph.slice.Tensor"(%arg0) <{dim = 1 : i64, end = 2 : i64, start = 0 : i64, step = 1 : i64}> : (tensor<2x4xf32>) -> tensor<2x2xf32, #graph.layout<[4, 1], 0, 32>>
  %4 = "graph.slice.Tensor"(%arg0) <{dim = 1 : i64, end = 4 : i64, start = 2 : i64, step = 1 : i64}> : (tensor<2x4xf32>) -> tensor<2x2xf32, #graph.layout<[4, 1], 2, 32>>
  %5 = "graph.neg"(%4) : (tensor<2x2xf32, #graph.layout<[4, 1], 2, 32>>) -> tensor<2x2xf32>
  %6 = "graph.cat"(%5, %3) <{dim = -1 : i64}> : (tensor<2x2xf32>, tensor<2x2xf32, #graph.layout<[4, 1], 0, 32>>) -> tensor<2x4xf32>
  %7 = "graph.mul.Tensor"(%6, %arg2) : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %8 = "graph.add.Tensor"(%2, %7) <{alpha = 1 : i64}> : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %9 = "graph.slice.Tensor"(%arg1) <{dim = 1 : i64, end = 4 : i64, start = 0 : i64, step = 2 : i64}> : (tensor<2x4xf32>) -> tensor<2x2xf32, #graph.layout<[4, 2], 0, 32>>
  %10 = "graph.slice.Tensor"(%arg1) <{dim = 1 : i64, end = 4 : i64, start = 1 : i64, step = 2 : i64}> : (tensor<2x4xf32>) -> tensor<2x2xf32, #graph.layout<[4, 2], 1, 32>>
  %11 = "graph.slice.Tensor"(%arg2) <{dim = 0 : i64, end = 2 : i64, start = 0 : i64, step = 1 : i64}> : (tensor<4xf32>) -> tensor<2xf32, #graph.layout<[1], 0, 16>>
  %12 = "graph.mul.Tensor"(%9, %11) : (tensor<2x2xf32, #graph.layout<[4, 2], 0, 32>>, tensor<2xf32, #graph.layout<[1], 0, 16>>) -> tensor<2x2xf32>
  %13 = "graph.mul.Tensor"(%10, %arg3) : (tensor<2x2xf32, #graph.layout<[4, 2], 1, 32>>, tensor<2xf32>) -> tensor<2x2xf32>
  %14 = "graph.sub.Tensor"(%12, %13) <{alpha = 1 : i64}> : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  %15 = "graph.mul.Tensor"(%10, %11) : (tensor<2x2xf32, #graph.layout<[4, 2], 1, 32>>, tensor<2xf32, #graph.layout<[1], 0, 16>>) -> tensor<2x2xf32>
  %16 = "graph.mul.Tensor"(%9, %arg3) : (tensor<2x2xf32, #graph.layout<[4, 2], 0, 32>>, tensor<2xf32>) -> tensor<2x2xf32>
  %17 = "graph.add.Tensor"(%15, %16) <{alpha = 1 : i64}> : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  %18 = "graph.cat"(%14, %17) <{dim = -1 : i64}> : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x4xf32>
  %19 = "graph._log_softmax"(%arg0) <{dim = 1 : i64, half_to_float = false}> : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %20:2 = "graph.nll_loss_forward"(%19, %arg4) <{ignore_index = -100 : i64, reduction = 1 : i64}> : (tensor<2x4xf32>, tensor<2xi64>) -> (tensor<f32>, tensor<f32>)
  %21 = "graph.slice.Tensor"(%arg1) <{dim = 1 : i64, end = 4 : i64, start = 2 : i64, step = 1 : i64}> : (tensor<2x4xf32>) -> tensor<2x2xf32, #graph.layout<[4, 1], 2, 32>>
  %22 = "graph.slice.Tensor"(%8) <{dim = 1 : i64, end = 2 : i64, start = 0 : i64, step = 1 : i64}> : (tensor<2x4xf32>) -> tensor<2x2xf32, #graph.layout<[4, 1], 0, 32>>
  %23 = "graph.neg"(%21) : (tensor<2x2xf32, #graph.layout<[4, 1], 2, 32>>) -> tensor<2x2xf32>
  %24 = "graph.cat"(%23, %22) <{dim = -1 : i64}> : (tensor<2x2xf32>, tensor<2x2xf32, #graph.layout<[4, 1], 0, 32>>) -> tensor<2x4xf32>
  %25 = "graph.mul.Tensor"(%24, %arg2) : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %26 = "graph.add.Tensor"(%25, %2) <{alpha = 1 : i64}> : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  "graph.return"(%1, %8, %18, %20#0, %26) : (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<f32>, tensor<2x4xf32>) -> ()
}) : () -> ()
