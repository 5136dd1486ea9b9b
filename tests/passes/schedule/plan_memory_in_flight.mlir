// RUN: heddle-opt %s --pass-pipeline="builtin.module(sched.plan(sched-plan-memory,sched-insert-events,sched-verify))" | FileCheck %s --check-prefixes=CHECK,FREE
// RUN: heddle-opt %s --pass-pipeline="builtin.module(sched.plan(sched-plan-memory{reducing=64},sched-insert-events,sched-verify))" | FileCheck %s --check-prefixes=CHECK,ONE
// RUN: heddle-opt %s --pass-pipeline="builtin.module(sched.plan(sched-plan-memory{memory=2560},sched-insert-events,sched-verify))" | FileCheck %s --check-prefixes=CHECK,ONE
// RUN: heddle-opt %s --pass-pipeline="builtin.module(sched.plan(sched-plan-memory{memory=2559},sched-insert-events,sched-verify))" | FileCheck %s --check-prefixes=CHECK,NONE

// Tests that a pack's bytes are not used again while its reduction may run, so that no computation waits for one; that `reducing` (elements) and what `memory` leaves beside the 1024
// bytes of state and input let the oldest be used again; and that a reduction has its result's bytes as soon as its pack is complete, so that it waits for no later computation.
// CHECK: sched.section "micro_next"
// FREE-SAME: live_lower_bound = 1280 : i64, scratch_bytes = 1792 : i64
// ONE-SAME: live_lower_bound = 1280 : i64, scratch_bytes = 1536 : i64
// NONE-SAME: live_lower_bound = 1280 : i64, scratch_bytes = 1280 : i64
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
  sched.plan "train" streams ["compute", "reduce"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
    %xb = sched.buffer input device step_input 256 bytes "x"
    %x = sched.value %xb : <tensor<64xf32>>
    sched.input "x" %x : <tensor<64xf32>>
    %ub = sched.buffer state device accumulator 128 bytes "u"
    %u = sched.value %ub : <tensor<32xf32>>
    %vb = sched.buffer state device accumulator 128 bytes "v"
    %v = sched.value %vb : <tensor<32xf32>>
    %wb = sched.buffer state device accumulator 128 bytes "w"
    %w = sched.value %wb : <tensor<32xf32>>
    sched.section "micro_next" {
      %ab = sched.buffer scratch device temporary 256 bytes
      %a = sched.value %ab : <tensor<64xf32>>
      %bb = sched.buffer scratch device temporary 256 bytes
      %b = sched.value %bb : <tensor<64xf32>>
      %cb = sched.buffer scratch device temporary 256 bytes
      %c = sched.value %cb : <tensor<64xf32>>
      %db = sched.buffer scratch device temporary 1024 bytes
      %d = sched.value %db : <tensor<256xf32>>
      %rb = sched.buffer scratch device temporary 128 bytes
      %r = sched.value %rb : <tensor<32xf32>>
      sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<64xf32>>) -> !sched.ref<tensor<64xf32>>
      sched.collective "reduce_scatter"(%a) -> (%u) [#sched.operand, "dp", "sum"] stream 1 {arg_names = ["src", "axis", "op"], result_slots = array<i64: 0>} : (!sched.ref<tensor<64xf32>>) -> !sched.ref<tensor<32xf32>>
      // CHECK: sched.aten "aten::neg"
      // FREE-NOT: wait
      // ONE-NOT: wait
      // NONE-SAME: wait
      // CHECK: sched.collective
      sched.aten "aten::neg"(%x) -> (%b) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<64xf32>>) -> !sched.ref<tensor<64xf32>>
      sched.collective "reduce_scatter"(%b) -> (%v) [#sched.operand, "dp", "sum"] stream 1 {arg_names = ["src", "axis", "op"], result_slots = array<i64: 0>} : (!sched.ref<tensor<64xf32>>) -> !sched.ref<tensor<32xf32>>
      sched.aten "aten::sin"(%x) -> (%c) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<64xf32>>) -> !sched.ref<tensor<64xf32>>
      // CHECK: sched.aten "aten::repeat"
      // FREE-NOT: {{wait|signal}}
      // ONE-SAME: wait
      // ONE-NOT: signal
      // NONE-SAME: wait
      // NONE-SAME: signal
      // CHECK: sched.collective
      sched.aten "aten::repeat"(%x) -> (%d) [#sched.operand, array<i64: 4>] {arg_names = ["self", "repeats"], result_slots = array<i64: 0>} : (!sched.ref<tensor<64xf32>>) -> !sched.ref<tensor<256xf32>>
      sched.collective "reduce_scatter"(%c) -> (%r) [#sched.operand, "dp", "sum"] stream 1 {arg_names = ["src", "axis", "op"], result_slots = array<i64: 0>} : (!sched.ref<tensor<64xf32>>) -> !sched.ref<tensor<32xf32>>
      sched.kernel "accumulate"(%w, %r) -> (%w) [#sched.operand, #sched.operand, false] stream 1 {arg_names = ["dst", "src", "first"], result_slots = array<i64: 0>} : (!sched.ref<tensor<32xf32>>, !sched.ref<tensor<32xf32>>) -> !sched.ref<tensor<32xf32>>
    }
  }
}
