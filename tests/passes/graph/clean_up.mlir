// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-canonicalize-views))" --mlir-print-op-generic | FileCheck %s --check-prefix=VIEWS
// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-dce))" --mlir-print-op-generic | FileCheck %s --check-prefix=DCE
// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-cse))" --mlir-print-op-generic | FileCheck %s --check-prefix=CSE

// Tests that transposing twice, reshaping twice and detaching show nothing new, and that a view of another layout stays.
// VIEWS-LABEL: #graph.output<"twice">
// VIEWS: ^bb0(%[[X:.+]]: tensor
// VIEWS: %[[T:.+]] = "graph.t"(%[[X]])
// VIEWS-NOT: "graph.detach"
// VIEWS: %[[V:.+]] = "graph.view"(%[[X]]) <{size = array<i64: 3, 2>}>
// VIEWS: "graph.return"(%[[X]], %[[V]], %[[T]])
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"twice">, #graph.output<"reshape">, #graph.output<"t">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x3xf32>):
  %0 = "graph.t"(%arg0) : (tensor<2x3xf32>) -> tensor<3x2xf32, #graph.layout<[1, 3], 0, 24>>
  %1 = "graph.detach"(%0) : (tensor<3x2xf32, #graph.layout<[1, 3], 0, 24>>) -> tensor<3x2xf32, #graph.layout<[1, 3], 0, 24>>
  %2 = "graph.t"(%1) : (tensor<3x2xf32, #graph.layout<[1, 3], 0, 24>>) -> tensor<2x3xf32>
  %3 = "graph.view"(%arg0) <{size = array<i64: 6>}> : (tensor<2x3xf32>) -> tensor<6xf32>
  %4 = "graph._unsafe_view"(%3) <{size = array<i64: 3, 2>}> : (tensor<6xf32>) -> tensor<3x2xf32>
  %5 = "graph.view"(%3) <{size = array<i64: 3, 2>}> : (tensor<6xf32>) -> tensor<3x2xf32>
  "graph.return"(%2, %5, %1) : (tensor<2x3xf32>, tensor<3x2xf32>, tensor<3x2xf32, #graph.layout<[1, 3], 0, 24>>) -> ()
}) : () -> ()

// Tests that unread ops go, chains of them too, and that guards, draws and writes stay.
// DCE-LABEL: #graph.output<"live">
// DCE-NOT: "graph.neg"
// DCE: "graph.bernoulli.p"
// DCE: callee = "mylib::log_"
// DCE: "graph.guard"
// CSE-LABEL: #graph.output<"live">
"graph.step"() <{arg_roles = [#graph.input<"x">, #graph.input<"n">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"live">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>, %arg1: tensor<i64>):
  %0 = "graph.neg"(%arg0) : (tensor<2xf32>) -> tensor<2xf32>
  %1 = "graph.exp"(%0) : (tensor<2xf32>) -> tensor<2xf32>
  %2 = "graph.bernoulli.p"(%arg0) <{p = 5.000000e-01 : f64}> {graph.rng_id = 0 : i64} : (tensor<2xf32>) -> tensor<2xf32>
  %3 = "graph.call"(%arg0) <{args = [#graph.operand], callee = "mylib::log_", dps, mutates = array<i64: 0>}> {graph.rng_id = 1 : i64} : (tensor<2xf32>) -> tensor<2xf32>
  "graph.guard"(%arg1) <{expected = array<i64: 3>}> : (tensor<i64>) -> ()
  "graph.return"(%arg0) : (tensor<2xf32>) -> ()
}) : () -> ()

// Tests that equal ops merge whatever their autograd nodes, and that draws, recomputed ops and ops of another phase do not; views merge across phases.
// CSE-LABEL: #graph.output<"a">
// CSE: ^bb0(%[[X:.+]]: tensor
// CSE: %[[A:.+]] = "graph.exp"(%[[X]]) {graph.node = 1 : i64}
// CSE: %[[R:.+]] = "graph.exp"(%[[X]]) {graph.recompute_of = 1 : i64}
// CSE: %[[B:.+]] = "graph.exp"(%[[X]]) {graph.phase = #graph.phase<backward>}
// CSE: %[[D1:.+]] = "graph.bernoulli.p"
// CSE: %[[D2:.+]] = "graph.bernoulli.p"
// CSE: %[[V:.+]] = "graph.view"
// CSE-NOT: "graph.view"
// CSE: "graph.return"(%[[A]], %[[A]], %[[R]], %[[B]], %[[D1]], %[[D2]], %[[V]], %[[V]])
"graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"a">, #graph.output<"b">, #graph.output<"c">, #graph.output<"d">, #graph.output<"e">, #graph.output<"f">, #graph.output<"g">, #graph.output<"h">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2xf32>):
  %0 = "graph.exp"(%arg0) {graph.node = 1 : i64} : (tensor<2xf32>) -> tensor<2xf32>
  %1 = "graph.exp"(%arg0) {graph.node = 2 : i64} : (tensor<2xf32>) -> tensor<2xf32>
  %2 = "graph.exp"(%arg0) {graph.recompute_of = 1 : i64} : (tensor<2xf32>) -> tensor<2xf32>
  %3 = "graph.exp"(%arg0) {graph.phase = #graph.phase<backward>} : (tensor<2xf32>) -> tensor<2xf32>
  %4 = "graph.bernoulli.p"(%arg0) <{p = 5.000000e-01 : f64}> : (tensor<2xf32>) -> tensor<2xf32>
  %5 = "graph.bernoulli.p"(%arg0) <{p = 5.000000e-01 : f64}> : (tensor<2xf32>) -> tensor<2xf32>
  %6 = "graph.view"(%arg0) <{size = array<i64: 2, 1>}> {graph.phase = #graph.phase<forward>} : (tensor<2xf32>) -> tensor<2x1xf32>
  %7 = "graph.view"(%arg0) <{size = array<i64: 2, 1>}> {graph.phase = #graph.phase<backward>} : (tensor<2xf32>) -> tensor<2x1xf32>
  "graph.return"(%0, %1, %2, %3, %4, %5, %6, %7) : (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2x1xf32>, tensor<2x1xf32>) -> ()
}) : () -> ()
