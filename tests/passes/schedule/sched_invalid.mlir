// RUN: heddle-opt %s --split-input-file --verify-diagnostics

// sched_plan_r1: stream names are distinct.
// expected-error@below {{names stream 'compute' twice (sched_plan_r1)}}
sched.plan "replay" streams ["compute", "compute"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
}

// -----

// sched_plan_r2: section names are known.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
    // expected-error@below {{has unknown name 'middle' (sched_plan_r2)}}
  sched.section "middle" {
  }
}

// -----

// sched_plan_r2: section names are distinct.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
    // expected-note@below {{first one here}}
  sched.section "replay" {
  }
    // expected-error@below {{is a second section 'replay' (sched_plan_r2)}}
  sched.section "replay" {
  }
}

// -----

// sched_buffer_r2: offsets are multiples of 256.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
    // expected-error@below {{is placed at 16, expected a multiple of 256 (sched_buffer_r2)}}
  %xb = sched.buffer input device step_input 16 bytes at 16
  %x = sched.value %xb : <tensor<4xf32>>
}

// -----

// sched_buffer_r3: scratch lies in a section.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
    // expected-error@below {{of arena scratch lies outside of a section (sched_buffer_r3)}}
  %xb = sched.buffer scratch device temporary 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
}

// -----

// sched_value_r1: a value lies inside its buffer.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
    // expected-note@below {{buffer named here}}
  %b = sched.buffer input device step_input 8 bytes
    // expected-error@below {{reaches byte 16 of a buffer of 8 bytes (sched_value_r1)}}
  %x = sched.value %b : <tensor<4xf32>>
}

// -----

// sched_state_r1: kinds of state are known.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer state device parameter 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
    // expected-error@below {{has unknown kind 'weights' (sched_state_r1)}}
  sched.state "weights" ["x"] %x {persistent = true, role = "matrix", trainable = true} : <tensor<4xf32>>
}

// -----

// sched_state_r2: state lies in the state arena.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
    // expected-error@below {{binds a value outside the state arena (sched_state_r2)}}
  sched.state "parameter" ["x"] %x {persistent = true, role = "matrix", trainable = true} : <tensor<4xf32>>
}

// -----

// sched_constant_r1: data fills the value.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer constant device constant_data 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
    // expected-error@below {{has 3 bytes of data for a value of 16 bytes (sched_constant_r1)}}
  sched.constant "c" %x "abc" : <tensor<4xf32>>
}

// -----

// sched_section_r2: streams exist.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    %ab = sched.buffer scratch device temporary 16 bytes
    %a = sched.value %ab : <tensor<4xf32>>
    // expected-error@below {{runs on stream 2 of 2 (sched_section_r2)}}
    sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] stream 2 {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// sched_section_r3: an event is signalled once.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" attributes {events = 1 : i64} {
    %ab = sched.buffer scratch device temporary 16 bytes
    %a = sched.value %ab : <tensor<4xf32>>
    %bb = sched.buffer scratch device temporary 16 bytes
    %b = sched.value %bb : <tensor<4xf32>>
    // expected-note@below {{first signalled here}}
    sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] signal 0 {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
    // expected-error@below {{signals event 0 a second time (sched_section_r3)}}
    sched.aten "aten::exp"(%x) -> (%b) [#sched.operand] signal 0 {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// sched_section_r3: events are counted.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    %ab = sched.buffer scratch device temporary 16 bytes
    %a = sched.value %ab : <tensor<4xf32>>
    // expected-error@below {{signals event 0 of 0 (sched_section_r3)}}
    sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] signal 0 {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// sched_section_r4: no wait without a signal before it.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" attributes {events = 1 : i64} {
    %ab = sched.buffer scratch device temporary 16 bytes
    %a = sched.value %ab : <tensor<4xf32>>
    // expected-error@below {{waits for event 0, which no earlier step signals (sched_section_r4)}}
    sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] wait [0] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// sched_section_r5: scratch ends inside scratch_bytes.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" attributes {scratch_bytes = 256 : i64} {
    // expected-error@below {{ends at byte 272 of 256 scratch bytes (sched_section_r5)}}
    %ab = sched.buffer scratch device temporary 16 bytes at 256
    %a = sched.value %ab : <tensor<4xf32>>
  }
}

// -----

// sched_call_r1: args name every read.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    %ab = sched.buffer scratch device temporary 16 bytes
    %a = sched.value %ab : <tensor<4xf32>>
    // expected-error@below {{has 1 reads but args name 0 (sched_call_r1)}}
    sched.aten "aten::exp"(%x) -> (%a) [unit] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// sched_call_r2: every argument has a name.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    %ab = sched.buffer scratch device temporary 16 bytes
    %a = sched.value %ab : <tensor<4xf32>>
    // expected-error@below {{has 1 args but 0 arg_names (sched_call_r2)}}
    sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] {arg_names = [], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// sched_call_r3: every write is a result.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    %ab = sched.buffer scratch device temporary 16 bytes
    %a = sched.value %ab : <tensor<4xf32>>
    // expected-error@below {{names write 0 in 0 result slots, expected 1 (sched_call_r3)}}
    sched.aten "aten::exp"(%x) -> (%a) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: -1>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// sched_call_r4: inputs are not written.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    // expected-error@below {{writes into the input arena (sched_call_r4)}}
    sched.aten "aten::exp"(%x) -> (%x) [#sched.operand] {arg_names = ["self"], result_slots = array<i64: 0>} : (!sched.ref<tensor<4xf32>>) -> !sched.ref<tensor<4xf32>>
  }
}

// -----

// sched_copy_r1: sizes are equal.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    %ab = sched.buffer scratch device temporary 16 bytes
    %a = sched.value %ab : <tensor<2x2xf32>>
    // expected-error@below {{whose sizes differ (sched_copy_r1)}}
    sched.copy %x to %a : !sched.ref<tensor<4xf32>> to !sched.ref<tensor<2x2xf32>>
  }
}

// -----

// sched_result_r1: kinds of results are known.
sched.plan "replay" streams ["compute", "side"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
  %xb = sched.buffer input device step_input 16 bytes at 0
  %x = sched.value %xb : <tensor<4xf32>>
  sched.section "replay" {
    // expected-error@below {{has unknown kind 'logits' (sched_result_r1)}}
    sched.result "logits" "x" %x : <tensor<4xf32>>
  }
}

// -----

// sched_gemm_r1: what it adds to is what it writes.
sched.plan "train" streams ["compute"] attributes {config = "{}", precision = "bf16", target = "cuda", torch_version = "2.11.0"} {
  %0 = sched.buffer input device step_input 64 bytes at 0
  %1 = sched.buffer input device step_input 64 bytes at 256
  %2 = sched.buffer state device accumulator 64 bytes at 0
  %a = sched.value %0 : !sched.ref<tensor<4x8xbf16>>
  %b = sched.value %1 : !sched.ref<tensor<8x2xbf16>>
  %c = sched.value %2 : !sched.ref<tensor<4x2xf32>>
  sched.section "micro_next" {
    // expected-error@below {{has 3 reads and 1 writes, expected a, b, where it adds also the one write (sched_gemm_r1)}}
    sched.gemm(%a, %b, %a) to %c : (!sched.ref<tensor<4x8xbf16>>, !sched.ref<tensor<8x2xbf16>>, !sched.ref<tensor<4x8xbf16>>) -> !sched.ref<tensor<4x2xf32>>
  }
}

// -----

// sched_gemm_r2: the sizes agree.
sched.plan "train" streams ["compute"] attributes {config = "{}", precision = "bf16", target = "cuda", torch_version = "2.11.0"} {
  %0 = sched.buffer input device step_input 64 bytes at 0
  %1 = sched.buffer input device step_input 64 bytes at 256
  %2 = sched.buffer state device accumulator 64 bytes at 0
  %a = sched.value %0 : !sched.ref<tensor<4x8xbf16>>
  %b = sched.value %1 : !sched.ref<tensor<2x8xbf16>>
  %c = sched.value %2 : !sched.ref<tensor<4x2xf32>>
  sched.section "micro_next" {
    // expected-error@below {{multiplies 'tensor<4x8xbf16>' and 'tensor<2x8xbf16>' into 'tensor<4x2xf32>' (sched_gemm_r2)}}
    sched.gemm(%a, %b) to %c : (!sched.ref<tensor<4x8xbf16>>, !sched.ref<tensor<2x8xbf16>>) -> !sched.ref<tensor<4x2xf32>>
  }
}

// -----

// sched_gemm_r3: the sum is in f32.
sched.plan "train" streams ["compute"] attributes {config = "{}", precision = "bf16", target = "cuda", torch_version = "2.11.0"} {
  %0 = sched.buffer input device step_input 64 bytes at 0
  %1 = sched.buffer input device step_input 64 bytes at 256
  %2 = sched.buffer state device accumulator 64 bytes at 0
  %a = sched.value %0 : !sched.ref<tensor<4x8xbf16>>
  %b = sched.value %1 : !sched.ref<tensor<8x2xbf16>>
  %c = sched.value %2 : !sched.ref<tensor<4x2xbf16>>
  sched.section "micro_next" {
    // expected-error@below {{multiplies 'tensor<4x8xbf16>' and 'tensor<8x2xbf16>' into 'tensor<4x2xbf16>' (sched_gemm_r3)}}
    sched.gemm(%a, %b) to %c : (!sched.ref<tensor<4x8xbf16>>, !sched.ref<tensor<8x2xbf16>>) -> !sched.ref<tensor<4x2xbf16>>
  }
}

// -----

// sched_gemm_r4: elements lie side by side along one dimension.
sched.plan "train" streams ["compute"] attributes {config = "{}", precision = "bf16", target = "cuda", torch_version = "2.11.0"} {
  %0 = sched.buffer input device step_input 64 bytes at 0
  %1 = sched.buffer input device step_input 64 bytes at 256
  %2 = sched.buffer state device accumulator 64 bytes at 0
  %a = sched.value %0 : !sched.ref<tensor<2x4xbf16, #graph.layout<[8, 2], 0, 64>>>
  %b = sched.value %1 : !sched.ref<tensor<4x2xbf16>>
  %c = sched.value %2 : !sched.ref<tensor<2x2xf32>>
  sched.section "micro_next" {
    // expected-error@below {{has the matrix 'tensor<2x4xbf16, #graph.layout<[8, 2], 0, 64>>', whose rows and columns are both apart (sched_gemm_r4)}}
    sched.gemm(%a, %b) to %c : (!sched.ref<tensor<2x4xbf16, #graph.layout<[8, 2], 0, 64>>>, !sched.ref<tensor<4x2xbf16>>) -> !sched.ref<tensor<2x2xf32>>
  }
}
