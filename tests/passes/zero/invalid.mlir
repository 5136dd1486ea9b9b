// RUN: heddle-opt %s --split-input-file --verify-diagnostics --pass-pipeline='builtin.module(zero-partition{stage=3})'

// Tests what the pass refuses.

// expected-error @+1 {{has no graph.step to partition}}
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {}

// -----

module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
  // expected-error @+1 {{updates no parameter; run graph-append-optimizer before zero-partition}}
  "graph.step"() <{arg_roles = [#graph.param<["w"], true, "other">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%arg0: tensor<4xf32>):
    "graph.return"() : () -> ()
  }) : () -> ()
}

// -----

// A parameter that looks into a larger storage.
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
  // expected-error @+1 {{cannot put "w" of type 'tensor<4xf32, #graph.layout<[2], 0, 32>>' into a bucket: its storage has gaps or holds more than the parameter; make it contiguous before capture}}
  "graph.step"() <{arg_roles = [#graph.param<["w"], false, "other">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%arg0: tensor<4xf32, #graph.layout<[2], 0, 32>>):
    "graph.return"() : () -> ()
  }) : () -> ()
}
