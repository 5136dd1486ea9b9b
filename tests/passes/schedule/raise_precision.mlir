// RUN: heddle-opt %s --split-input-file --verify-diagnostics --mlir-print-op-generic --pass-pipeline="builtin.module(graph.step(graph-raise-precision))" | FileCheck %s

// Tests that an fp64 program's rounding casts become f64, layouts growing with their storage, and that integers stay.
// CHECK: ^bb0(%[[X:.+]]: tensor<2x4xf64>, %[[I:.+]]: tensor<4xi64>, %[[B:.+]]: tensor<4xf64>):
// CHECK: "graph._to_copy"(%[[X]]) <{dtype = f64, non_blocking = false}> : (tensor<2x4xf64>) -> tensor<2x4xf64>
// CHECK: "graph.select.int"
// CHECK-SAME: -> tensor<4xf64, #graph.layout<[1], 4, 64>>
// CHECK: "graph.view_update"
// CHECK-SAME: layout = #graph.layout<[1], 0, 64>
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"i">, #graph.buffer<"b", true>], format_version = 1 : i64, precision = "fp64",
                   result_roles = [#graph.output<"y">, #graph.output<"z">], target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%x: tensor<2x4xf64>, %i: tensor<4xi64>, %b: tensor<4xf32>):
    %h = "graph._to_copy"(%x) <{dtype = f32, non_blocking = false}> : (tensor<2x4xf64>) -> tensor<2x4xf32>
    %s = "graph.select.int"(%h) <{dim = 0 : i64, index = 1 : i64}> : (tensor<2x4xf32>) -> tensor<4xf32, #graph.layout<[1], 4, 32>>
    %y = "graph.add.Tensor"(%s, %b) <{alpha = 1 : i64}> : (tensor<4xf32, #graph.layout<[1], 4, 32>>, tensor<4xf32>) -> tensor<4xf32>
    %z = "graph.view_update"(%h, %y) <{layout = #graph.layout<[1], 0, 32>}> : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
    "graph.return"(%y, %z) : (tensor<4xf32>, tensor<2x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()

// -----

// Tests that a program of another precision is left alone.
// CHECK: "graph._to_copy"
// CHECK-SAME: dtype = f32
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "bf16", result_roles = [#graph.output<"y">], target = "cpu",
                   torch_version = "2.11.0"}> ({
  ^bb0(%x: tensor<4xbf16>):
    %y = "graph._to_copy"(%x) <{dtype = f32, non_blocking = false}> : (tensor<4xbf16>) -> tensor<4xf32>
    "graph.return"(%y) : (tensor<4xf32>) -> ()
  }) : () -> ()
}) : () -> ()

// -----

// Tests that reinterpreting bytes that would grow is refused.
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp64", result_roles = [#graph.output<"y">], target = "cpu",
                   torch_version = "2.11.0"}> ({
  ^bb0(%x: tensor<4xf32>):
    // expected-error@below {{reinterprets the bytes of a float that precision fp64 raises; compile with another precision}}
    %y = "graph.view.dtype"(%x) <{dtype = i32}> : (tensor<4xf32>) -> tensor<4xi32>
    "graph.return"(%y) : (tensor<4xi32>) -> ()
  }) : () -> ()
}) : () -> ()
