// RUN: heddle-opt %s --split-input-file --verify-diagnostics

// Every rule of the dist dialect that needs no mesh, broken once; the case is named after the rule.

// dist.mesh is an array of axes
// expected-error @+1 {{has a dist.mesh that is no array of #dist.axis}}
module attributes {dist.mesh = [4]} {}

// -----

// expected-error @+1 {{has the unknown attribute "dist.grid"}}
module attributes {dist.grid = []} {}

// -----

// dist_slot_r1: the tensor reaches beyond the bucket
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<256xf32>):
  // expected-error @+1 {{puts 'tensor<2x64xf32>' at element 192 of 'tensor<256xf32>' (dist_slot_r1)}}
  %0 = "dist.slot"(%arg0) <{offset = 192 : i64}> : (tensor<256xf32>) -> tensor<2x64xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// dist_shard_r1
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<256xf32>):
  // expected-error @+1 {{takes 'tensor<100xf32>' of 'tensor<256xf32>' (dist_shard_r1)}}
  %0 = "dist.shard"(%arg0) <{axis = "dp"}> : (tensor<256xf32>) -> tensor<100xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// dist_pack_r1: shapes differ
"graph.step"() <{arg_roles = [#graph.input<"g">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<4xf32>):
  // expected-error @+1 {{lays out 'tensor<4xf32>' as 'tensor<5xf32>' (dist_pack_r1)}}
  %0 = "dist.pack"(%arg0) <{offsets = array<i64: 0>, types = [tensor<5xf32>]}> : (tensor<4xf32>) -> tensor<128xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// dist_pack_r2: two tensors overlap
"graph.step"() <{arg_roles = [#graph.input<"g">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<4xf32>):
  // expected-error @+1 {{puts a tensor at element 2, before the end of another at 4 (dist_pack_r2)}}
  %0 = "dist.pack"(%arg0, %arg0) <{offsets = array<i64: 0, 2>, types = [tensor<4xf32>, tensor<4xf32>]}> : (tensor<4xf32>, tensor<4xf32>) -> tensor<128xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// dist_pack_r2: a tensor reaches beyond the bucket
"graph.step"() <{arg_roles = [#graph.input<"g">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<4xf32>):
  // expected-error @+1 {{needs 132 elements and makes 'tensor<128xf32>' (dist_pack_r2)}}
  %0 = "dist.pack"(%arg0) <{offsets = array<i64: 128>, types = [tensor<4xf32>]}> : (tensor<4xf32>) -> tensor<128xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// dist_all_gather_r1
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<128xf32>):
  // expected-error @+1 {{both must be flat and of one element type (dist_all_gather_r1)}}
  %0 = "dist.all_gather"(%arg0) <{axis = "dp"}> : (tensor<128xf32>) -> tensor<256xbf16>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// dist_reduce_scatter_r1
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<2x64xf32>):
  // expected-error @+1 {{both must be flat and of one element type (dist_reduce_scatter_r1)}}
  %0 = "dist.reduce_scatter"(%arg0) <{axis = "dp"}> : (tensor<2x64xf32>) -> tensor<64xf32>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// dist_all_reduce_r1
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<128xf32>):
  // expected-error @+1 {{the types must be equal (dist_all_reduce_r1)}}
  %0 = "dist.all_reduce"(%arg0) <{axis = "dp"}> : (tensor<128xf32>) -> tensor<128xf64>
  "graph.return"() : () -> ()
}) : () -> ()

// -----

// dist_broadcast_r1
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<i64>):
  // expected-error @+1 {{the types must be equal (dist_broadcast_r1)}}
  %0 = "dist.broadcast"(%arg0) <{axis = "dp"}> : (tensor<i64>) -> tensor<i32>
  "graph.return"() : () -> ()
}) : () -> ()
