// RUN: heddle-opt %s --split-input-file --verify-diagnostics --pass-pipeline="builtin.module(sched.plan(sched-verify))"

// sched_verify_r1: every buffer is placed.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
    // expected-error@below {{has no offset (sched_verify_r1)}}
  %xb = sched.buffer input device step_input 16 bytes
  %x = sched.value %xb : <tensor<4xf32>>
}

// -----

// sched_verify_r2: live buffers are apart.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    // expected-note@below {{other buffer here}}
    %ab = sched.buffer scratch device temporary 16 bytes at 0
    %a = sched.value %ab : <tensor<4xf32>>
    // expected-error@below {{at 0 with 16 bytes overlaps a live buffer at 0 with 16 bytes (sched_verify_r2)}}
    %bb = sched.buffer scratch device temporary 16 bytes at 0
    %b = sched.value %bb : <tensor<4xf32>>
    %cb = sched.buffer scratch device temporary 16 bytes at 256
    %c = sched.value %cb : <tensor<4xf32>>
    sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
    sched.aten "aten::exp"(%x) -> (%b) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
    sched.aten "aten::exp"(%a) -> (%c) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// sched_verify_r3: scratch is written before it is read.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    // expected-note@below {{buffer named here}}
    %ab = sched.buffer scratch device temporary 16 bytes at 0
    %a = sched.value %ab : <tensor<4xf32>>
    %bb = sched.buffer scratch device temporary 16 bytes at 256
    %b = sched.value %bb : <tensor<4xf32>>
    // expected-error@below {{reads scratch bytes that no earlier step wrote (sched_verify_r3)}}
    sched.aten "aten::exp"(%a) -> (%b) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// sched_verify_r4: a use on another stream waits.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    %ab = sched.buffer scratch device temporary 16 bytes at 0
    %a = sched.value %ab : <tensor<4xf32>>
    %bb = sched.buffer scratch device temporary 16 bytes at 256
    %b = sched.value %bb : <tensor<4xf32>>
    // expected-note@below {{other step here}}
    sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
    // expected-error@below {{touches the bytes of a step on stream 0 without waiting for it (sched_verify_r4)}}
    sched.aten "aten::exp"(%a) -> (%b) [#sched.operand] stream 1 {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// A wait through a third step orders too.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" attributes {events = 1 : i64} {
    %ab = sched.buffer scratch device temporary 16 bytes at 0
    %a = sched.value %ab : <tensor<4xf32>>
    %bb = sched.buffer scratch device temporary 16 bytes at 256
    %b = sched.value %bb : <tensor<4xf32>>
    %cb = sched.buffer scratch device temporary 16 bytes at 512
    %c = sched.value %cb : <tensor<4xf32>>
    sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
    sched.aten "aten::exp"(%x) -> (%b) [#sched.operand] signal 0 {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
    sched.aten "aten::exp"(%a) -> (%c) [#sched.operand] stream 1 wait [0] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}
