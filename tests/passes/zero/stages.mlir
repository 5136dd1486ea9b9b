// RUN: heddle-opt %s --train-pipeline='zero=0 mesh=dp:2 overlap=off stop-after=dist optimizer={"clip": 1.0, "skip_nonfinite": true}' --mlir-print-op-generic | FileCheck %s --check-prefixes=CHECK,S0
// RUN: heddle-opt %s --train-pipeline='zero=1 mesh=dp:2 overlap=off stop-after=dist optimizer={"clip": 1.0, "skip_nonfinite": true}' --mlir-print-op-generic | FileCheck %s --check-prefixes=CHECK,S1
// RUN: heddle-opt %s --train-pipeline='zero=2 mesh=dp:2 overlap=off stop-after=dist optimizer={"clip": 1.0, "skip_nonfinite": true}' --mlir-print-op-generic | FileCheck %s --check-prefixes=CHECK,S2
// RUN: heddle-opt %s --train-pipeline='zero=3 mesh=dp:2 overlap=off stop-after=dist optimizer={"clip": 1.0, "skip_nonfinite": true}' --mlir-print-op-generic | FileCheck %s --check-prefixes=CHECK,S3
// RUN: heddle-opt %s --train-pipeline='zero=2 mesh=dp:2 overlap=off reduce-dtype=bf16 stop-after=dist optimizer={"clip": 1.0}' --mlir-print-op-generic | FileCheck %s --check-prefix=WIRE
// RUN: heddle-opt %s --train-pipeline='zero=1 mesh=dp:2 overlap=off reduce-dtype=bf16 stop-after=dist' --mlir-print-op-generic | FileCheck %s --check-prefix=NARROW
// RUN: heddle-opt %s --train-pipeline='zero=0 mesh=dp:2 overlap=off stop-after=dist optimizer={"accumulate_dtype": "bf16"}' --mlir-print-op-generic | FileCheck %s --check-prefix=WIDE

// Tests a layer of a 13-element vector, a 4097-element vector and a frozen scalar on two ranks, a written buffer beside them: what lies in shards, which collectives
// run in which phase, and that an all-gather's users and a reduce-scatter's operand have no cast or copy between.
// Where accumulators themselves are sent, they are converted to a dtype that was asked for, and to f32 if they are narrower and none was: sums over ranks are not rounded by default.
// CHECK: #dist.bucket<"layers.0#0", "parameter", [#dist.member<["layers.0.a"], 0, tensor<13xbf16>, true, "other">, #dist.member<["layers.0.b"], 128, tensor<4097xbf16>, true, "other">],
// S0-SAME: [], "", []>, #dist.bucket<"layers.0#0", "accumulator", [{{[^]]*\], [^]]*\], [^]]*}}], [], "", []>, #dist.bucket<"layers.0#0", "master", [{{[^]]*\], [^]]*\], [^]]*}}], [], "", []>
// S1-SAME: [], "", []>, #dist.bucket<"layers.0#0", "accumulator", [{{[^]]*\], [^]]*\], [^]]*}}], [], "", []>, #dist.bucket<"layers.0#0", "master", [{{[^]]*\], [^]]*\], [^]]*}}], [0, 2176, 4352], "", []>
// S2-SAME: [], "", []>, #dist.bucket<"layers.0#0", "accumulator", [{{[^]]*\], [^]]*\], [^]]*}}], [0, 2176, 4352], "", []>, #dist.bucket<"layers.0#0", "master", [{{[^]]*\], [^]]*\], [^]]*}}], [0, 2176, 4352], "", []>
// The frozen scalar has no update; stage 3 shards it too, in a bucket of its own.
// S3-SAME: [0, 2176, 4352], "", []>, #dist.bucket<"layers.0#0", "accumulator", [{{[^]]*\], [^]]*\], [^]]*}}], [0, 2176, 4352], "", []>, #dist.bucket<"layers.0#1", "parameter", [#dist.member<["layers.0.c"], 0, tensor<bf16>, false, "other">], [0, 128, 256], "", []>
// CHECK-SAME: result_roles = [#graph.loss, #graph.new_value<"seen">, #graph.output<"grad_norm">, #dist.new_bucket<"layers.0#0", "accumulator">, #dist.new_bucket<"layers.0#0", "master">, #dist.new_bucket<"layers.0#0", "parameter">
"graph.step"() <{arg_roles = [#graph.param<["layers.0.a"], true, "other">, #graph.param<["layers.0.b"], true, "other">, #graph.param<["layers.0.c"], false, "other">, #graph.buffer<"seen", true>, #graph.input<"x">],
                 format_version = 1 : i64, precision = "bf16", result_roles = [#graph.loss, #graph.gradient<"layers.0.a">, #graph.gradient<"layers.0.b">, #graph.new_value<"seen">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%a: tensor<13xbf16>, %b: tensor<4097xbf16>, %c: tensor<bf16>, %seen: tensor<i64>, %x: tensor<bf16>):
  // Forward: stage 3 gathers once before the first use; the others read windows.
  // S0-DAG: %[[A0:.+]] = "dist.slot"(%{{.+}}) <{offset = 0 : i64}> : (tensor<4352xbf16>) -> tensor<13xbf16>
  // S0: "graph.mul.Tensor"(%[[A0]], %
  // S3: %[[G:.+]] = "dist.all_gather"(%{{.+}}) <{axis = "dp"}> {graph.phase = #graph.phase<forward>} : (tensor<2176xbf16>) -> tensor<4352xbf16>
  // S3-NEXT: %[[A:.+]] = "dist.slot"(%[[G]]) <{offset = 0 : i64}> : (tensor<4352xbf16>) -> tensor<13xbf16>
  // S3: "graph.mul.Tensor"(%[[A]], %
  %0 = "graph.mul.Tensor"(%a, %x) {graph.phase = #graph.phase<forward>} : (tensor<13xbf16>, tensor<bf16>) -> tensor<13xbf16>
  %1 = "graph.mul.Tensor"(%b, %c) {graph.phase = #graph.phase<forward>} : (tensor<4097xbf16>, tensor<bf16>) -> tensor<4097xbf16>
  %2 = "graph.sum"(%0) {graph.phase = #graph.phase<forward>} : (tensor<13xbf16>) -> tensor<bf16>
  %3 = "graph.sum"(%1) {graph.phase = #graph.phase<forward>} : (tensor<4097xbf16>) -> tensor<bf16>
  %4 = "graph.add.Tensor"(%2, %3) <{alpha = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<bf16>, tensor<bf16>) -> tensor<bf16>
  %5 = "graph.add.Scalar"(%seen) <{other = 1 : i64, alpha = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<i64>) -> tensor<i64>
  // Backward: stage 3 gathers again.
  // S3: "dist.all_gather"(%{{.+}}) <{axis = "dp"}> {graph.phase = #graph.phase<backward>} : (tensor<2176xbf16>) -> tensor<4352xbf16>
  %6 = "graph.mul.Tensor"(%a, %4) {graph.phase = #graph.phase<backward>} : (tensor<13xbf16>, tensor<bf16>) -> tensor<13xbf16>
  %7 = "graph.mul.Tensor"(%b, %4) {graph.phase = #graph.phase<backward>} : (tensor<4097xbf16>, tensor<bf16>) -> tensor<4097xbf16>
  // Gradients are packed when the last is there, in the accumulators' dtype; stages 2 and 3 reduce-scatter the pack itself.
  // CHECK: %[[PACK:.+]] = "dist.pack"(%{{.+}}, %{{.+}}) <{offsets = array<i64: 0, 128>, types = [tensor<13xf32>, tensor<4097xf32>]}> {graph.phase = #graph.phase<backward>} : (tensor<13xbf16>, tensor<4097xbf16>) -> tensor<4352xf32>
  // S0-NEXT: %[[SUM:.+]] = "optim.accumulate"(%{{.+}}, %[[PACK]])
  // S1-NEXT: %[[SUM:.+]] = "optim.accumulate"(%{{.+}}, %[[PACK]])
  // S2-NEXT: %[[PART:.+]] = "dist.reduce_scatter"(%[[PACK]]) <{axis = "dp"}> {graph.phase = #graph.phase<backward>} : (tensor<4352xf32>) -> tensor<2176xf32>
  // S2-NEXT: %[[SUM:.+]] = "optim.accumulate"(%{{.+}}, %[[PART]])
  // WIRE: %[[BF16:.+]] = "dist.pack"({{.*}} -> tensor<4352xbf16>
  // WIRE-NEXT: %[[PART:.+]] = "dist.reduce_scatter"(%[[BF16]]) {{.*}} -> tensor<2176xbf16>
  // WIRE-NEXT: "optim.accumulate"(%{{.+}}, %[[PART]]) {{.*}} (tensor<2176xf32>, tensor<2176xbf16>)
  // Update: stage 0 reduces the whole and takes the one-rank norm of windows, stage 1 scatters; the others have their shard.
  // S0: %[[ALL:.+]] = "dist.all_reduce"(%[[SUM]])
  // S1: %[[PART:.+]] = "dist.reduce_scatter"(%[[SUM]])
  // S0: "optim.grad_norm"(
  // NARROW: %[[ASKED:.+]] = "graph._to_copy"(%{{.+}}) <{{.*}}dtype = bf16{{.*}} (tensor<4352xf32>) -> tensor<4352xbf16>
  // NARROW-NEXT: "dist.reduce_scatter"(%[[ASKED]]) {{.*}} (tensor<4352xbf16>) -> tensor<2176xbf16>
  // WIDE: %[[EXACT:.+]] = "graph._to_copy"(%{{.+}}) <{{.*}}dtype = f32{{.*}} (tensor<4352xbf16>) -> tensor<4352xf32>
  // WIDE-NEXT: "dist.all_reduce"(%[[EXACT]]) {{.*}} (tensor<4352xf32>) -> tensor<4352xf32>
  // S1: %[[SQUARES:.+]] = "optim.square_sums"(%{{.+}}) <{bounds = array<i64>, segments = array<i64: 2, 0, 13, 128, 4097>, shard = array<i64: 2176>}>
  // S1: %[[ALL:.+]] = "dist.all_reduce"(%[[SQUARES]])
  // S1: "optim.norm"(%[[ALL]])
  // CHECK: "optim.adamw"
  // S1: "dist.all_gather"(%{{.+}}) <{axis = "dp"}> {graph.phase = #graph.phase<update>} : (tensor<2176xbf16>) -> tensor<4352xbf16>
  // S2: "dist.all_gather"(%{{.+}}) <{axis = "dp"}> {graph.phase = #graph.phase<update>}
  // S3-NOT: "dist.all_gather"
  // The written buffer becomes rank 0's.
  // CHECK: "dist.broadcast"(%{{.+}}) <{axis = "dp"}> {graph.phase = #graph.phase<forward>} : (tensor<i64>) -> tensor<i64>
  // CHECK: dist.mesh = [#dist.axis<"dp", 2>]
  "graph.return"(%4, %6, %7, %5) : (tensor<bf16>, tensor<13xbf16>, tensor<4097xbf16>, tensor<i64>) -> ()
}) : () -> ()
