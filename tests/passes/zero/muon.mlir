// RUN: heddle-opt %s --train-pipeline='zero=1 mesh=dp:2 stop-after=dist optimizer={"groups": [{"params": ["*"], "roles": ["matrix", "stack"], "muon": {"split": {"*.q": 2}}}, {"params": ["*"]}]}' --mlir-print-op-generic | FileCheck %s
// RUN: heddle-opt %s --train-pipeline='zero=1 mesh=dp:2 optimizer={"skip_nonfinite": true, "groups": [{"params": ["*"], "roles": ["matrix", "stack"], "muon": {"split": {"*.q": 2}}}, {"params": ["*"]}]}' | FileCheck %s --check-prefix=SCHED
// RUN: heddle-opt %s --train-pipeline='zero=1 mesh=dp:2 optimizer={"skip_nonfinite": true, "groups": [{"params": ["*"], "roles": ["matrix", "stack"], "muon": {"split": {"*.q": 2}}}, {"params": ["*"]}]}' -o %t.plan
// RUN: heddle-inspect %t.plan | FileCheck %s --check-prefix=WIRE

// Tests Muon on two ranks: matrices are owned whole, by cost: the 8x8 one by rank 0 and all others, which together cost less, by rank 1. q counts as its two halves and the stack as
// its slices; the vector goes to AdamW in even shards. Buckets of Muon share one range of bytes.
// CHECK: #dist.bucket<"layers.0#0", "parameter", [#dist.member<["layers.0.a"], 0, tensor<8x8xf32>, true, "matrix">, #dist.member<["layers.0.b"], 128, tensor<4x8xf32>, true, "matrix">, #dist.member<["layers.0.c"], 256, tensor<4x8xf32>, true, "matrix">], [], "muon0.f32", [0]>
// CHECK-SAME: #dist.bucket<"layers.0#1", "parameter", [#dist.member<["layers.0.q"], 0, tensor<4x8xf32>, true, "matrix">], [], "muon0.f32", [384]>
// CHECK-SAME: #dist.bucket<"layers.0#2", "parameter", [#dist.member<["layers.0.e"], 0, tensor<3x2x4xf32>, true, "stack">], [], "muon0.f32", [512]>
// CHECK-SAME: #dist.bucket<"layers.0#3", "parameter", [#dist.member<["layers.0.n"], 0, tensor<8xf32>, true, "norm">], [], "", []>
// The momentum lives with the owners; its buckets lie one behind the other on each of them.
// CHECK-SAME: #dist.bucket<"layers.0#0", "momentum", [{{[^]]*\], [^]]*\], [^]]*\], [^]]*}}], [0, 128, 384], "muon0.f32", [0, 0]>
// Reduce to the owner, one Newton-Schulz per matrix, gather: uneven parts of whole matrices, no padding on the wire.
// CHECK: "dist.reduce_scatter"(%{{.+}}) <{axis = "dp", bounds = array<i64: 0, 128, 384>}> {{.*}} (tensor<384xf32>) -> tensor<256xf32>
// CHECK: "optim.muon"
// CHECK-SAME: matrices = array<i64: 0, 0, 0, 0, 8, 8, 0, 1, 128, 0, 4, 8, 0, 1, 256, 128, 4, 8
// CHECK: "dist.all_gather"(%{{.+}}) <{axis = "dp", bounds = array<i64: 0, 128, 384>}> {{.*}} (tensor<256xf32>) -> tensor<384xf32>
// One batch per shape; a rank that has fewer leaves entries out.
// SCHED: sched.kernel "muon_momentum"
// SCHED-COUNT-4: sched.kernel "newton_schulz"
// SCHED-NOT: sched.kernel "newton_schulz"
// SCHED: sched.kernel "muon_apply"
// Bytes on the wire where parts differ: rank 0 sums up 128 + 128 elements of 4 bytes for the (W - 1) = 1 other, rank 1 256 + 32 + 24 + 128; from a gather each receives what the other has.
// WIRE: Buckets: 4 of 696 elements in all, 504 of them padding
// WIRE: Section boundary
// WIRE: all_gather            4 x      1.72 KiB at most, 1.00 KiB at least
// WIRE: all_reduce            1 x          48 B
// WIRE: reduce_scatter        4 x      1.72 KiB at most, 1.00 KiB at least
"graph.step"() <{arg_roles = [#graph.param<["layers.0.a"], true, "matrix">, #graph.param<["layers.0.b"], true, "matrix">, #graph.param<["layers.0.c"], true, "matrix">, #graph.param<["layers.0.q"], true, "matrix">, #graph.param<["layers.0.e"], true, "stack">, #graph.param<["layers.0.n"], true, "norm">],
                 format_version = 1 : i64, precision = "fp32", result_roles = [#graph.loss, #graph.gradient<"layers.0.a">, #graph.gradient<"layers.0.b">, #graph.gradient<"layers.0.c">, #graph.gradient<"layers.0.q">, #graph.gradient<"layers.0.e">, #graph.gradient<"layers.0.n">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%a: tensor<8x8xf32>, %b: tensor<4x8xf32>, %c: tensor<4x8xf32>, %q: tensor<4x8xf32>, %e: tensor<3x2x4xf32>, %n: tensor<8xf32>):
  %0 = "graph.sum"(%n) {graph.phase = #graph.phase<forward>} : (tensor<8xf32>) -> tensor<f32>
  %1 = "graph.mul.Tensor"(%a, %0) {graph.phase = #graph.phase<backward>} : (tensor<8x8xf32>, tensor<f32>) -> tensor<8x8xf32>
  %2 = "graph.mul.Tensor"(%b, %0) {graph.phase = #graph.phase<backward>} : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  %3 = "graph.mul.Tensor"(%c, %0) {graph.phase = #graph.phase<backward>} : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  %4 = "graph.mul.Tensor"(%q, %0) {graph.phase = #graph.phase<backward>} : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  %5 = "graph.mul.Tensor"(%e, %0) {graph.phase = #graph.phase<backward>} : (tensor<3x2x4xf32>, tensor<f32>) -> tensor<3x2x4xf32>
  %6 = "graph.mul.Tensor"(%n, %0) {graph.phase = #graph.phase<backward>} : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  "graph.return"(%0, %1, %2, %3, %4, %5, %6) : (tensor<f32>, tensor<8x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>, tensor<3x2x4xf32>, tensor<8xf32>) -> ()
}) : () -> ()
