// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-raise-composites,graph-fuse-kernels,graph-dce))" --mlir-print-op-generic | FileCheck %s

// Tests an RMSNorm of a sum that is read again: one kernel makes both; the gradient takes the sum of two gradients and adds the residual's.
// CHECK-LABEL: kernels = {rms_norm = 1 : i64, rms_norm_backward = 1 : i64}
// CHECK: ^bb0(%[[X:.+]]: tensor<2x4xf32>, %[[A:.+]]: tensor<2x4xf32>, %[[W:.+]]: tensor<4xf32>, %[[G0:.+]]: tensor<2x4xf32>, %[[G1:.+]]: tensor<2x4xf32>, %[[RES:.+]]: tensor<2x4xf32>):
// CHECK-NEXT: %[[F:.+]]:3 = "graph.kernel"(%[[X]], %[[A]], %[[W]]) <{kernel = "rms_norm", operand_names = ["x", "addend", "weight"], overwrites = array<i64: -1, -1, 0>, scalars = {eps = 9.9999999999999995E-7 : f64}}> {graph.node = 6 : i64, graph.phase = #graph.phase<forward>}
// CHECK-SAME: -> (tensor<2x4xf32>, tensor<2x1xf32>, tensor<2x4xf32>)
// CHECK-NEXT: %[[B:.+]]:3 = "graph.kernel"(%[[G0]], %[[G1]], %[[F]]#2, %[[W]], %[[F]]#1, %[[RES]]) <{kernel = "rms_norm_backward", operand_names = ["dy", "dy1", "x", "weight", "rstd", "residual"], overwrites = array<i64: 0, -1, -1>, scalars = {}}>
// CHECK-SAME: -> (tensor<2x4xf32>, tensor<4xf32>, tensor<2x4xf32>)
// CHECK-NEXT: "graph.return"(%[[F]]#0, %[[F]]#2, %[[B]]#0, %[[B]]#1)
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"a">, #graph.input<"w">, #graph.input<"g0">, #graph.input<"g1">, #graph.input<"res">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"y">, #graph.output<"h">, #graph.output<"gx">, #graph.output<"gw">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xf32>, %arg1: tensor<2x4xf32>, %arg2: tensor<4xf32>, %arg3: tensor<2x4xf32>, %arg4: tensor<2x4xf32>, %arg5: tensor<2x4xf32>):
  %h = "graph.add.Tensor"(%arg0, %arg1) <{alpha = 1 : i64}> : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %0 = "graph.pow.Tensor_Scalar"(%h) <{exponent = 2 : i64}> {graph.node = 1 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %1 = "graph.mean.dim"(%0) <{dim = array<i64: -1>, keepdim = true}> {graph.node = 2 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>) -> tensor<2x1xf32>
  %2 = "graph.add.Scalar"(%1) <{alpha = 1 : i64, other = 1.000000e-06 : f64}> {graph.node = 3 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %3 = "graph.rsqrt"(%2) {graph.node = 4 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %4 = "graph.mul.Tensor"(%h, %3) {graph.node = 5 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  %5 = "graph.mul.Tensor"(%arg2, %4) {graph.node = 6 : i64, graph.phase = #graph.phase<forward>} : (tensor<4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %g = "graph.add.Tensor"(%arg3, %arg4) <{alpha = 1 : i64}> {graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %6 = "graph.mul.Tensor"(%g, %arg2) {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %7 = "graph.mul.Tensor"(%g, %4) {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %8 = "graph.sum.dim_IntList"(%7) <{dim = array<i64: 0>, keepdim = true}> {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>) -> tensor<1x4xf32>
  %9 = "graph.view"(%8) <{size = array<i64: 4>}> {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x4xf32>) -> tensor<4xf32>
  %10 = "graph.mul.Tensor"(%6, %h) {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %11 = "graph.mul.Tensor"(%6, %3) {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  %12 = "graph.add.Tensor"(%arg5, %11) <{alpha = 1 : i64}> {graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %13 = "graph.sum.dim_IntList"(%10) <{dim = array<i64: 1>, keepdim = true}> {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>) -> tensor<2x1xf32>
  %14 = "graph.pow.Tensor_Scalar"(%3) <{exponent = 3 : i64}> {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %15 = "graph.mul.Scalar"(%13) <{other = -5.000000e-01 : f64}> {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %16 = "graph.mul.Tensor"(%15, %14) {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x1xf32>, tensor<2x1xf32>) -> tensor<2x1xf32>
  %17 = "graph.expand"(%16) <{implicit = false, size = array<i64: 2, 4>}> {graph.node = 2 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x1xf32>) -> tensor<2x4xf32, #graph.layout<[1, 0], 0, 8>>
  %18 = "graph.div.Scalar"(%17) <{other = 4 : i64}> {graph.node = 2 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32, #graph.layout<[1, 0], 0, 8>>) -> tensor<2x4xf32>
  %19 = "graph.pow.Tensor_Scalar"(%h) <{exponent = 1.000000e+00 : f64}> {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %20 = "graph.mul.Scalar"(%19) <{other = 2.000000e+00 : f64}> {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %21 = "graph.mul.Tensor"(%18, %20) {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %22 = "graph.add.Tensor"(%12, %21) <{alpha = 1 : i64}> {graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  "graph.return"(%5, %h, %22, %9) : (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<4xf32>) -> ()
}) : () -> ()

// Tests that a rotated gradient is written as its transposed copy has it, and that the copy is gone.
// CHECK-LABEL: kernels = {rotary = 1 : i64, rotary_backward = 1 : i64}
// CHECK: ^bb0(%[[X:.+]]: tensor<1x2x3x4xf32>, %[[C:.+]]: tensor<3x4xf32>, %[[S:.+]]: tensor<3x4xf32>, %[[G:.+]]: tensor<1x2x3x4xf32>):
// CHECK-NEXT: %[[F:.+]] = "graph.kernel"(%[[X]], %[[C]], %[[S]]) <{kernel = "rotary", operand_names = ["x", "cos", "sin"], overwrites = array<i64: 0>, scalars = {}}>
// CHECK-NEXT: %[[B:.+]] = "graph.kernel"(%[[G]], %[[C]], %[[S]]) <{kernel = "rotary_backward", operand_names = ["dy", "cos", "sin"], overwrites = array<i64: -1>, scalars = {}}>
// CHECK-SAME: -> tensor<1x2x3x4xf32, #graph.layout<[24, 4, 8, 1], 0, 96>>
// CHECK-NEXT: %[[T:.+]] = "graph.transpose.int"(%[[B]]) <{dim0 = 1 : i64, dim1 = 2 : i64}>
// CHECK-SAME: -> tensor<1x3x2x4xf32>
// CHECK-NEXT: "graph.return"(%[[F]], %[[T]])
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"c">, #graph.input<"s">, #graph.input<"g">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"y">, #graph.output<"gx">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<1x2x3x4xf32>, %arg1: tensor<3x4xf32>, %arg2: tensor<3x4xf32>, %arg3: tensor<1x2x3x4xf32>):
  %0 = "graph.mul.Tensor"(%arg0, %arg1) {graph.node = 1 : i64, graph.phase = #graph.phase<forward>} : (tensor<1x2x3x4xf32>, tensor<3x4xf32>) -> tensor<1x2x3x4xf32>
  %1 = "graph.slice.Tensor"(%arg0) <{dim = 3 : i64, end = 2 : i64, start = 0 : i64, step = 1 : i64}> {graph.node = 2 : i64, graph.phase = #graph.phase<forward>} : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x2xf32, #graph.layout<[24, 12, 4, 1], 0, 96>>
  %2 = "graph.slice.Tensor"(%arg0) <{dim = 3 : i64, end = 9223372036854775807 : i64, start = 2 : i64, step = 1 : i64}> {graph.node = 3 : i64, graph.phase = #graph.phase<forward>} : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x2xf32, #graph.layout<[24, 12, 4, 1], 2, 96>>
  %3 = "graph.neg"(%2) {graph.node = 4 : i64, graph.phase = #graph.phase<forward>} : (tensor<1x2x3x2xf32, #graph.layout<[24, 12, 4, 1], 2, 96>>) -> tensor<1x2x3x2xf32>
  %4 = "graph.cat"(%3, %1) <{dim = -1 : i64}> {graph.node = 5 : i64, graph.phase = #graph.phase<forward>} : (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32, #graph.layout<[24, 12, 4, 1], 0, 96>>) -> tensor<1x2x3x4xf32>
  %5 = "graph.mul.Tensor"(%4, %arg2) {graph.node = 6 : i64, graph.phase = #graph.phase<forward>} : (tensor<1x2x3x4xf32>, tensor<3x4xf32>) -> tensor<1x2x3x4xf32>
  %6 = "graph.add.Tensor"(%0, %5) <{alpha = 1 : i64}> {graph.node = 7 : i64, graph.phase = #graph.phase<forward>} : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
  %7 = "graph.mul.Tensor"(%arg3, %arg2) {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x2x3x4xf32>, tensor<3x4xf32>) -> tensor<1x2x3x4xf32>
  %8 = "graph.slice.Tensor"(%7) <{dim = 3 : i64, end = 2 : i64, start = 0 : i64, step = 1 : i64}> {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x2xf32, #graph.layout<[24, 12, 4, 1], 0, 96>>
  %9 = "graph.slice.Tensor"(%7) <{dim = 3 : i64, end = 4 : i64, start = 2 : i64, step = 1 : i64}> {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x2xf32, #graph.layout<[24, 12, 4, 1], 2, 96>>
  %10 = "graph.neg"(%8) {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x2x3x2xf32, #graph.layout<[24, 12, 4, 1], 0, 96>>) -> tensor<1x2x3x2xf32>
  %11 = "graph.slice_backward"(%10) <{dim = 3 : i64, end = 9223372036854775807 : i64, input_sizes = array<i64: 1, 2, 3, 4>, start = 2 : i64, step = 1 : i64}> {graph.node = 3 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x2x3x2xf32>) -> tensor<1x2x3x4xf32>
  %12 = "graph.slice_backward"(%9) <{dim = 3 : i64, end = 2 : i64, input_sizes = array<i64: 1, 2, 3, 4>, start = 0 : i64, step = 1 : i64}> {graph.node = 2 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x2x3x2xf32, #graph.layout<[24, 12, 4, 1], 2, 96>>) -> tensor<1x2x3x4xf32>
  %13 = "graph.add.Tensor"(%11, %12) <{alpha = 1 : i64}> {graph.node = 2 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
  %14 = "graph.mul.Tensor"(%arg3, %arg1) {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x2x3x4xf32>, tensor<3x4xf32>) -> tensor<1x2x3x4xf32>
  %15 = "graph.add.Tensor"(%13, %14) <{alpha = 1 : i64}> {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
  %16 = "graph.transpose.int"(%15) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.phase = #graph.phase<backward>} : (tensor<1x2x3x4xf32>) -> tensor<1x3x2x4xf32, #graph.layout<[24, 4, 12, 1], 0, 96>>
  %17 = "graph.clone"(%16) <{memory_format = "contiguous"}> {graph.phase = #graph.phase<backward>} : (tensor<1x3x2x4xf32, #graph.layout<[24, 4, 12, 1], 0, 96>>) -> tensor<1x3x2x4xf32>
  "graph.return"(%6, %17) : (tensor<1x2x3x4xf32>, tensor<1x3x2x4xf32>) -> ()
}) : () -> ()

// Tests that a loss over widened logits reads the narrow ones and writes their gradient narrow, over them, and that a SwiGLU without a gradient is one kernel too.
// CHECK-LABEL: kernels = {cross_entropy = 1 : i64, cross_entropy_backward = 1 : i64, swiglu = 1 : i64}
// CHECK: ^bb0(%[[Z:.+]]: tensor<1x2x3xbf16>, %[[L:.+]]: tensor<2xi64>, %[[U:.+]]: tensor<2x4xbf16>, %[[V:.+]]: tensor<2x4xbf16>):
// CHECK-NEXT: %[[F:.+]]:4 = "graph.kernel"(%[[Z]], %[[L]]) <{kernel = "cross_entropy", operand_names = ["logits", "labels"], overwrites = array<i64: -1, -1, -1, -1>, scalars = {ignore_index = -100 : i64, mean = 1 : i64}}>
// CHECK-SAME: -> (tensor<f32>, tensor<f32>, tensor<2xf32>, tensor<2xf32>)
// CHECK-NEXT: %[[ONE:.+]] = "graph.ones_like"(%[[F]]#0)
// CHECK-NEXT: %[[B:.+]] = "graph.kernel"(%[[ONE]], %[[Z]], %[[L]], %[[F]]#1, %[[F]]#2) <{kernel = "cross_entropy_backward", operand_names = ["dloss", "logits", "labels", "total_weight", "lse"], overwrites = array<i64: 1>,
// CHECK-NEXT: %[[Y:.+]] = "graph.kernel"(%[[U]], %[[V]]) <{kernel = "swiglu", operand_names = ["gate", "up"], overwrites = array<i64: -1>, scalars = {}}>
// CHECK-NEXT: "graph.return"(%[[F]]#0, %[[B]], %[[Y]])
"graph.step"() <{arg_roles = [#graph.input<"z">, #graph.input<"l">, #graph.input<"u">, #graph.input<"v">], format_version = 1 : i64, precision = "bf16", result_roles = [#graph.loss, #graph.output<"gz">, #graph.output<"y">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<1x2x3xbf16>, %arg1: tensor<2xi64>, %arg2: tensor<2x4xbf16>, %arg3: tensor<2x4xbf16>):
  %0 = "graph._to_copy"(%arg0) <{dtype = f32, non_blocking = false}> {graph.node = 1 : i64, graph.phase = #graph.phase<forward>} : (tensor<1x2x3xbf16>) -> tensor<1x2x3xf32>
  %1 = "graph.view"(%0) <{size = array<i64: -1, 3>}> {graph.node = 2 : i64, graph.phase = #graph.phase<forward>} : (tensor<1x2x3xf32>) -> tensor<2x3xf32>
  %2 = "graph._log_softmax"(%1) <{dim = 1 : i64, half_to_float = false}> {graph.node = 3 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %3:2 = "graph.nll_loss_forward"(%2, %arg1) <{ignore_index = -100 : i64, reduction = 1 : i64}> {graph.node = 4 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x3xf32>, tensor<2xi64>) -> (tensor<f32>, tensor<f32>)
  %4 = "graph.ones_like"(%3#0) <{memory_format = "preserve", pin_memory = false}> {graph.phase = #graph.phase<backward>} : (tensor<f32>) -> tensor<f32>
  %5 = "graph.nll_loss_backward"(%4, %2, %arg1, %3#1) <{ignore_index = -100 : i64, reduction = 1 : i64}> {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<f32>, tensor<2x3xf32>, tensor<2xi64>, tensor<f32>) -> tensor<2x3xf32>
  %6 = "graph._log_softmax_backward_data"(%5, %2) <{dim = 1 : i64, input_dtype = f32}> {graph.node = 3 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %7 = "graph.view"(%6) <{size = array<i64: 1, 2, 3>}> {graph.node = 2 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x3xf32>) -> tensor<1x2x3xf32>
  %8 = "graph._to_copy"(%7) <{dtype = bf16, non_blocking = false}> {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x2x3xf32>) -> tensor<1x2x3xbf16>
  %9 = "graph.silu"(%arg2) {graph.node = 8 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xbf16>) -> tensor<2x4xbf16>
  %10 = "graph.mul.Tensor"(%9, %arg3) {graph.node = 9 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xbf16>, tensor<2x4xbf16>) -> tensor<2x4xbf16>
  "graph.return"(%3#0, %8, %10) : (tensor<f32>, tensor<1x2x3xbf16>, tensor<2x4xbf16>) -> ()
}) : () -> ()
