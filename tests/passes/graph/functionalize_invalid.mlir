// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-functionalize))" --split-input-file --verify-diagnostics

// Tests that a parameter cannot be written by the step itself.
"graph.step"() <{arg_roles = [#graph.param<["w"], true, "matrix">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{writes to #graph.param<["w"], true, "matrix">; the step may only write buffers and tensors that it made: copy the tensor first}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "aten::zero_", mutates = array<i64: 0>}> : (tensor<2xf32>) -> tensor<2xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// Tests that a change of shape in place is named as such.
"graph.step"() <{arg_roles = [#graph.buffer<"b", true>], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  // expected-error @+1 {{changes the shape of its operand in place, which a value cannot do; write aten::t and use its result}}
  %0 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "aten::t_", mutates = array<i64: 0>}> : (tensor<2xf32>) -> tensor<2xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// Tests that a view that may leave its base is refused: the bytes beside the base are no value.
"graph.step"() <{arg_roles = [#graph.buffer<"b", true>], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32, #graph.layout<[1], 2, 32>>):
  %0 = "graph.as_strided"(%arg0) <{size = array<i64: 3>, storage_offset = 0 : i64, stride = array<i64: 1>}> : (tensor<2xf32, #graph.layout<[1], 2, 32>>) -> tensor<3xf32, #graph.layout<[1], 0, 32>>
  // expected-error @+1 {{a view that may reach beyond its base}}
  %1 = "graph.call"(%0) <{args = [#graph.operand], callee = "aten::zero_", mutates = array<i64: 0>}> : (tensor<3xf32, #graph.layout<[1], 0, 32>>) -> tensor<3xf32, #graph.layout<[1], 0, 32>>
  "graph.return"() : () -> ()
}) : () -> ()
