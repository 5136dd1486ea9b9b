// RUN: heddle-opt %s --pass-pipeline="builtin.module(sched.plan(sched-plan-memory,sched-insert-events,sched-verify))" | FileCheck %s

// Tests that dead buffers give their bytes back, that a use on another stream waits for its producer, and that so does the writer of reused bytes for the last reader.
// CHECK: sched.section "replay"
// CHECK-SAME: events = 2 : i64, live_lower_bound = 512 : i64, scratch_bytes = 512 : i64
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes "x"
  %x = sched.value %xb : <tensor<4xf32>>
  sched.input "x" %x : <tensor<4xf32>>
  sched.section "replay" {
    %ab = sched.buffer scratch device temporary 16 bytes
    %a = sched.value %ab : <tensor<4xf32>>
    %bb = sched.buffer scratch device temporary 16 bytes
    %b = sched.value %bb : <tensor<4xf32>>
    %cb = sched.buffer scratch device output 16 bytes
    %c = sched.value %cb : <tensor<4xf32>>
    // CHECK: sched.aten "aten::exp"
    // CHECK-SAME: signal 0
    sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
    // CHECK: sched.aten "aten::neg"
    // CHECK-SAME: stream 1 wait [0] signal 1
    sched.aten "aten::neg"(%a) -> (%b) [#sched.operand] stream 1 {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
    // CHECK: sched.aten "aten::sin"
    // CHECK-SAME: wait [1]
    sched.aten "aten::sin"(%b) -> (%c) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
    sched.result "output" "c" %c : <tensor<4xf32>>
  }
}
