// RUN: heddle-opt %s --train-pipeline='zero=1 mesh=dp:4 optimizer={"skip_nonfinite": true}' -o %t.1.plan
// RUN: heddle-inspect %t.1.plan | FileCheck %s --check-prefixes=CHECK,S1
// RUN: heddle-opt %s --train-pipeline='zero=2 mesh=dp:4 optimizer={"skip_nonfinite": true}' -o %t.2.plan
// RUN: heddle-inspect %t.2.plan | FileCheck %s --check-prefixes=CHECK,S2
// RUN: heddle-opt %s --train-pipeline='zero=3 mesh=dp:4 optimizer={"skip_nonfinite": true}' -o %t.3.plan
// RUN: heddle-inspect %t.3.plan | FileCheck %s --check-prefixes=CHECK,S3
// RUN: heddle-opt %s --train-pipeline='zero=3 mesh=dp:64 optimizer={"skip_nonfinite": true}' -o %t.64.plan
// RUN: heddle-inspect %t.64.plan | FileCheck %s --check-prefix=WORLD

// Tests the bytes on the wire against closed formulas. The bucket has 65536 elements, B = 128 KiB of parameters in bf16 and G = 256 KiB of gradients in fp32; of W = 4 ranks each gets
// (W - 1)/W * B = 96 KiB from a gather and (W - 1)/W * G = 192 KiB for a reduce-scatter, and 2 (W - 1)/W * 8 bytes for the sum of squares of one parameter.
// Stage 1 moves both once an update, stage 2 gradients with every micro-batch, stage 3 parameters twice a micro-batch and none at the update.
// CHECK: 4 ranks
// S1: accumulator        1 tensor      65.5 K elements    256 KiB
// S2: accumulator        1 tensor      65.5 K elements   64.0 KiB
// S2: master             1 tensor      65.5 K elements   64.0 KiB
// S3: parameter          1 tensor      65.5 K elements   32.0 KiB
// CHECK: Buckets: 1 of 65.5 K elements in all, 0 of them padding (0.0 %)
// CHECK: Section micro_first
// S2: reduce_scatter        1 x       192 KiB
// S3: all_gather            2 x       192 KiB
// S3-NEXT: reduce_scatter        1 x       192 KiB
// CHECK: Section boundary
// S1: all_gather            1 x      96.0 KiB
// S1-NEXT: all_reduce            1 x          12 B
// S1-NEXT: reduce_scatter        1 x       192 KiB
// S2: all_gather            1 x      96.0 KiB
// S3-NOT: all_gather
// S3: all_reduce            1 x          12 B
// A world that nobody here has: 63/64 of the same.
// WORLD: 64 ranks
// WORLD: all_gather            2 x       252 KiB
// WORLD-NEXT: reduce_scatter        1 x       252 KiB
// WORLD: Predicted for host, 2 cores: {{.*}}; collectives {{.*}}, of which {{.*}} exposed
// WORLD-NEXT: compute
// WORLD-NEXT: gather
// WORLD-NEXT: reduce
"graph.step"() <{arg_roles = [#graph.param<["layers.0.w"], true, "other">, #graph.input<"x">], format_version = 1 : i64, precision = "bf16", result_roles = [#graph.loss, #graph.gradient<"layers.0.w">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%w: tensor<256x256xbf16>, %x: tensor<bf16>):
  %0 = "graph.mul.Tensor"(%w, %x) {graph.phase = #graph.phase<forward>} : (tensor<256x256xbf16>, tensor<bf16>) -> tensor<256x256xbf16>
  %1 = "graph.sum"(%0) {graph.phase = #graph.phase<forward>} : (tensor<256x256xbf16>) -> tensor<bf16>
  %2 = "graph.mul.Tensor"(%w, %1) {graph.phase = #graph.phase<backward>} : (tensor<256x256xbf16>, tensor<bf16>) -> tensor<256x256xbf16>
  "graph.return"(%1, %2) : (tensor<bf16>, tensor<256x256xbf16>) -> ()
}) : () -> ()
