// RUN: heddle-opt %s --split-input-file --verify-diagnostics

// Every rule of the dialect, broken once; the case is named after the rule.

// graph_layout_r1
// expected-error @+1 {{layout has 1 strides for a tensor of rank 2 (graph_layout_r1)}}
"graph.test"() : () -> tensor<2x2xf32, #graph.layout<[1], 0, 16>>

// -----

// graph_layout_r2
// expected-error @+1 {{layout has a negative stride or offset (graph_layout_r2)}}
"graph.test"() : () -> tensor<2x2xf32, #graph.layout<[-1, 1], 0, 16>>

// -----

// graph_layout_r3
// expected-error @+1 {{layout's storage of 12 bytes does not cover its last element 3 (graph_layout_r3)}}
"graph.test"() : () -> tensor<2x2xf32, #graph.layout<[2, 1], 0, 12>>

// -----

// graph_layout_r3
// expected-error @+1 {{layout reaches beyond 2^63 elements (graph_layout_r3)}}
"graph.test"() : () -> tensor<3x2xf32, #graph.layout<[9223372036854775807, 1], 0, 12>>

// -----

// graph_layout_r4
// expected-error @+1 {{layout of a tensor of unknown size (graph_layout_r4)}}
"graph.test"() : () -> tensor<?x2xf32, #graph.layout<[2, 1], 0, 12>>

// -----

// graph_step_r1
// expected-error @+1 {{has 0 argument roles for 1 arguments (graph_step_r1)}}
"graph.step"() <{arg_roles = [], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_step_r1
// expected-error @+1 {{argument 0 has #graph.loss, which is not an argument role (graph_step_r1)}}
"graph.step"() <{arg_roles = [#graph.loss], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_step_r1
// expected-error @+1 {{argument 0 is a parameter without a name (graph_step_r1)}}
"graph.step"() <{arg_roles = [#graph.param<[], true, "matrix">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_step_r2
// expected-error @+1 {{has 1 result roles for 0 returned values (graph_step_r2)}}
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.loss], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_step_r2
// expected-error @+1 {{has #graph.input<"x">, which is not a result role (graph_step_r2)}}
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.input<"x">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  "graph.return"(%arg0) : (tensor<2x3xf32>) -> ()
}) : () -> ()

// -----

// graph_step_r3
// expected-error @+1 {{has format_version 7, but this compiler reads version 1; capture the step again (graph_step_r3)}}
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 7 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_step_r4
// expected-error @+1 {{names two parameters or buffers "w" (graph_step_r4)}}
"graph.step"() <{arg_roles = [#graph.param<["w"], true, "bias">, #graph.buffer<"w", true>], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>, %arg1: tensor<2xf32>):
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_step_r4
// expected-error @+1 {{returns a gradient of "v", which is no parameter (graph_step_r4)}}
"graph.step"() <{arg_roles = [#graph.param<["w"], true, "matrix">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.gradient<"v">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  "graph.return"(%arg0) : (tensor<2x3xf32>) -> ()
}) : () -> ()

// -----

// graph_step_r5
// expected-error @+1 {{has a loss of type 'tensor<2x3xf32>' (graph_step_r5)}}
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.loss], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  "graph.return"(%arg0) : (tensor<2x3xf32>) -> ()
}) : () -> ()

// -----

// graph_guard_r1
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xi64>):
  // expected-error @+1 {{expects 1 values of a tensor with 2 elements (graph_guard_r1)}}
  "graph.guard"(%arg0) <{expected = array<i64: 1>}> : (tensor<2xi64>) -> ()
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_guard_r2
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<f32>):
  // expected-error @+1 {{reads a value of type 'tensor<f32>' (graph_guard_r2)}}
  "graph.guard"(%arg0) <{expected = array<i64: 1>}> : (tensor<f32>) -> ()
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_linked_r1
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{has graph.node = "a", which is not an i64 (graph_linked_r1)}}
  %0 = "graph.neg"(%arg0) {graph.node = "a"} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_linked_r2
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{has graph.phase = 1 : i64, which is not a #graph.phase (graph_linked_r2)}}
  %0 = "graph.neg"(%arg0) {graph.phase = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_linked_r3
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{has the unknown attribute graph.nod (graph_linked_r3)}}
  %0 = "graph.neg"(%arg0) {graph.nod = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_view_r1
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{looks into a storage of 24 bytes, but its result's type names one of 32 bytes (graph_view_r1)}}
  %0 = "graph.view"(%arg0) <{size = array<i64: 6>}> : (tensor<2x3xf32>) -> tensor<6xf32, #graph.layout<[1], 0, 32>>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_view_r2
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{turns 6 elements into 4 (graph_view_r2)}}
  %0 = "graph.view"(%arg0) <{size = array<i64: 4>}> : (tensor<2x3xf32>) -> tensor<4xf32, #graph.layout<[1], 0, 24>>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_matmul_r1
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>, %arg1: tensor<3xf32>):
  // expected-error @+1 {{multiplies tensors of rank 2 and 1, not 2 and 2 (graph_matmul_r1)}}
  %0 = "graph.mm"(%arg0, %arg1) : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_matmul_r2
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{sums over 3 columns and 2 rows (graph_matmul_r2)}}
  %0 = "graph.mm"(%arg0, %arg0) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_matmul_r3
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>, %arg1: tensor<3x2xf32>):
  // expected-error @+1 {{multiplies 'tensor<2x3xf32>' and 'tensor<3x2xf32>' to 'tensor<2x3xf32>' (graph_matmul_r3)}}
  %0 = "graph.mm"(%arg0, %arg1) : (tensor<2x3xf32>, tensor<3x2xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_attention_r1
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<1x2x3x4xf32>, %arg1: tensor<1x2x5x4xf32>):
  // expected-error @+1 {{(graph_attention_r1)}}
  %0:2 = "graph._scaled_dot_product_flash_attention_for_cpu"(%arg0, %arg0, %arg1) <{dropout_p = 0.000000e+00 : f64, is_causal = true}> : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>, tensor<1x2x5x4xf32>) -> (tensor<1x2x3x4xf32>, tensor<1x2x3xf32>)
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_call_r1
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{has callee "add", which is not "ns::name.overload" (graph_call_r1)}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "add"}> : (tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_call_r1
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{calls "aten::neg", which is the op graph.neg (graph_call_r1)}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "aten::neg"}> : (tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_call_r2
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{has args for 2 operands, but 1 operands (graph_call_r2)}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand, #graph.operand], callee = "my::op"}> : (tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_call_r2
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{has an argument list whose entries are not #graph.operand or unit (graph_call_r2)}}
  %0 = "graph.call"(%arg0) <{args = [[#graph.operand, 1 : i64]], callee = "my::op"}> : (tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_call_r3
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{mutates operand 1 of 1, which is out of range or named twice (graph_call_r3)}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "my::op_", mutates = array<i64: 1>}> : (tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_call_r3
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{mutates operand 0 of 1, which is out of range or named twice (graph_call_r3)}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "my::op_", mutates = array<i64: 0, 0>}> : (tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_call_r4
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{returns the handle of operand 0 of type 'tensor<2x3xf32>' as 'tensor<3xf32>' (graph_call_r4)}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "my::op_", mutates = array<i64: 0>}> : (tensor<2x3xf32>) -> tensor<3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_call_r4
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{gives operand 0 of type 'tensor<2x3xf32>' a new value of type 'tensor<3xf32>' (graph_call_r4)}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "my::op_", dps, mutates = array<i64: 0>}> : (tensor<2x3xf32>) -> tensor<3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_call_r5
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  // expected-error @+1 {{has dps without mutates (graph_call_r5)}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "my::op_", dps}> : (tensor<2x3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_view_update_r1
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>, %arg1: tensor<3xf32>):
  // expected-error @+1 {{graph_view_update_r1: layout has 2 strides for a tensor of rank 1}}
  %0 = "graph.view_update"(%arg0, %arg1) <{layout = #graph.layout<[3, 1], 0, 24>}> : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_view_update_r2
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>, %arg1: tensor<3xf32>):
  // expected-error @+1 {{updates a storage of 32 bytes in a base of 24 bytes (graph_view_update_r2)}}
  %0 = "graph.view_update"(%arg0, %arg1) <{layout = #graph.layout<[1], 3, 32>}> : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_composite_r1
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{has the unknown kind "softmax" (graph_composite_r1)}}
  %0 = "graph.composite"(%arg0) <{kind = "softmax"}> ({
  ^bb0(%a: tensor<2xf32>):
    "graph.yield"(%a) : (tensor<2xf32>) -> ()
  }) : (tensor<2xf32>) -> tensor<2xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_composite_r2
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{whose arguments are not its operands' types (graph_composite_r2)}}
  %0 = "graph.composite"(%arg0) <{kind = "rotary"}> ({
  ^bb0(%a: tensor<3xf32>):
    "graph.yield"(%a) : (tensor<3xf32>) -> ()
  }) : (tensor<2xf32>) -> tensor<2xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_composite_r3
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{graph.yield of its results' types (graph_composite_r3)}}
  %0 = "graph.composite"(%arg0) <{kind = "rotary"}> ({
  ^bb0(%a: tensor<2xf32>):
    "graph.yield"() : () -> ()
  }) : (tensor<2xf32>) -> tensor<2xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_step_r6
// expected-error @+1 {{has a tensor of type 'tensor<?x3xf32>', whose shape is not static or too large (graph_step_r6)}}
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<?x3xf32>):
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_step_r6
"graph.step"() <{arg_roles = [], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
  // expected-error @+1 {{whose shape is not static or too large (graph_step_r6)}}
  %0 = "graph.zeros"() <{size = array<i64>}> : () -> tensor<4294967296x4294967296xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_kernel_r1
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{names two operands 'a' (graph_kernel_r1)}}
  "graph.kernel"(%arg0, %arg0) <{kernel = "k", operand_names = ["a", "a"], overwrites = array<i64>, scalars = {}}> : (tensor<2xf32>, tensor<2xf32>) -> ()
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_kernel_r1
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{has 2 operands and 1 names for them (graph_kernel_r1)}}
  "graph.kernel"(%arg0, %arg0) <{kernel = "k", operand_names = ["a"], overwrites = array<i64>, scalars = {}}> : (tensor<2xf32>, tensor<2xf32>) -> ()
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_kernel_r2
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{has scalar 'eps' = 1.000000e+00 : f32, which is neither i64 nor f64 (graph_kernel_r2)}}
  "graph.kernel"(%arg0) <{kernel = "k", operand_names = ["a"], overwrites = array<i64>, scalars = {eps = 1.0 : f32}}> : (tensor<2xf32>) -> ()
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// graph_kernel_r3
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{may not write result 0 over operand 0 (graph_kernel_r3)}}
  %0 = "graph.kernel"(%arg0) <{kernel = "k", operand_names = ["a"], overwrites = array<i64: 0>, scalars = {}}> : (tensor<2xf32>) -> tensor<3xf32>
  "graph.return"() : () -> ()
}) : () -> ()
