// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-functionalize))" --mlir-print-op-generic | FileCheck %s

// Tests that a write through a view makes a new value of the base, and that base and view are read anew afterwards.
// CHECK-LABEL: "graph.step"
// CHECK-SAME: #graph.output<"view_write">
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"view_write">, #graph.output<"row">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xf32>, %arg1: tensor<4xf32>):
  // CHECK: %[[BASE:.+]] = "graph.neg"
  // CHECK: %[[VIEW:.+]] = "graph.select.int"(%[[BASE]])
  // CHECK: %[[SUM:.+]] = "graph.add.Tensor"(%[[VIEW]], %{{.+}}) <{alpha = 2 : i64}> {graph.node = 4 : i64} : ({{.*}}) -> tensor<4xf32>
  // CHECK: %[[NEW:.+]] = "graph.view_update"(%[[BASE]], %[[SUM]]) <{layout = #graph.layout<[1], 4, 32>}> {graph.node = 4 : i64}
  // CHECK-NOT: graph.call
  // CHECK: %[[AGAIN:.+]] = "graph.select.int"(%[[NEW]])
  // CHECK: %[[TWICE:.+]] = "graph.mul.Scalar"(%[[AGAIN]])
  // CHECK: "graph.return"(%[[NEW]], %[[TWICE]])
  %0 = "graph.neg"(%arg0) : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %1 = "graph.select.int"(%0) <{dim = 0 : i64, index = 1 : i64}> : (tensor<2x4xf32>) -> tensor<4xf32, #graph.layout<[1], 4, 32>>
  %2 = "graph.call"(%1, %arg1) <{args = [#graph.operand, #graph.operand, 2 : i64], callee = "aten::add_.Tensor", mutates = array<i64: 0>}> {graph.node = 4 : i64} : (tensor<4xf32, #graph.layout<[1], 4, 32>>, tensor<4xf32>) -> tensor<4xf32, #graph.layout<[1], 4, 32>>
  %3 = "graph.mul.Scalar"(%2) <{other = 2 : i64}> : (tensor<4xf32, #graph.layout<[1], 4, 32>>) -> tensor<4xf32>
  "graph.return"(%0, %3) : (tensor<2x4xf32>, tensor<4xf32>) -> ()
}) : () -> ()

// Tests that a buffer that was written leaves the step, and that an integer buffer takes an integer add.
// CHECK-LABEL: "graph.step"
// CHECK-SAME: #graph.output<"buffer">, #graph.new_value<"steps">
"graph.step"() <{arg_roles = [#graph.buffer<"steps", true>], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"buffer">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<i64>):
  // CHECK: %[[NEXT:.+]] = "graph.add.Scalar"
  // CHECK: "graph.return"(%{{.+}}, %[[NEXT]])
  %0 = "graph.clone"(%arg0) : (tensor<i64>) -> tensor<i64>
  %1 = "graph.call"(%arg0) <{args = [#graph.operand, 1 : i64, 1 : i64], callee = "aten::add_.Scalar", mutates = array<i64: 0>}> : (tensor<i64>) -> tensor<i64>
  "graph.return"(%0) : (tensor<i64>) -> ()
}) : () -> ()

// Tests that a write whose functional form would change the element type stays a call, now pure, and that a strided operand does too.
// CHECK-LABEL: "graph.step"
// CHECK-SAME: #graph.output<"dps">
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"dps">, #graph.output<"strided">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xbf16>, %arg1: tensor<2x3xf32>):
  // CHECK: %[[BASE:.+]] = "graph.neg"
  // CHECK: %[[FIRST:.+]] = "graph.call"(%[[BASE]], %{{.+}}) <{args = {{.*}}, callee = "aten::add_.Tensor", dps, mutates = array<i64: 0>}> : (tensor<2x3xbf16>, tensor<2x3xf32>) -> tensor<2x3xbf16>
  // CHECK: %[[T:.+]] = "graph.t"(%[[FIRST]])
  // CHECK: %[[SECOND:.+]] = "graph.call"(%[[T]]) <{{.*}}dps{{.*}}-> tensor<3x2xbf16>
  // CHECK: %[[NEW:.+]] = "graph.view_update"(%[[FIRST]], %[[SECOND]]) <{layout = #graph.layout<[1, 3], 0, 12>}>
  // CHECK: %[[T2:.+]] = "graph.t"(%[[NEW]])
  // CHECK: "graph.return"(%[[NEW]], %[[T2]])
  %0 = "graph.neg"(%arg0) : (tensor<2x3xbf16>) -> tensor<2x3xbf16>
  %1 = "graph.call"(%0, %arg1) <{args = [#graph.operand, #graph.operand, 1 : i64], callee = "aten::add_.Tensor", mutates = array<i64: 0>}> : (tensor<2x3xbf16>, tensor<2x3xf32>) -> tensor<2x3xbf16>
  %2 = "graph.t"(%1) : (tensor<2x3xbf16>) -> tensor<3x2xbf16, #graph.layout<[1, 3], 0, 12>>
  %3 = "graph.call"(%2) <{args = [#graph.operand, 5.000000e-01 : f64], callee = "aten::mul_.Scalar", mutates = array<i64: 0>}> : (tensor<3x2xbf16, #graph.layout<[1, 3], 0, 12>>) -> tensor<3x2xbf16, #graph.layout<[1, 3], 0, 12>>
  "graph.return"(%1, %3) : (tensor<2x3xbf16>, tensor<3x2xbf16, #graph.layout<[1, 3], 0, 12>>) -> ()
}) : () -> ()

// Tests that autograd's triplet (new_empty_strided, copy_, as_strided, copy_) becomes one view_update of the gradient.
// CHECK-LABEL: "graph.step"
// CHECK-SAME: #graph.output<"copy_slices">
"graph.step"() <{arg_roles = [#graph.input<"grad">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"copy_slices">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xf32>):
  // CHECK: ^bb0(%[[GRAD:.+]]: tensor
  // CHECK: %[[SLICE:.+]] = "graph.as_strided"(%[[GRAD]])
  // CHECK: %[[CLONE:.+]] = "graph.clone"(%[[SLICE]])
  // CHECK: %[[NEG:.+]] = "graph.neg"(%[[CLONE]])
  // CHECK: %[[NEW:.+]] = "graph.view_update"(%[[GRAD]], %[[NEG]]) <{layout = #graph.layout<[4, 1], 2, 32>}>
  // CHECK: "graph.return"(%[[NEW]])
  %0 = "graph.new_empty_strided"(%arg0) <{size = array<i64: 2, 4>, stride = array<i64: 4, 1>}> : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %1 = "graph.call"(%0, %arg0) <{args = [#graph.operand, #graph.operand, false], callee = "aten::copy_", mutates = array<i64: 0>}> : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %2 = "graph.as_strided"(%1) <{size = array<i64: 2, 2>, storage_offset = 2 : i64, stride = array<i64: 4, 1>}> : (tensor<2x4xf32>) -> tensor<2x2xf32, #graph.layout<[4, 1], 2, 32>>
  %3 = "graph.clone"(%2) <{memory_format = "contiguous"}> : (tensor<2x2xf32, #graph.layout<[4, 1], 2, 32>>) -> tensor<2x2xf32>
  %4 = "graph.neg"(%3) : (tensor<2x2xf32>) -> tensor<2x2xf32>
  %5 = "graph.call"(%2, %4) <{args = [#graph.operand, #graph.operand, false], callee = "aten::copy_", mutates = array<i64: 0>}> : (tensor<2x2xf32, #graph.layout<[4, 1], 2, 32>>, tensor<2x2xf32>) -> tensor<2x2xf32, #graph.layout<[4, 1], 2, 32>>
  "graph.return"(%1) : (tensor<2x4xf32>) -> ()
}) : () -> ()

// Tests that index lists with absent entries, a broadcast copy_ with a cast, and zero_ keep their arguments.
// CHECK-LABEL: "graph.step"
// CHECK-SAME: #graph.output<"forms">
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"i">, #graph.input<"v">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"forms">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x4xf32>, %arg1: tensor<3xi64>, %arg2: tensor<4xbf16>):
  // CHECK: %[[ZERO:.+]] = "graph.fill.Scalar"(%{{.+}}) <{value = 0 : i64}>
  // CHECK: %[[ROWS:.+]] = "graph.expand"(%{{.+}}) <{implicit = false, size = array<i64: 2, 4>}> : (tensor<4xbf16>) -> tensor<2x4xbf16, #graph.layout<[0, 1], 0, 8>>
  // CHECK: %[[CAST:.+]] = "graph._to_copy"(%[[ROWS]]) <{dtype = f32, memory_format = "contiguous", non_blocking = false}>
  // CHECK: %[[PUT:.+]] = "graph.index_put"(%[[CAST]], %{{.+}}, %{{.+}}) <{accumulate = true, indices_present = array<i1: false, true>}>
  // CHECK: "graph.return"(%[[PUT]])
  %0 = "graph.empty_like"(%arg0) : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %1 = "graph.call"(%0) <{args = [#graph.operand], callee = "aten::zero_", mutates = array<i64: 0>}> : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %2 = "graph.sum.dim_IntList"(%1) <{dim = array<i64: 1>, keepdim = true}> : (tensor<2x4xf32>) -> tensor<2x1xf32>
  %3 = "graph.call"(%1, %arg2) <{args = [#graph.operand, #graph.operand, false], callee = "aten::copy_", mutates = array<i64: 0>}> : (tensor<2x4xf32>, tensor<4xbf16>) -> tensor<2x4xf32>
  %4 = "graph.call"(%3, %arg1, %2) <{args = [#graph.operand, [unit, #graph.operand], #graph.operand, true], callee = "aten::index_put_", mutates = array<i64: 0>}> : (tensor<2x4xf32>, tensor<3xi64>, tensor<2x1xf32>) -> tensor<2x4xf32>
  "graph.return"(%0) : (tensor<2x4xf32>) -> ()
}) : () -> ()

// Tests that the implementation that indexing's backward calls is index_put.
// CHECK-LABEL: "graph.step"
// CHECK-SAME: #graph.output<"index_put_impl">
"graph.step"() <{arg_roles = [#graph.input<"i">, #graph.input<"v">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"index_put_impl">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xi64>, %arg1: tensor<2xf32>):
  // CHECK: %[[ZERO:.+]] = "graph.zeros"
  // CHECK: %[[PUT:.+]] = "graph.index_put"(%[[ZERO]], %{{.+}}, %{{.+}}) <{accumulate = true, indices_present = array<i1: true>}>
  // CHECK: "graph.return"(%[[PUT]])
  %0 = "graph.zeros"() <{size = array<i64: 3>}> : () -> tensor<3xf32>
  %1 = "graph.call"(%0, %arg0, %arg1) <{args = [#graph.operand, [#graph.operand], #graph.operand, true, true], callee = "aten::_index_put_impl_", mutates = array<i64: 0>}> : (tensor<3xf32>, tensor<2xi64>, tensor<2xf32>) -> tensor<3xf32>
  "graph.return"(%0) : (tensor<3xf32>) -> ()
}) : () -> ()
