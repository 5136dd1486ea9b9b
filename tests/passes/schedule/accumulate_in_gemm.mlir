// RUN: heddle-opt %s --pass-pipeline='builtin.module(graph.step(graph-accumulate-in-gemm))' --split-input-file | FileCheck %s

// Products that only an accumulation reads, straight and through a transposition, become one op; a product with a second reader stays.
// CHECK: ^bb0(%[[AW:.+]]: tensor<4x2xf32>, %[[AT:.+]]: tensor<2x4xf32>, %[[AR:.+]]: tensor<4x2xf32>, %[[D:.+]]: tensor<4x8xbf16>, %[[X:.+]]: tensor<8x2xbf16>):
// CHECK: %[[W:.+]] = "optim.accumulate_product"(%[[AW]], %[[D]], %[[X]]) {graph.phase
// CHECK-NOT: graph.t
// CHECK: %[[T:.+]] = "optim.accumulate_product"(%[[AT]], %[[D]], %[[X]]) <{transposed}>
// CHECK: %[[P:.+]] = "graph.mm"(%[[D]], %[[X]])
// CHECK: %[[R:.+]] = "optim.accumulate"(%[[AR]], %[[P]])
// CHECK: "graph.return"(%[[P]], %[[W]], %[[T]], %[[R]])
"graph.step"() <{arg_roles = [#graph.state<"w", "accumulator">, #graph.state<"t", "accumulator">, #graph.state<"r", "accumulator">, #graph.input<"d">, #graph.input<"x">], format_version = 1 : i64,
                 precision = "bf16", result_roles = [#graph.output<"p">, #graph.new_state<"w", "accumulator">, #graph.new_state<"t", "accumulator">, #graph.new_state<"r", "accumulator">], target = "cuda", torch_version = "2.11.0"}> ({
^bb0(%aw: tensor<4x2xf32>, %at: tensor<2x4xf32>, %ar: tensor<4x2xf32>, %d: tensor<4x8xbf16>, %x: tensor<8x2xbf16>):
  %0 = "graph.mm"(%d, %x) {graph.phase = #graph.phase<backward>} : (tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xbf16>
  %w = "optim.accumulate"(%aw, %0) : (tensor<4x2xf32>, tensor<4x2xbf16>) -> tensor<4x2xf32>
  %1 = "graph.mm"(%d, %x) {graph.phase = #graph.phase<backward>} : (tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xbf16>
  %2 = "graph.t"(%1) : (tensor<4x2xbf16>) -> tensor<2x4xbf16, #graph.layout<[1, 2], 0, 16>>
  %t = "optim.accumulate"(%at, %2) : (tensor<2x4xf32>, tensor<2x4xbf16, #graph.layout<[1, 2], 0, 16>>) -> tensor<2x4xf32>
  %3 = "graph.mm"(%d, %x) {graph.phase = #graph.phase<backward>} : (tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xbf16>
  %r = "optim.accumulate"(%ar, %3) : (tensor<4x2xf32>, tensor<4x2xbf16>) -> tensor<4x2xf32>
  "graph.return"(%3, %w, %t, %r) : (tensor<4x2xbf16>, tensor<4x2xf32>, tensor<2x4xf32>, tensor<4x2xf32>) -> ()
}) : () -> ()

// -----

// On the CPU, whose steps keep ATen's bits, nothing changes.
// CHECK: "graph.mm"
// CHECK: "optim.accumulate"(
"graph.step"() <{arg_roles = [#graph.state<"w", "accumulator">, #graph.input<"d">, #graph.input<"x">], format_version = 1 : i64,
                 precision = "bf16", result_roles = [#graph.new_state<"w", "accumulator">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%aw: tensor<4x2xf32>, %d: tensor<4x8xbf16>, %x: tensor<8x2xbf16>):
  %0 = "graph.mm"(%d, %x) {graph.phase = #graph.phase<backward>} : (tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xbf16>
  %w = "optim.accumulate"(%aw, %0) : (tensor<4x2xf32>, tensor<4x2xbf16>) -> tensor<4x2xf32>
  "graph.return"(%w) : (tensor<4x2xf32>) -> ()
}) : () -> ()
