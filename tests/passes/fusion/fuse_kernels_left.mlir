// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-raise-composites,graph-fuse-kernels))" --split-input-file --verify-diagnostics

// What has no kernel stays a composite, and the remark says why.

// f64 programs are proofs: no kernel rounds for them.
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp64", result_roles = [#graph.output<"z">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xf64>, %arg1: tensor<2x4xf64>):
  %0 = "graph.silu"(%arg0) : (tensor<2x4xf64>) -> tensor<2x4xf64>
  // expected-remark @+1 {{left to be inlined: swiglu: kernels take bf16, f16 and f32, not tensor<2x4xf64>}}
  %1 = "graph.mul.Tensor"(%0, %arg1) : (tensor<2x4xf64>, tensor<2x4xf64>) -> tensor<2x4xf64>
  "graph.return"(%1) : (tensor<2x4xf64>) -> ()
}) : () -> ()

// -----

// Another reader of silu's value.
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"z">, #graph.output<"s">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xf32>, %arg1: tensor<2x4xf32>):
  %0 = "graph.silu"(%arg0) : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // expected-remark @+1 {{left to be inlined: swiglu: an operator beside its gradient reads a value in its midst}}
  %1 = "graph.mul.Tensor"(%0, %arg1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  "graph.return"(%1, %0) : (tensor<2x4xf32>, tensor<2x4xf32>) -> ()
}) : () -> ()

// -----

// A SwiGLU whose factors are broadcast.
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"z">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xf32>, %arg1: tensor<1x4xf32>):
  %0 = "graph.silu"(%arg0) : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // expected-remark @+1 {{left to be inlined: swiglu: its tensors are of different types}}
  %1 = "graph.mul.Tensor"(%0, %arg1) : (tensor<2x4xf32>, tensor<1x4xf32>) -> tensor<2x4xf32>
  "graph.return"(%1) : (tensor<2x4xf32>) -> ()
}) : () -> ()

// -----

// A loss per label.
"graph.step"() <{arg_roles = [#graph.input<"z">, #graph.input<"l">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"o">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>, %arg1: tensor<2xi64>):
  %0 = "graph._log_softmax"(%arg0) <{dim = 1 : i64, half_to_float = false}> : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // expected-remark @+1 {{left to be inlined: cross_entropy: it gives a loss per label, not their mean or sum}}
  %1:2 = "graph.nll_loss_forward"(%0, %arg1) <{ignore_index = -100 : i64, reduction = 0 : i64}> : (tensor<2x3xf32>, tensor<2xi64>) -> (tensor<2xf32>, tensor<f32>)
  "graph.return"(%1#0) : (tensor<2xf32>) -> ()
}) : () -> ()

// -----

// A gradient whose factor is not the one that the mean's gradient has: 3 where rows have 4 elements. The forward kernel alone would lose values that it reads.
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"w">, #graph.input<"g">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"y">, #graph.output<"gx">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xf32>, %arg1: tensor<4xf32>, %arg2: tensor<2x4xf32>):
  %0 = "graph.pow.Tensor_Scalar"(%arg0) <{exponent = 2 : i64}> {graph.node = 1 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %1 = "graph.mean.dim"(%0) <{dim = array<i64: -1>, keepdim = true}> {graph.node = 2 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>) -> tensor<2x1xf32>
  %2 = "graph.add.Scalar"(%1) <{alpha = 1 : i64, other = 1.000000e-06 : f64}> {graph.node = 3 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %3 = "graph.rsqrt"(%2) {graph.node = 4 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %4 = "graph.mul.Tensor"(%arg0, %3) {graph.node = 5 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  // expected-remark @+1 {{left to be inlined: rms_norm: its gradient is not computed as expected}}
  %5 = "graph.mul.Tensor"(%arg1, %4) {graph.node = 6 : i64, graph.phase = #graph.phase<forward>} : (tensor<4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %6 = "graph.mul.Tensor"(%arg2, %arg1) {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %10 = "graph.mul.Tensor"(%6, %arg0) {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %11 = "graph.mul.Tensor"(%6, %3) {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  %13 = "graph.sum.dim_IntList"(%10) <{dim = array<i64: 1>, keepdim = true}> {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>) -> tensor<2x1xf32>
  %14 = "graph.pow.Tensor_Scalar"(%3) <{exponent = 3 : i64}> {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %15 = "graph.mul.Scalar"(%13) <{other = -5.000000e-01 : f64}> {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %16 = "graph.mul.Tensor"(%15, %14) {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x1xf32>, tensor<2x1xf32>) -> tensor<2x1xf32>
  %17 = "graph.expand"(%16) <{implicit = false, size = array<i64: 2, 4>}> {graph.node = 2 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x1xf32>) -> tensor<2x4xf32, #graph.layout<[1, 0], 0, 8>>
  %18 = "graph.div.Scalar"(%17) <{other = 3 : i64}> {graph.node = 2 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32, #graph.layout<[1, 0], 0, 8>>) -> tensor<2x4xf32>
  %19 = "graph.pow.Tensor_Scalar"(%arg0) <{exponent = 1.000000e+00 : f64}> {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %20 = "graph.mul.Scalar"(%19) <{other = 2.000000e+00 : f64}> {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %21 = "graph.mul.Tensor"(%18, %20) {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %22 = "graph.add.Tensor"(%11, %21) <{alpha = 1 : i64}> {graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  "graph.return"(%5, %22) : (tensor<2x4xf32>, tensor<2x4xf32>) -> ()
}) : () -> ()
