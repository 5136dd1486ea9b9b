// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-verify-functional))" --split-input-file --verify-diagnostics

// functional_r1: a write is left.
"graph.step"() <{arg_roles = [#graph.buffer<"b", true>], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{writes through operand 0; run graph-functionalize first (functional_r1)}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "aten::zero_", mutates = array<i64: 0>}> : (tensor<2xf32>) -> tensor<2xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// functional_r2: two new values of one buffer.
// expected-error @+1 {{returns #graph.new_value<"b"> twice (functional_r2)}}
"graph.step"() <{arg_roles = [#graph.buffer<"b", true>], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.new_value<"b">, #graph.new_value<"b">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  "graph.return"(%arg0, %arg0) : (tensor<2xf32>, tensor<2xf32>) -> ()
}) : () -> ()

// -----

// functional_r3: a guard on a parameter.
"graph.step"() <{arg_roles = [#graph.param<["w"], true, "matrix">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<f32>):
  %0 = "graph.gt.Scalar"(%arg0) <{other = 0 : i64}> : (tensor<f32>) -> tensor<i1>
  // expected-error @+1 {{depends on #graph.param<["w"], true, "matrix"> of type 'tensor<f32>'}}
  "graph.guard"(%0) <{expected = array<i64: 1>}> : (tensor<i1>) -> ()
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// functional_r3: a guard on chance.
"graph.step"() <{arg_roles = [], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
  // expected-note @+1 {{drawn here}}
  %0 = "graph.rand"() <{size = array<i64>}> {graph.rng_id = 0 : i64} : () -> tensor<f32>
  %1 = "graph.gt.Scalar"(%0) <{other = 0 : i64}> : (tensor<f32>) -> tensor<i1>
  // expected-error @+1 {{depends on a random value (functional_r3)}}
  "graph.guard"(%1) <{expected = array<i64: 1>}> : (tensor<i1>) -> ()
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// Accepted: a guard on an integer input.
"graph.step"() <{arg_roles = [#graph.input<"n">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<i64>):
  "graph.guard"(%arg0) <{expected = array<i64: 3>}> : (tensor<i64>) -> ()
  "graph.return"() : () -> ()
}) : () -> ()
