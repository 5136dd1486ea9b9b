// RUN: heddle-opt %s --mlir-print-op-generic --mlir-print-debuginfo -o %t.first && heddle-opt %t.first --mlir-print-op-generic --mlir-print-debuginfo -o %t.second
// RUN: cmp %t.first %t.second
// RUN: heddle-opt %s --emit-bytecode -o %t.bc && heddle-opt %t.bc --mlir-print-op-generic --mlir-print-debuginfo -o %t.third && cmp %t.first %t.third
// RUN: FileCheck %s < %t.first

// Tests that text, text again and bytecode print the same bytes for every kind of attribute, type and location that capture writes.
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.param<["model.embed_tokens.weight", "lm_head.weight"], true, "embedding">, #graph.buffer<"inv_freq", false>, #graph.input<"input_ids">, #graph.constant<"c0">],
                   format_version = 1 : i64, precision = "fp32", result_roles = [#graph.loss, #graph.gradient<"lm_head.weight">, #graph.new_value<"inv_freq">, #graph.output<"logits">],
                   target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%arg0: tensor<6x4xf32>, %arg1: tensor<f32>, %arg2: tensor<2x3xi64>, %arg3: tensor<i64>):
    // CHECK: "graph.embedding"(%arg0, %arg2) <{padding_idx = -1 : i64, scale_grad_by_freq = false, sparse = false}> {graph.node = 3 : i64, graph.phase = #graph.phase<forward>}
    // CHECK-SAME: loc([[EMBEDDING:#.+]])
    %0 = "graph.embedding"(%arg0, %arg2) <{padding_idx = -1 : i64, scale_grad_by_freq = false, sparse = false}> {graph.node = 3 : i64, graph.phase = #graph.phase<forward>} : (tensor<6x4xf32>, tensor<2x3xi64>) -> tensor<2x3x4xf32> loc(#loc2)
    // CHECK: tensor<4x6xf32, #graph.layout<[1, 4], 0, 96>>
    %1 = "graph.t"(%arg0) : (tensor<6x4xf32>) -> tensor<4x6xf32, #graph.layout<[1, 4], 0, 96>> loc(#loc2)
    // CHECK: "graph.mul.Scalar"(%{{.+}}) <{other = 0x7FF0000000000000 : f64}>
    %2 = "graph.mul.Scalar"(%arg1) <{other = 0x7FF0000000000000 : f64}> : (tensor<f32>) -> tensor<f32> loc(#loc)
    // CHECK: <{other = true}>
    %3 = "graph.mul.Scalar"(%2) <{other = true}> {graph.recompute_of = 2 : i64} : (tensor<f32>) -> tensor<f32> loc(#loc)
    // CHECK: "graph.index.Tensor"(%{{.+}}, %{{.+}}) <{indices_present = array<i1: false, true>}>
    %4 = "graph.select.int"(%arg2) <{dim = 0 : i64, index = 1 : i64}> : (tensor<2x3xi64>) -> tensor<3xi64, #graph.layout<[1], 3, 48>> loc(#loc)
    %5 = "graph.index.Tensor"(%0, %4) <{indices_present = array<i1: false, true>}> : (tensor<2x3x4xf32>, tensor<3xi64, #graph.layout<[1], 3, 48>>) -> tensor<2x3x4xf32> loc(#loc)
    // CHECK: args = [#graph.operand, [#graph.operand, unit], array<i64>, f32, unit]
    %6 = "graph.call"(%arg1, %2) <{args = [#graph.operand, [#graph.operand, unit], array<i64>, f32, unit], callee = "mylib::op.out", fresh_results, mutates = array<i64: 0>}> {graph.rng_id = 0 : i64} : (tensor<f32>, tensor<f32>) -> tensor<f32> loc(#loc)
    %7 = "graph.sum"(%5) <{dtype = f64}> : (tensor<2x3x4xf32>) -> tensor<f64> loc(#loc)
    "graph.guard"(%arg3) <{expected = array<i64: 7>}> : (tensor<i64>) -> () loc(#loc)
    %8 = "graph.scalar_tensor"() <{dtype = f8E4M3FN, s = 0x7FF8000000000000 : f64}> : () -> tensor<f8E4M3FN> loc(#loc)
    %9 = "graph.view_as_complex"(%0) : (tensor<2x3x4xf32>) -> tensor<2x3x2xcomplex<f32>> loc(#loc)
    %10:2 = "graph.split.Tensor"(%0) <{dim = 0 : i64, split_size = 1 : i64}> : (tensor<2x3x4xf32>) -> (tensor<1x3x4xf32, #graph.layout<[12, 4, 1], 0, 96>>, tensor<1x3x4xf32, #graph.layout<[12, 4, 1], 12, 96>>) loc(#loc)
    "graph.return"(%3, %arg0, %6, %0) : (tensor<f32>, tensor<6x4xf32>, tensor<f32>, tensor<2x3x4xf32>) -> () loc(#loc)
  }) : () -> () loc(#loc)
}) : () -> () loc(#loc)
#loc = loc(unknown)
#loc1 = loc("model.py":88:0)
// CHECK: loc("model.embed_tokens"(
#loc2 = loc("model.embed_tokens"(#loc1))
