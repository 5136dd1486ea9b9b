// RUN: heddle-opt %s --split-input-file --verify-diagnostics --graph-lower-to-sched=mode=replay

// A write through a handle has no place in a schedule.
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.input<"x">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"y">], target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%x: tensor<4xf32>):
    // expected-error@below {{writes through its operand 0; run graph-functionalize before graph-lower-to-sched}}
    %y = "graph.call"(%x) <{args = [#graph.operand], callee = "my::scale_", mutates = array<i64: 0>}> : (tensor<4xf32>) -> tensor<4xf32>
    "graph.return"(%y) : (tensor<4xf32>) -> ()
  }) : () -> ()
}) : () -> ()

// -----

// A constant needs its data.
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.constant<"c">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.output<"y">], target = "cpu", torch_version = "2.11.0"}> ({
  // expected-error@below {{'c' has no data: the sidecar (step.safetensors beside step.mlir) does not hold it}}
  ^bb0(%x: tensor<4xf32>):
    %y = "graph.exp"(%x) : (tensor<4xf32>) -> tensor<4xf32>
    "graph.return"(%y) : (tensor<4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
