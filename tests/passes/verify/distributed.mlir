// RUN: heddle-opt %s --split-input-file --verify-diagnostics --pass-pipeline='builtin.module(dist-verify)'

// Every rule of dist-verify, broken once; the case is named after the rule.

// dist_mesh_r1
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<128xf32>):
  // expected-error @+1 {{names axis "ep", which the mesh does not have (dist_mesh_r1)}}
  %0 = "dist.all_gather"(%arg0) <{axis = "ep"}> : (tensor<128xf32>) -> tensor<256xf32>
  "graph.return"() : () -> ()
}) : () -> ()
}

// -----

// dist_all_gather_r2
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<128xf32>):
  // expected-error @+1 {{takes 128 elements to 384 on 2 ranks (dist_all_gather_r2)}}
  %0 = "dist.all_gather"(%arg0) <{axis = "dp"}> : (tensor<128xf32>) -> tensor<384xf32>
  "graph.return"() : () -> ()
}) : () -> ()
}

// -----

// dist_reduce_scatter_r2
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<384xf32>):
  // expected-error @+1 {{takes 384 elements to 128 on 2 ranks (dist_reduce_scatter_r2)}}
  %0 = "dist.reduce_scatter"(%arg0) <{axis = "dp"}> : (tensor<384xf32>) -> tensor<128xf32>
  "graph.return"() : () -> ()
}) : () -> ()
}

// -----

// dist_shard_r1
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<384xf32>):
  // expected-error @+1 {{takes 384 elements to 128 on 2 ranks (dist_shard_r1)}}
  %0 = "dist.shard"(%arg0) <{axis = "dp"}> : (tensor<384xf32>) -> tensor<128xf32>
  "graph.return"() : () -> ()
}) : () -> ()
}

// -----

// dist_bucket_r1: no room
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
"graph.step"() <{arg_roles = [#dist.bucket<"l#0", "parameter", [#dist.member<["w"], 200, tensor<100xf32>, true, "other">], [], "", []>], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(
    // expected-error @+1 {{in a bucket of 256 elements of 'f32' (dist_bucket_r1)}}
    %arg0: tensor<256xf32>):
  "graph.return"() : () -> ()
}) : () -> ()
}

// -----

// dist_bucket_r1: the shard is shorter than a rank's bounds
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
"graph.step"() <{arg_roles = [#dist.bucket<"l#0", "parameter", [#dist.member<["w"], 0, tensor<100xf32>, true, "other">], [0, 128, 256], "", []>], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(
    // expected-error @+1 {{is a shard of 100 elements and its bounds ask for 128 (dist_bucket_r1)}}
    %arg0: tensor<100xf32>):
  "graph.return"() : () -> ()
}) : () -> ()
}

// -----

// dist_bucket_r1: a new bucket without its argument
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
"graph.step"() <{arg_roles = [#graph.input<"b">], format_version = 1 : i64, precision = "fp32", result_roles = [#dist.new_bucket<"l#0", "parameter">], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(%arg0: tensor<128xf32>):
  // expected-error @+1 {{gives bucket parameter l#0 the new value 'tensor<256xf32>'}}
  %0 = "dist.all_gather"(%arg0) <{axis = "dp"}> : (tensor<128xf32>) -> tensor<256xf32>
  "graph.return"(%0) : (tensor<256xf32>) -> ()
}) : () -> ()
}

// -----

// dist_bucket_r2
module attributes {dist.mesh = [#dist.axis<"dp", 2>]} {
"graph.step"() <{arg_roles = [#dist.bucket<"l#0", "parameter", [#dist.member<["w"], 0, tensor<100xf32>, true, "other">], [], "", []>], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(
    // expected-note @+1 {{first laid out here}}
    %arg0: tensor<256xf32>):
  "graph.return"() : () -> ()
}) : () -> ()
"graph.step"() <{arg_roles = [#dist.bucket<"l#0", "parameter", [#dist.member<["w"], 128, tensor<100xf32>, true, "other">], [], "", []>], format_version = 1 : i64, precision = "fp32", result_roles = [], target = "cpu", torch_version = "2.11.0"}> ({
^bb0(
    // expected-error @+1 {{lays bucket parameter l#0 out in another way (dist_bucket_r2)}}
    %arg0: tensor<256xf32>):
  "graph.return"() : () -> ()
}) : () -> ()
}
