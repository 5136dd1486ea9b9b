// RUN: heddle-opt %s --train-pipeline='zero=2 mesh=dp:2' | FileCheck %s --check-prefixes=CHECK,S2
// RUN: heddle-opt %s --train-pipeline='zero=3 mesh=dp:2 overlap=off' | FileCheck %s --check-prefixes=CHECK,S3
// RUN: heddle-opt %s --train-pipeline='zero=1 mesh=dp:2' | FileCheck %s --check-prefix=S1
// RUN: heddle-opt %s --train-pipeline='zero=2 mesh=dp:2 reduce-dtype=bf16' | FileCheck %s --check-prefix=WIRE

// Tests that nothing stands between a 2-D weight gradient and its reduce-scatter, nor between an all-gather and its users, on cuda: the multiplication writes into the
// bucket, in the reduce dtype; the first micro-batch's sum over ranks is written into the accumulator's shard. The gradient of %w is stored transposed, that of %v as it is,
// and the bias %b, whose gradient is no matrix product, is copied, which the plan says. Without the products of the pack in graph-accumulate-in-gemm the gemm lines are missing.
// S2: sched.plan "train" {{.*}}copied\22:[{\22bytes\22:8,\22count\22:1,\22operator\22:\22graph.sum.dim_IntList\22,\22why\22:\22it is made in bf16 and sent in f32\22}],\22in_place\22:2
// CHECK: sched.state "accumulator" ["layers.0.w"] %[[ACC:[0-9]+]]

// Forward: the multiplication reads the gathered bytes.
// CHECK: sched.section "micro_first"
// S3: sched.collective "all_gather"(%{{.+}}) -> (%[[G:[0-9]+]])
// S3-NOT: sched.copy
// S3: sched.aten "aten::mm"

// CHECK: %[[BUCKET:[0-9]+]] = sched.buffer scratch device temporary {{[0-9]+}} bytes
// CHECK: sched.gemm(%{{.+}}, %{{.+}}) to
// CHECK: sched.gemm(%{{.+}}, %{{.+}}) to
// CHECK-NOT: sched.copy
// CHECK: sched.collective "reduce_scatter"(%{{.+}}) -> (%[[ACC]])
// CHECK-NOT: "accumulate"
// CHECK: sched.section "micro_next"
// CHECK: sched.gemm(%{{.+}}, %{{.+}}) to
// CHECK: sched.collective "reduce_scatter"(%{{.+}}) -> (%[[PART:[0-9]+]])
// CHECK-NEXT: sched.kernel "accumulate"(%[[ACC]], %[[PART]])

// Stage 1: over what the accumulator holds in the first micro-batch, onto it in the next ones.
// S1: sched.section "micro_first"
// S1: sched.gemm(%{{.+}}, %{{.+}}) to %{{.+}} {
// S1: sched.section "micro_next"
// S1: sched.gemm(%{{.+}}, %{{.+}}, %[[SLOT:.+]]) to %[[SLOT]]
// S1: sched.section "boundary"
// The new parameters are converted where they are gathered from.
// S1: sched.aten "aten::_to_copy"(%{{.+}}) -> (%[[OWN:[0-9]+]])
// S1-NEXT: sched.collective "all_gather"(%[[OWN]])

// A narrow wire: gradients have their slot's dtype, and ATen's operators write there.
// The gradient of %w is made as its transpose, another layout than the parameter's.
// WIRE: \22copied\22:[{\22bytes\22:24,\22count\22:1,\22operator\22:\22graph.mm\22,\22why\22:\22it is made in another layout than the parameter's\22}],\22in_place\22:2
// WIRE: sched.section "micro_first"
// WIRE-NOT: sched.copy
// WIRE: sched.copy {{.+}} to !sched.ref<tensor<3x4xbf16>>
// WIRE-NOT: sched.copy
// WIRE: sched.collective "reduce_scatter"
"graph.step"() <{arg_roles = [#graph.param<["layers.0.w"], true, "matrix">, #graph.param<["layers.0.v"], true, "matrix">, #graph.param<["layers.0.b"], true, "bias">, #graph.input<"x">, #graph.input<"d">, #graph.input<"e">], format_version = 1 : i64,
                 precision = "bf16", result_roles = [#graph.loss, #graph.gradient<"layers.0.w">, #graph.gradient<"layers.0.v">, #graph.gradient<"layers.0.b">], target = "cuda", torch_version = "2.11.0"}> ({
^bb0(%w: tensor<3x4xbf16>, %v: tensor<4x3xbf16>, %b: tensor<4xbf16>, %x: tensor<2x3xbf16>, %d: tensor<2x4xbf16>, %e: tensor<2x4xbf16>):
  %o = "graph.mm"(%x, %w) {graph.phase = #graph.phase<forward>} : (tensor<2x3xbf16>, tensor<3x4xbf16>) -> tensor<2x4xbf16>
  %p = "graph.mm"(%o, %v) {graph.phase = #graph.phase<forward>} : (tensor<2x4xbf16>, tensor<4x3xbf16>) -> tensor<2x3xbf16>
  %q = "graph.add.Tensor"(%o, %b) <{alpha = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<2x4xbf16>, tensor<4xbf16>) -> tensor<2x4xbf16>
  %s = "graph.sum"(%p) {graph.phase = #graph.phase<forward>} : (tensor<2x3xbf16>) -> tensor<bf16>
  %r = "graph.sum"(%q) {graph.phase = #graph.phase<forward>} : (tensor<2x4xbf16>) -> tensor<bf16>
  %l = "graph.add.Tensor"(%s, %r) <{alpha = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<bf16>, tensor<bf16>) -> tensor<bf16>
  %xt = "graph.t"(%x) {graph.phase = #graph.phase<backward>} : (tensor<2x3xbf16>) -> tensor<3x2xbf16, #graph.layout<[1, 3], 0, 12>>
  %dt = "graph.t"(%d) {graph.phase = #graph.phase<backward>} : (tensor<2x4xbf16>) -> tensor<4x2xbf16, #graph.layout<[1, 4], 0, 16>>
  %et = "graph.t"(%e) {graph.phase = #graph.phase<backward>} : (tensor<2x4xbf16>) -> tensor<4x2xbf16, #graph.layout<[1, 4], 0, 16>>
  %gb = "graph.sum.dim_IntList"(%d) <{dim = array<i64: 0>, keepdim = false}> {graph.phase = #graph.phase<backward>} : (tensor<2x4xbf16>) -> tensor<4xbf16>
  %gv = "graph.mm"(%dt, %x) {graph.phase = #graph.phase<backward>} : (tensor<4x2xbf16, #graph.layout<[1, 4], 0, 16>>, tensor<2x3xbf16>) -> tensor<4x3xbf16>
  %gt = "graph.mm"(%et, %x) {graph.phase = #graph.phase<backward>} : (tensor<4x2xbf16, #graph.layout<[1, 4], 0, 16>>, tensor<2x3xbf16>) -> tensor<4x3xbf16>
  %gw = "graph.t"(%gt) {graph.phase = #graph.phase<backward>} : (tensor<4x3xbf16>) -> tensor<3x4xbf16, #graph.layout<[1, 3], 0, 24>>
  "graph.return"(%l, %gw, %gv, %gb) : (tensor<bf16>, tensor<3x4xbf16, #graph.layout<[1, 3], 0, 24>>, tensor<4x3xbf16>, tensor<4xbf16>) -> ()
}) : () -> ()
