// RUN: heddle-opt %s --split-input-file --verify-diagnostics

// Every rule of the optim dialect, broken once; the case is named after the rule.

// optim_accumulate_r1
"graph.step"() <{arg_roles = [#graph.state<"w", "accumulator">, #graph.input<"g">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>, %arg1: tensor<3xf32>):
  // expected-error @+1 {{adds 'tensor<3xf32>' to 'tensor<2xf32>' (optim_accumulate_r1)}}
  %0 = "optim.accumulate"(%arg0, %arg1) : (tensor<2xf32>, tensor<3xf32>) -> tensor<2xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// optim_accumulate_product_r1
"graph.step"() <{arg_roles = [#graph.state<"w", "accumulator">, #graph.input<"a">, #graph.input<"b">], format_version = 1 : i64, precision = "bf16", result_roles = [], target = "cuda", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<4x2xf32>, %arg1: tensor<4x8xbf16>, %arg2: tensor<8x2xbf16>):
  %0 = "optim.accumulate_product"(%arg0, %arg1, %arg2) : (tensor<4x2xf32>, tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xf32>
  // expected-error @+1 {{adds the transposed product of 'tensor<4x8xbf16>' and 'tensor<8x2xbf16>' to 'tensor<4x2xf32>' (optim_accumulate_product_r1)}}
  %1 = "optim.accumulate_product"(%arg0, %arg1, %arg2) <{transposed}> : (tensor<4x2xf32>, tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// optim_average_r1
"graph.step"() <{arg_roles = [#graph.input<"g">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{divides by "steps", which is neither micro_batches nor label_count (optim_average_r1)}}
  %0 = "optim.average"(%arg0) <{divisor = "steps"}> : (tensor<2xf32>) -> tensor<2xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// optim_grad_norm_r1
"graph.step"() <{arg_roles = [], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
  // expected-error @+1 {{has no gradient (optim_grad_norm_r1)}}
  %0 = "optim.grad_norm"() : () -> tensor<f32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// optim_clip_factor_r1
"graph.step"() <{arg_roles = [#graph.input<"n">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<f32>):
  // expected-error @+1 {{which is not a positive number (optim_clip_factor_r1)}}
  %0 = "optim.clip_factor"(%arg0) <{max_norm = 0x7FF8000000000000 : f64}> : (tensor<f32>) -> tensor<f32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// optim_adamw_r1
"graph.step"() <{arg_roles = [#graph.input<"w">, #graph.input<"g">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>, %arg1: tensor<3xf32>):
  // expected-error @+1 {{updates 'tensor<2xf32>' with 'tensor<3xf32>' (optim_adamw_r1)}}
  %0:3 = "optim.adamw"(%arg0, %arg1, %arg0, %arg0) <{beta1 = 0.9 : f64, beta2 = 9.900000e-01 : f64, eps = 1.0e-08 : f64, group = 0 : i64, lr_scale = 1.000000e+00 : f64, operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 0>, weight_decay = 0.000000e+00 : f64}> : (tensor<2xf32>, tensor<3xf32>, tensor<2xf32>, tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>)
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// optim_adamw_r2
"graph.step"() <{arg_roles = [#graph.input<"w">, #graph.input<"g">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>, %arg1: tensor<2xf32>):
  // expected-error @+1 {{which is not in [0, 1) (optim_adamw_r2)}}
  %0:3 = "optim.adamw"(%arg0, %arg1, %arg0, %arg0) <{beta1 = 1.0 : f64, beta2 = 9.900000e-01 : f64, eps = 1.0e-08 : f64, group = 0 : i64, lr_scale = 1.000000e+00 : f64, operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 0>, weight_decay = 0.000000e+00 : f64}> : (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>)
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// optim_adamw_r3
"graph.step"() <{arg_roles = [#graph.input<"w">, #graph.input<"g">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>, %arg1: tensor<2xf32>):
  // expected-error @+1 {{has a negative eps, weight_decay or lr_scale (optim_adamw_r3)}}
  %0:3 = "optim.adamw"(%arg0, %arg1, %arg0, %arg0) <{beta1 = 0.9 : f64, beta2 = 9.900000e-01 : f64, eps = -1.0 : f64, group = 0 : i64, lr_scale = 1.000000e+00 : f64, operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 0>, weight_decay = 0.000000e+00 : f64}> : (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>)
  "graph.return"() : () -> ()
}) : () -> ()
