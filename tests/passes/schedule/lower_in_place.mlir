// RUN: heddle-opt %s --split-input-file --graph-lower-to-sched=mode=replay | FileCheck %s

// Tests that a pointwise kernel writes over an operand that dies there (%a), and not over one that is read later (%b), is a result (%c) or is an input (%x).
// CHECK: sched.section "replay"
// CHECK: sched.aten "aten::exp"({{.+}}) -> (%[[A:[0-9]+]])
// CHECK: sched.aten "aten::neg"(%[[A]]) -> (%[[A]])
// CHECK: sched.aten "aten::sin"(%[[A]]) -> (%[[C:[0-9]+]])
// CHECK: sched.aten "aten::add.Tensor"(%[[C]], %[[A]]) -> (%[[A]])
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"c">, #graph.output<"d">],
                   target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%x: tensor<2x4xf32>):
    %a = "graph.exp"(%x) : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %b = "graph.neg"(%a) : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %c = "graph.sin"(%b) : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %d = "graph.add.Tensor"(%c, %b) <{alpha = 1 : i64}> : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
    "graph.return"(%c, %d) : (tensor<2x4xf32>, tensor<2x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()

// -----

// Tests that a complex kernel writes over nothing: in place it would round otherwise.
// CHECK: sched.section "replay"
// CHECK: sched.aten "aten::neg"({{.+}}) -> (%[[A:[0-9]+]])
// CHECK-NOT: -> (%[[A]])
// CHECK: sched.result "output" "b"
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"b">],
                   target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%x: tensor<4xcomplex<f32>>):
    %a = "graph.neg"(%x) : (tensor<4xcomplex<f32>>) -> tensor<4xcomplex<f32>>
    %b = "graph.mul.Tensor"(%a, %x) : (tensor<4xcomplex<f32>>, tensor<4xcomplex<f32>>) -> tensor<4xcomplex<f32>>
    "graph.return"(%b) : (tensor<4xcomplex<f32>>) -> ()
  }) : () -> ()
}) : () -> ()

// -----

// Tests that an operand is kept where the op reads the same storage in another geometry: half of it would be overwritten before it is read.
// CHECK: sched.section "replay"
// CHECK: sched.aten "aten::exp"({{.+}}) -> (%[[A:[0-9]+]])
// CHECK: sched.aten "aten::add.Tensor"(%[[A]], %{{.+}}) -> (%[[B:[0-9]+]])
// CHECK: sched.result "output" "b" %[[B]]
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"b">],
                   target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%x: tensor<3x3xf32>):
    %a = "graph.exp"(%x) : (tensor<3x3xf32>) -> tensor<3x3xf32>
    %t = "graph.t"(%a) : (tensor<3x3xf32>) -> tensor<3x3xf32, #graph.layout<[1, 3], 0, 36>>
    %b = "graph.add.Tensor"(%a, %t) <{alpha = 1 : i64}> : (tensor<3x3xf32>, tensor<3x3xf32, #graph.layout<[1, 3], 0, 36>>) -> tensor<3x3xf32>
    "graph.return"(%b) : (tensor<3x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()

// -----

// Tests that a view update writes into a base that dies there, and copies a base that is an input first.
// CHECK: sched.section "replay"
// CHECK: sched.aten "aten::exp"({{.+}}) -> (%[[A:[0-9]+]])
// CHECK: sched.copy %[[A]] to %[[WINDOW:[0-9]+]] : !sched.ref<tensor<4xf32>> to !sched.ref<tensor<4xf32, #graph.layout<[1], 4, 32>>>
// CHECK: sched.copy %[[X:[0-9]+]] to %[[FRESH:[0-9]+]] : !sched.ref<tensor<2x4xf32>> to !sched.ref<tensor<2x4xf32>>
// CHECK: sched.copy %{{.+}} to %{{.+}} : !sched.ref<tensor<4xf32>> to !sched.ref<tensor<4xf32, #graph.layout<[1], 0, 32>>>
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"y">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"a">, #graph.output<"b">],
                   target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%x: tensor<2x4xf32>, %y: tensor<4xf32>):
    %e = "graph.exp"(%y) : (tensor<4xf32>) -> tensor<4xf32>
    %s = "graph.sin"(%x) : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %a = "graph.view_update"(%s, %e) <{layout = #graph.layout<[1], 4, 32>}> : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
    %b = "graph.view_update"(%x, %y) <{layout = #graph.layout<[1], 0, 32>}> : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
    "graph.return"(%a, %b) : (tensor<2x4xf32>, tensor<2x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()

// -----

// Tests that an in-place kernel of an operand that is needed later runs on a copy.
// CHECK: sched.section "replay"
// CHECK: sched.copy %[[X:[0-9]+]] to %[[T:[0-9]+]]
// CHECK: sched.aten "my::scale_"(%[[T]]) -> (%[[T]]) [#sched.operand, 2]
// CHECK: sched.result "output" "y" %[[T]]
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"y">],
                   target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%x: tensor<4xf32>):
    %y = "graph.call"(%x) <{args = [#graph.operand, 2 : i64], callee = "my::scale_", dps, mutates = array<i64: 0>}> : (tensor<4xf32>) -> tensor<4xf32>
    "graph.return"(%y) : (tensor<4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
