// RUN: heddle-opt %s --pass-pipeline="builtin.module(graph.step(graph-functionalize,graph-canonicalize-views,graph-cse,graph-dce,graph-verify-functional,graph-raise-composites))" --mlir-print-op-generic -o %t
// RUN: grep -c 'kind = "rms_norm"' %t | FileCheck %s --check-prefix=NORM
// RUN: grep -c 'kind = "rms_norm_backward"' %t | FileCheck %s --check-prefix=NORM
// RUN: grep -c 'kind = "rotary"' %t | FileCheck %s --check-prefix=ROTARY
// RUN: grep -c 'kind = "rotary_backward"' %t | FileCheck %s --check-prefix=ROTARY
// RUN: grep -c 'kind = "swiglu"' %t | FileCheck %s --check-prefix=SWIGLU
// RUN: grep -c 'kind = "swiglu_backward"' %t | FileCheck %s --check-prefix=SWIGLU
// RUN: grep -c 'kind = "cross_entropy"' %t | FileCheck %s --check-prefix=LOSS
// RUN: grep -c 'kind = "cross_entropy_backward"' %t | FileCheck %s --check-prefix=LOSS
// RUN: not grep "graph.call" %t

// Tests on a captured Llama of two layers that every known function is found, forward and backward, and that every op is an ODS op.
// NORM: {{^}}5{{$}}
// ROTARY: {{^}}4{{$}}
// SWIGLU: {{^}}2{{$}}
// LOSS: {{^}}1{{$}}
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.param<["model.embed_tokens.weight"], true, "embedding">, #graph.param<["model.layers.0.self_attn.q_proj.weight"], true, "matrix">, #graph.param<["model.layers.0.self_attn.k_proj.weight"], true, "matrix">, #graph.param<["model.layers.0.self_attn.v_proj.weight"], true, "matrix">, #graph.param<["model.layers.0.self_attn.o_proj.weight"], true, "matrix">, #graph.param<["model.layers.0.mlp.gate_proj.weight"], true, "matrix">, #graph.param<["model.layers.0.mlp.up_proj.weight"], true, "matrix">, #graph.param<["model.layers.0.mlp.down_proj.weight"], true, "matrix">, #graph.param<["model.layers.0.input_layernorm.weight"], true, "norm">, #graph.param<["model.layers.0.post_attention_layernorm.weight"], true, "norm">, #graph.param<["model.layers.1.self_attn.q_proj.weight"], true, "matrix">, #graph.param<["model.layers.1.self_attn.k_proj.weight"], true, "matrix">, #graph.param<["model.layers.1.self_attn.v_proj.weight"], true, "matrix">, #graph.param<["model.layers.1.self_attn.o_proj.weight"], true, "matrix">, #graph.param<["model.layers.1.mlp.gate_proj.weight"], true, "matrix">, #graph.param<["model.layers.1.mlp.up_proj.weight"], true, "matrix">, #graph.param<["model.layers.1.mlp.down_proj.weight"], true, "matrix">, #graph.param<["model.layers.1.input_layernorm.weight"], true, "norm">, #graph.param<["model.layers.1.post_attention_layernorm.weight"], true, "norm">, #graph.param<["model.norm.weight"], true, "norm">, #graph.buffer<"model.rotary_emb.inv_freq", false>, #graph.buffer<"model.rotary_emb.original_inv_freq", false>, #graph.param<["lm_head.weight"], true, "head">, #graph.input<"input_ids">, #graph.input<"labels">, #graph.input<"attention_mask">], format_version = 1 : i64, precision = "fp32", result_roles = [#graph.loss, #graph.gradient<"model.embed_tokens.weight">, #graph.gradient<"model.layers.0.self_attn.q_proj.weight">, #graph.gradient<"model.layers.0.self_attn.k_proj.weight">, #graph.gradient<"model.layers.0.self_attn.v_proj.weight">, #graph.gradient<"model.layers.0.self_attn.o_proj.weight">, #graph.gradient<"model.layers.0.mlp.gate_proj.weight">, #graph.gradient<"model.layers.0.mlp.up_proj.weight">, #graph.gradient<"model.layers.0.mlp.down_proj.weight">, #graph.gradient<"model.layers.0.input_layernorm.weight">, #graph.gradient<"model.layers.0.post_attention_layernorm.weight">, #graph.gradient<"model.layers.1.self_attn.q_proj.weight">, #graph.gradient<"model.layers.1.self_attn.k_proj.weight">, #graph.gradient<"model.layers.1.self_attn.v_proj.weight">, #graph.gradient<"model.layers.1.self_attn.o_proj.weight">, #graph.gradient<"model.layers.1.mlp.gate_proj.weight">, #graph.gradient<"model.layers.1.mlp.up_proj.weight">, #graph.gradient<"model.layers.1.mlp.down_proj.weight">, #graph.gradient<"model.layers.1.input_layernorm.weight">, #graph.gradient<"model.layers.1.post_attention_layernorm.weight">, #graph.gradient<"model.norm.weight">, #graph.gradient<"lm_head.weight">], target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%arg0: tensor<256x64xf32>, %arg1: tensor<64x64xf32>, %arg2: tensor<32x64xf32>, %arg3: tensor<32x64xf32>, %arg4: tensor<64x64xf32>, %arg5: tensor<128x64xf32>, %arg6: tensor<128x64xf32>, %arg7: tensor<64x128xf32>, %arg8: tensor<64xf32>, %arg9: tensor<64xf32>, %arg10: tensor<64x64xf32>, %arg11: tensor<32x64xf32>, %arg12: tensor<32x64xf32>, %arg13: tensor<64x64xf32>, %arg14: tensor<128x64xf32>, %arg15: tensor<128x64xf32>, %arg16: tensor<64x128xf32>, %arg17: tensor<64xf32>, %arg18: tensor<64xf32>, %arg19: tensor<64xf32>, %arg20: tensor<8xf32>, %arg21: tensor<8xf32>, %arg22: tensor<256x64xf32>, %arg23: tensor<2x16xi64>, %arg24: tensor<2x16xi64>, %arg25: tensor<2x16xi64>):
    %0 = "graph.detach"(%arg0) {graph.phase = #graph.phase<forward>} : (tensor<256x64xf32>) -> tensor<256x64xf32>
    %1 = "graph.detach"(%arg1) {graph.phase = #graph.phase<forward>} : (tensor<64x64xf32>) -> tensor<64x64xf32>
    %2 = "graph.detach"(%arg2) {graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<32x64xf32>
    %3 = "graph.detach"(%arg3) {graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<32x64xf32>
    %4 = "graph.detach"(%arg4) {graph.phase = #graph.phase<forward>} : (tensor<64x64xf32>) -> tensor<64x64xf32>
    %5 = "graph.detach"(%arg5) {graph.phase = #graph.phase<forward>} : (tensor<128x64xf32>) -> tensor<128x64xf32>
    %6 = "graph.detach"(%arg6) {graph.phase = #graph.phase<forward>} : (tensor<128x64xf32>) -> tensor<128x64xf32>
    %7 = "graph.detach"(%arg7) {graph.phase = #graph.phase<forward>} : (tensor<64x128xf32>) -> tensor<64x128xf32>
    %8 = "graph.detach"(%arg8) {graph.phase = #graph.phase<forward>} : (tensor<64xf32>) -> tensor<64xf32>
    %9 = "graph.detach"(%arg9) {graph.phase = #graph.phase<forward>} : (tensor<64xf32>) -> tensor<64xf32>
    %10 = "graph.detach"(%arg10) {graph.phase = #graph.phase<forward>} : (tensor<64x64xf32>) -> tensor<64x64xf32>
    %11 = "graph.detach"(%arg11) {graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<32x64xf32>
    %12 = "graph.detach"(%arg12) {graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<32x64xf32>
    %13 = "graph.detach"(%arg13) {graph.phase = #graph.phase<forward>} : (tensor<64x64xf32>) -> tensor<64x64xf32>
    %14 = "graph.detach"(%arg14) {graph.phase = #graph.phase<forward>} : (tensor<128x64xf32>) -> tensor<128x64xf32>
    %15 = "graph.detach"(%arg15) {graph.phase = #graph.phase<forward>} : (tensor<128x64xf32>) -> tensor<128x64xf32>
    %16 = "graph.detach"(%arg16) {graph.phase = #graph.phase<forward>} : (tensor<64x128xf32>) -> tensor<64x128xf32>
    %17 = "graph.detach"(%arg17) {graph.phase = #graph.phase<forward>} : (tensor<64xf32>) -> tensor<64xf32>
    %18 = "graph.detach"(%arg18) {graph.phase = #graph.phase<forward>} : (tensor<64xf32>) -> tensor<64xf32>
    %19 = "graph.detach"(%arg19) {graph.phase = #graph.phase<forward>} : (tensor<64xf32>) -> tensor<64xf32>
    %20 = "graph.detach"(%arg22) {graph.phase = #graph.phase<forward>} : (tensor<256x64xf32>) -> tensor<256x64xf32>
    %21 = "graph.embedding"(%0, %arg23) <{padding_idx = -1 : i64, scale_grad_by_freq = false, sparse = false}> {graph.node = 0 : i64, graph.phase = #graph.phase<forward>} : (tensor<256x64xf32>, tensor<2x16xi64>) -> tensor<2x16x64xf32>
    %22 = "graph.arange"() <{device = "$dev", end = 16 : i64, pin_memory = false}> {graph.phase = #graph.phase<forward>} : () -> tensor<16xi64>
    %23 = "graph.add.Scalar"(%22) <{alpha = 1 : i64, other = 0 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<16xi64>) -> tensor<16xi64>
    %24 = "graph.unsqueeze"(%23) <{dim = 0 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<16xi64>) -> tensor<1x16xi64>
    %25 = "graph._to_copy"(%arg25) <{device = "$dev", dtype = i1, non_blocking = false}> {graph.phase = #graph.phase<forward>} : (tensor<2x16xi64>) -> tensor<2x16xi1>
    %26 = "graph.sum"(%25) {graph.phase = #graph.phase<forward>} : (tensor<2x16xi1>) -> tensor<i64>
    %27 = "graph.eq.Scalar"(%26) <{other = 32 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<i64>) -> tensor<i1>
    "graph.guard"(%27) <{expected = array<i64: 1>}> {graph.phase = #graph.phase<forward>} : (tensor<i1>) -> ()
    %28 = "graph.unsqueeze"(%arg20) <{dim = 0 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<8xf32>) -> tensor<1x8xf32>
    %29 = "graph.unsqueeze"(%28) <{dim = 2 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<1x8xf32>) -> tensor<1x8x1xf32>
    %30 = "graph.expand"(%29) <{implicit = false, size = array<i64: 1, -1, 1>}> {graph.phase = #graph.phase<forward>} : (tensor<1x8x1xf32>) -> tensor<1x8x1xf32>
    %31 = "graph.unsqueeze"(%24) <{dim = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<1x16xi64>) -> tensor<1x1x16xi64>
    %32 = "graph._to_copy"(%31) <{dtype = f32, non_blocking = false}> {graph.phase = #graph.phase<forward>} : (tensor<1x1x16xi64>) -> tensor<1x1x16xf32>
    %33 = "graph.expand"(%30) <{implicit = false, size = array<i64: 1, 8, 1>}> {graph.phase = #graph.phase<forward>} : (tensor<1x8x1xf32>) -> tensor<1x8x1xf32>
    %34 = "graph.view"(%33) <{size = array<i64: 1, 8, 1>}> {graph.phase = #graph.phase<forward>} : (tensor<1x8x1xf32>) -> tensor<1x8x1xf32>
    %35 = "graph.expand"(%32) <{implicit = false, size = array<i64: 1, 1, 16>}> {graph.phase = #graph.phase<forward>} : (tensor<1x1x16xf32>) -> tensor<1x1x16xf32>
    %36 = "graph.view"(%35) <{size = array<i64: 1, 1, 16>}> {graph.phase = #graph.phase<forward>} : (tensor<1x1x16xf32>) -> tensor<1x1x16xf32>
    %37 = "graph.bmm"(%34, %36) {graph.phase = #graph.phase<forward>} : (tensor<1x8x1xf32>, tensor<1x1x16xf32>) -> tensor<1x8x16xf32>
    %38 = "graph._unsafe_view"(%37) <{size = array<i64: 1, 8, 16>}> {graph.phase = #graph.phase<forward>} : (tensor<1x8x16xf32>) -> tensor<1x8x16xf32>
    %39 = "graph.transpose.int"(%38) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<1x8x16xf32>) -> tensor<1x16x8xf32, #graph.layout<[128, 1, 16], 0, 512>>
    %40 = "graph.cat"(%39, %39) <{dim = -1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<1x16x8xf32, #graph.layout<[128, 1, 16], 0, 512>>, tensor<1x16x8xf32, #graph.layout<[128, 1, 16], 0, 512>>) -> tensor<1x16x16xf32>
    %41 = "graph.cos"(%40) {graph.phase = #graph.phase<forward>} : (tensor<1x16x16xf32>) -> tensor<1x16x16xf32>
    %42 = "graph.mul.Scalar"(%41) <{other = 1.000000e+00 : f64}> {graph.phase = #graph.phase<forward>} : (tensor<1x16x16xf32>) -> tensor<1x16x16xf32>
    %43 = "graph.sin"(%40) {graph.phase = #graph.phase<forward>} : (tensor<1x16x16xf32>) -> tensor<1x16x16xf32>
    %44 = "graph.mul.Scalar"(%43) <{other = 1.000000e+00 : f64}> {graph.phase = #graph.phase<forward>} : (tensor<1x16x16xf32>) -> tensor<1x16x16xf32>
    %45 = "graph.pow.Tensor_Scalar"(%21) <{exponent = 2 : i64}> {graph.node = 1 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %46 = "graph.mean.dim"(%45) <{dim = array<i64: -1>, keepdim = true}> {graph.node = 2 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x1xf32>
    %47 = "graph.add.Scalar"(%46) <{alpha = 1 : i64, other = 9.9999999999999995E-7 : f64}> {graph.node = 3 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %48 = "graph.rsqrt"(%47) {graph.node = 4 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %49 = "graph.mul.Tensor"(%21, %48) {graph.node = 5 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>, tensor<2x16x1xf32>) -> tensor<2x16x64xf32>
    %50 = "graph.mul.Tensor"(%8, %49) {graph.node = 6 : i64, graph.phase = #graph.phase<forward>} : (tensor<64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %51 = "graph.t"(%1) {graph.node = 7 : i64, graph.phase = #graph.phase<forward>} : (tensor<64x64xf32>) -> tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>
    %52 = "graph.view"(%50) <{size = array<i64: 32, 64>}> {graph.node = 8 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %53 = "graph.mm"(%52, %51) {graph.node = 9 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<32x64xf32>
    %54 = "graph._unsafe_view"(%53) <{size = array<i64: 2, 16, 64>}> {graph.node = 10 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %55 = "graph.view"(%54) <{size = array<i64: 2, 16, -1, 16>}> {graph.node = 11 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x4x16xf32>
    %56 = "graph.transpose.int"(%55) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 12 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x4x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %57 = "graph.t"(%2) {graph.node = 13 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %58 = "graph.view"(%50) <{size = array<i64: 32, 64>}> {graph.node = 14 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %59 = "graph.mm"(%58, %57) {graph.node = 15 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x32xf32>
    %60 = "graph._unsafe_view"(%59) <{size = array<i64: 2, 16, 32>}> {graph.node = 16 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x32xf32>) -> tensor<2x16x32xf32>
    %61 = "graph.view"(%60) <{size = array<i64: 2, 16, -1, 16>}> {graph.node = 17 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x32xf32>) -> tensor<2x16x2x16xf32>
    %62 = "graph.transpose.int"(%61) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 18 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x2x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %63 = "graph.t"(%3) {graph.node = 19 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %64 = "graph.view"(%50) <{size = array<i64: 32, 64>}> {graph.node = 20 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %65 = "graph.mm"(%64, %63) {graph.node = 21 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x32xf32>
    %66 = "graph._unsafe_view"(%65) <{size = array<i64: 2, 16, 32>}> {graph.node = 22 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x32xf32>) -> tensor<2x16x32xf32>
    %67 = "graph.view"(%66) <{size = array<i64: 2, 16, -1, 16>}> {graph.node = 23 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x32xf32>) -> tensor<2x16x2x16xf32>
    %68 = "graph.transpose.int"(%67) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 24 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x2x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %69 = "graph.unsqueeze"(%42) <{dim = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<1x16x16xf32>) -> tensor<1x1x16x16xf32>
    %70 = "graph.unsqueeze"(%44) <{dim = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<1x16x16xf32>) -> tensor<1x1x16x16xf32>
    %71 = "graph.mul.Tensor"(%56, %69) {graph.node = 25 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<1x1x16x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %72 = "graph.slice.Tensor"(%56) <{dim = 3 : i64, end = 8 : i64, start = 0 : i64, step = 1 : i64}> {graph.node = 26 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %73 = "graph.slice.Tensor"(%56) <{dim = 3 : i64, end = 9223372036854775807 : i64, start = 8 : i64, step = 1 : i64}> {graph.node = 27 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 8, 8192>>
    %74 = "graph.neg"(%73) {graph.node = 28 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 8, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[512, 8, 32, 1], 0, 4096>>
    %75 = "graph.cat"(%74, %72) <{dim = -1 : i64}> {graph.node = 29 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x8xf32, #graph.layout<[512, 8, 32, 1], 0, 4096>>, tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x16xf32>
    %76 = "graph.mul.Tensor"(%75, %70) {graph.node = 30 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32>, tensor<1x1x16x16xf32>) -> tensor<2x4x16x16xf32>
    %77 = "graph.add.Tensor"(%71, %76) <{alpha = 1 : i64}> {graph.node = 31 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x4x16x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %78 = "graph.mul.Tensor"(%62, %69) {graph.node = 32 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<1x1x16x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %79 = "graph.slice.Tensor"(%62) <{dim = 3 : i64, end = 8 : i64, start = 0 : i64, step = 1 : i64}> {graph.node = 33 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %80 = "graph.slice.Tensor"(%62) <{dim = 3 : i64, end = 9223372036854775807 : i64, start = 8 : i64, step = 1 : i64}> {graph.node = 34 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 8, 4096>>
    %81 = "graph.neg"(%80) {graph.node = 35 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 8, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[256, 8, 16, 1], 0, 2048>>
    %82 = "graph.cat"(%81, %79) <{dim = -1 : i64}> {graph.node = 36 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x8xf32, #graph.layout<[256, 8, 16, 1], 0, 2048>>, tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x16xf32>
    %83 = "graph.mul.Tensor"(%82, %70) {graph.node = 37 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x16xf32>, tensor<1x1x16x16xf32>) -> tensor<2x2x16x16xf32>
    %84 = "graph.add.Tensor"(%78, %83) <{alpha = 1 : i64}> {graph.node = 38 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<2x2x16x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %85:2 = "graph._scaled_dot_product_flash_attention_for_cpu"(%77, %84, %68) <{dropout_p = 0.000000e+00 : f64, is_causal = true, scale = 2.500000e-01 : f64}> {graph.node = 39 : i64, graph.phase = #graph.phase<forward>, graph.rng_id = 0 : i64} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x4x16xf32, #graph.layout<[64, 1, 4], 0, 512>>)
    %86 = "graph.transpose.int"(%85#0) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 40 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x16x4x16xf32>
    %87 = "graph.view"(%86) <{size = array<i64: 2, 16, -1>}> {graph.node = 41 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x4x16xf32>) -> tensor<2x16x64xf32>
    %88 = "graph.t"(%4) {graph.node = 42 : i64, graph.phase = #graph.phase<forward>} : (tensor<64x64xf32>) -> tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>
    %89 = "graph.view"(%87) <{size = array<i64: 32, 64>}> {graph.node = 43 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %90 = "graph.mm"(%89, %88) {graph.node = 44 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<32x64xf32>
    %91 = "graph._unsafe_view"(%90) <{size = array<i64: 2, 16, 64>}> {graph.node = 45 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %92 = "graph.add.Tensor"(%21, %91) <{alpha = 1 : i64}> {graph.node = 46 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %93 = "graph.pow.Tensor_Scalar"(%92) <{exponent = 2 : i64}> {graph.node = 47 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %94 = "graph.mean.dim"(%93) <{dim = array<i64: -1>, keepdim = true}> {graph.node = 48 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x1xf32>
    %95 = "graph.add.Scalar"(%94) <{alpha = 1 : i64, other = 9.9999999999999995E-7 : f64}> {graph.node = 49 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %96 = "graph.rsqrt"(%95) {graph.node = 50 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %97 = "graph.mul.Tensor"(%92, %96) {graph.node = 51 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>, tensor<2x16x1xf32>) -> tensor<2x16x64xf32>
    %98 = "graph.mul.Tensor"(%9, %97) {graph.node = 52 : i64, graph.phase = #graph.phase<forward>} : (tensor<64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %99 = "graph.t"(%5) {graph.node = 53 : i64, graph.phase = #graph.phase<forward>} : (tensor<128x64xf32>) -> tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>
    %100 = "graph.view"(%98) <{size = array<i64: 32, 64>}> {graph.node = 54 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %101 = "graph.mm"(%100, %99) {graph.node = 55 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<32x128xf32>
    %102 = "graph._unsafe_view"(%101) <{size = array<i64: 2, 16, 128>}> {graph.node = 56 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x128xf32>) -> tensor<2x16x128xf32>
    %103 = "graph.silu"(%102) {graph.node = 57 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x128xf32>) -> tensor<2x16x128xf32>
    %104 = "graph.t"(%6) {graph.node = 58 : i64, graph.phase = #graph.phase<forward>} : (tensor<128x64xf32>) -> tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>
    %105 = "graph.view"(%98) <{size = array<i64: 32, 64>}> {graph.node = 59 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %106 = "graph.mm"(%105, %104) {graph.node = 60 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<32x128xf32>
    %107 = "graph._unsafe_view"(%106) <{size = array<i64: 2, 16, 128>}> {graph.node = 61 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x128xf32>) -> tensor<2x16x128xf32>
    %108 = "graph.mul.Tensor"(%103, %107) {graph.node = 62 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x128xf32>, tensor<2x16x128xf32>) -> tensor<2x16x128xf32>
    %109 = "graph.t"(%7) {graph.node = 63 : i64, graph.phase = #graph.phase<forward>} : (tensor<64x128xf32>) -> tensor<128x64xf32, #graph.layout<[1, 128], 0, 32768>>
    %110 = "graph.view"(%108) <{size = array<i64: 32, 128>}> {graph.node = 64 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x128xf32>) -> tensor<32x128xf32>
    %111 = "graph.mm"(%110, %109) {graph.node = 65 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x128xf32>, tensor<128x64xf32, #graph.layout<[1, 128], 0, 32768>>) -> tensor<32x64xf32>
    %112 = "graph._unsafe_view"(%111) <{size = array<i64: 2, 16, 64>}> {graph.node = 66 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %113 = "graph.add.Tensor"(%92, %112) <{alpha = 1 : i64}> {graph.node = 67 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %114 = "graph.pow.Tensor_Scalar"(%113) <{exponent = 2 : i64}> {graph.node = 68 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %115 = "graph.mean.dim"(%114) <{dim = array<i64: -1>, keepdim = true}> {graph.node = 69 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x1xf32>
    %116 = "graph.add.Scalar"(%115) <{alpha = 1 : i64, other = 9.9999999999999995E-7 : f64}> {graph.node = 70 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %117 = "graph.rsqrt"(%116) {graph.node = 71 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %118 = "graph.mul.Tensor"(%113, %117) {graph.node = 72 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>, tensor<2x16x1xf32>) -> tensor<2x16x64xf32>
    %119 = "graph.mul.Tensor"(%17, %118) {graph.node = 73 : i64, graph.phase = #graph.phase<forward>} : (tensor<64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %120 = "graph.t"(%10) {graph.node = 74 : i64, graph.phase = #graph.phase<forward>} : (tensor<64x64xf32>) -> tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>
    %121 = "graph.view"(%119) <{size = array<i64: 32, 64>}> {graph.node = 75 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %122 = "graph.mm"(%121, %120) {graph.node = 76 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<32x64xf32>
    %123 = "graph._unsafe_view"(%122) <{size = array<i64: 2, 16, 64>}> {graph.node = 77 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %124 = "graph.view"(%123) <{size = array<i64: 2, 16, -1, 16>}> {graph.node = 78 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x4x16xf32>
    %125 = "graph.transpose.int"(%124) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 79 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x4x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %126 = "graph.t"(%11) {graph.node = 80 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %127 = "graph.view"(%119) <{size = array<i64: 32, 64>}> {graph.node = 81 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %128 = "graph.mm"(%127, %126) {graph.node = 82 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x32xf32>
    %129 = "graph._unsafe_view"(%128) <{size = array<i64: 2, 16, 32>}> {graph.node = 83 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x32xf32>) -> tensor<2x16x32xf32>
    %130 = "graph.view"(%129) <{size = array<i64: 2, 16, -1, 16>}> {graph.node = 84 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x32xf32>) -> tensor<2x16x2x16xf32>
    %131 = "graph.transpose.int"(%130) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 85 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x2x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %132 = "graph.t"(%12) {graph.node = 86 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %133 = "graph.view"(%119) <{size = array<i64: 32, 64>}> {graph.node = 87 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %134 = "graph.mm"(%133, %132) {graph.node = 88 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x32xf32>
    %135 = "graph._unsafe_view"(%134) <{size = array<i64: 2, 16, 32>}> {graph.node = 89 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x32xf32>) -> tensor<2x16x32xf32>
    %136 = "graph.view"(%135) <{size = array<i64: 2, 16, -1, 16>}> {graph.node = 90 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x32xf32>) -> tensor<2x16x2x16xf32>
    %137 = "graph.transpose.int"(%136) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 91 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x2x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %138 = "graph.unsqueeze"(%42) <{dim = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<1x16x16xf32>) -> tensor<1x1x16x16xf32>
    %139 = "graph.unsqueeze"(%44) <{dim = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<1x16x16xf32>) -> tensor<1x1x16x16xf32>
    %140 = "graph.mul.Tensor"(%125, %138) {graph.node = 92 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<1x1x16x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %141 = "graph.slice.Tensor"(%125) <{dim = 3 : i64, end = 8 : i64, start = 0 : i64, step = 1 : i64}> {graph.node = 93 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %142 = "graph.slice.Tensor"(%125) <{dim = 3 : i64, end = 9223372036854775807 : i64, start = 8 : i64, step = 1 : i64}> {graph.node = 94 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 8, 8192>>
    %143 = "graph.neg"(%142) {graph.node = 95 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 8, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[512, 8, 32, 1], 0, 4096>>
    %144 = "graph.cat"(%143, %141) <{dim = -1 : i64}> {graph.node = 96 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x8xf32, #graph.layout<[512, 8, 32, 1], 0, 4096>>, tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x16xf32>
    %145 = "graph.mul.Tensor"(%144, %139) {graph.node = 97 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32>, tensor<1x1x16x16xf32>) -> tensor<2x4x16x16xf32>
    %146 = "graph.add.Tensor"(%140, %145) <{alpha = 1 : i64}> {graph.node = 98 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x4x16x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %147 = "graph.mul.Tensor"(%131, %138) {graph.node = 99 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<1x1x16x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %148 = "graph.slice.Tensor"(%131) <{dim = 3 : i64, end = 8 : i64, start = 0 : i64, step = 1 : i64}> {graph.node = 100 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %149 = "graph.slice.Tensor"(%131) <{dim = 3 : i64, end = 9223372036854775807 : i64, start = 8 : i64, step = 1 : i64}> {graph.node = 101 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 8, 4096>>
    %150 = "graph.neg"(%149) {graph.node = 102 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 8, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[256, 8, 16, 1], 0, 2048>>
    %151 = "graph.cat"(%150, %148) <{dim = -1 : i64}> {graph.node = 103 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x8xf32, #graph.layout<[256, 8, 16, 1], 0, 2048>>, tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x16xf32>
    %152 = "graph.mul.Tensor"(%151, %139) {graph.node = 104 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x16xf32>, tensor<1x1x16x16xf32>) -> tensor<2x2x16x16xf32>
    %153 = "graph.add.Tensor"(%147, %152) <{alpha = 1 : i64}> {graph.node = 105 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<2x2x16x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %154:2 = "graph._scaled_dot_product_flash_attention_for_cpu"(%146, %153, %137) <{dropout_p = 0.000000e+00 : f64, is_causal = true, scale = 2.500000e-01 : f64}> {graph.node = 106 : i64, graph.phase = #graph.phase<forward>, graph.rng_id = 1 : i64} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x4x16xf32, #graph.layout<[64, 1, 4], 0, 512>>)
    %155 = "graph.transpose.int"(%154#0) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 107 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x16x4x16xf32>
    %156 = "graph.view"(%155) <{size = array<i64: 2, 16, -1>}> {graph.node = 108 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x4x16xf32>) -> tensor<2x16x64xf32>
    %157 = "graph.t"(%13) {graph.node = 109 : i64, graph.phase = #graph.phase<forward>} : (tensor<64x64xf32>) -> tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>
    %158 = "graph.view"(%156) <{size = array<i64: 32, 64>}> {graph.node = 110 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %159 = "graph.mm"(%158, %157) {graph.node = 111 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<32x64xf32>
    %160 = "graph._unsafe_view"(%159) <{size = array<i64: 2, 16, 64>}> {graph.node = 112 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %161 = "graph.add.Tensor"(%113, %160) <{alpha = 1 : i64}> {graph.node = 113 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %162 = "graph.pow.Tensor_Scalar"(%161) <{exponent = 2 : i64}> {graph.node = 114 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %163 = "graph.mean.dim"(%162) <{dim = array<i64: -1>, keepdim = true}> {graph.node = 115 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x1xf32>
    %164 = "graph.add.Scalar"(%163) <{alpha = 1 : i64, other = 9.9999999999999995E-7 : f64}> {graph.node = 116 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %165 = "graph.rsqrt"(%164) {graph.node = 117 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %166 = "graph.mul.Tensor"(%161, %165) {graph.node = 118 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>, tensor<2x16x1xf32>) -> tensor<2x16x64xf32>
    %167 = "graph.mul.Tensor"(%18, %166) {graph.node = 119 : i64, graph.phase = #graph.phase<forward>} : (tensor<64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %168 = "graph.t"(%14) {graph.node = 120 : i64, graph.phase = #graph.phase<forward>} : (tensor<128x64xf32>) -> tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>
    %169 = "graph.view"(%167) <{size = array<i64: 32, 64>}> {graph.node = 121 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %170 = "graph.mm"(%169, %168) {graph.node = 122 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<32x128xf32>
    %171 = "graph._unsafe_view"(%170) <{size = array<i64: 2, 16, 128>}> {graph.node = 123 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x128xf32>) -> tensor<2x16x128xf32>
    %172 = "graph.silu"(%171) {graph.node = 124 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x128xf32>) -> tensor<2x16x128xf32>
    %173 = "graph.t"(%15) {graph.node = 125 : i64, graph.phase = #graph.phase<forward>} : (tensor<128x64xf32>) -> tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>
    %174 = "graph.view"(%167) <{size = array<i64: 32, 64>}> {graph.node = 126 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %175 = "graph.mm"(%174, %173) {graph.node = 127 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<32x128xf32>
    %176 = "graph._unsafe_view"(%175) <{size = array<i64: 2, 16, 128>}> {graph.node = 128 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x128xf32>) -> tensor<2x16x128xf32>
    %177 = "graph.mul.Tensor"(%172, %176) {graph.node = 129 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x128xf32>, tensor<2x16x128xf32>) -> tensor<2x16x128xf32>
    %178 = "graph.t"(%16) {graph.node = 130 : i64, graph.phase = #graph.phase<forward>} : (tensor<64x128xf32>) -> tensor<128x64xf32, #graph.layout<[1, 128], 0, 32768>>
    %179 = "graph.view"(%177) <{size = array<i64: 32, 128>}> {graph.node = 131 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x128xf32>) -> tensor<32x128xf32>
    %180 = "graph.mm"(%179, %178) {graph.node = 132 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x128xf32>, tensor<128x64xf32, #graph.layout<[1, 128], 0, 32768>>) -> tensor<32x64xf32>
    %181 = "graph._unsafe_view"(%180) <{size = array<i64: 2, 16, 64>}> {graph.node = 133 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %182 = "graph.add.Tensor"(%161, %181) <{alpha = 1 : i64}> {graph.node = 134 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %183 = "graph.pow.Tensor_Scalar"(%182) <{exponent = 2 : i64}> {graph.node = 135 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %184 = "graph.mean.dim"(%183) <{dim = array<i64: -1>, keepdim = true}> {graph.node = 136 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x1xf32>
    %185 = "graph.add.Scalar"(%184) <{alpha = 1 : i64, other = 9.9999999999999995E-7 : f64}> {graph.node = 137 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %186 = "graph.rsqrt"(%185) {graph.node = 138 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %187 = "graph.mul.Tensor"(%182, %186) {graph.node = 139 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>, tensor<2x16x1xf32>) -> tensor<2x16x64xf32>
    %188 = "graph.mul.Tensor"(%19, %187) {graph.node = 140 : i64, graph.phase = #graph.phase<forward>} : (tensor<64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %189 = "graph.alias"(%188) {graph.node = 141 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %190 = "graph.t"(%20) {graph.node = 142 : i64, graph.phase = #graph.phase<forward>} : (tensor<256x64xf32>) -> tensor<64x256xf32, #graph.layout<[1, 64], 0, 65536>>
    %191 = "graph.view"(%189) <{size = array<i64: 32, 64>}> {graph.node = 143 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %192 = "graph.mm"(%191, %190) {graph.node = 144 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x64xf32>, tensor<64x256xf32, #graph.layout<[1, 64], 0, 65536>>) -> tensor<32x256xf32>
    %193 = "graph._unsafe_view"(%192) <{size = array<i64: 2, 16, 256>}> {graph.node = 145 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x256xf32>) -> tensor<2x16x256xf32>
    %194 = "graph.constant_pad_nd"(%arg24) <{pad = array<i64: 0, 1>, value = -1.000000e+02 : f64}> {graph.phase = #graph.phase<forward>} : (tensor<2x16xi64>) -> tensor<2x17xi64>
    %195 = "graph.slice.Tensor"(%194) <{dim = 1 : i64, end = 9223372036854775807 : i64, start = 1 : i64, step = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<2x17xi64>) -> tensor<2x16xi64, #graph.layout<[17, 1], 1, 272>>
    %196 = "graph.clone"(%195) <{memory_format = "contiguous"}> {graph.phase = #graph.phase<forward>} : (tensor<2x16xi64, #graph.layout<[17, 1], 1, 272>>) -> tensor<2x16xi64>
    %197 = "graph.view"(%193) <{size = array<i64: -1, 256>}> {graph.node = 146 : i64, graph.phase = #graph.phase<forward>} : (tensor<2x16x256xf32>) -> tensor<32x256xf32>
    %198 = "graph.view"(%196) <{size = array<i64: -1>}> {graph.phase = #graph.phase<forward>} : (tensor<2x16xi64>) -> tensor<32xi64>
    %199 = "graph._log_softmax"(%197) <{dim = 1 : i64, half_to_float = false}> {graph.node = 147 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x256xf32>) -> tensor<32x256xf32>
    %200:2 = "graph.nll_loss_forward"(%199, %198) <{ignore_index = -100 : i64, reduction = 1 : i64}> {graph.node = 148 : i64, graph.phase = #graph.phase<forward>} : (tensor<32x256xf32>, tensor<32xi64>) -> (tensor<f32>, tensor<f32>)
    %201 = "graph.detach"(%200#0) {graph.phase = #graph.phase<forward>} : (tensor<f32>) -> tensor<f32>
    %202 = "graph.ones_like"(%201) <{memory_format = "preserve", pin_memory = false}> {graph.phase = #graph.phase<backward>} : (tensor<f32>) -> tensor<f32>
    %203 = "graph.nll_loss_backward"(%202, %199, %198, %200#1) <{ignore_index = -100 : i64, reduction = 1 : i64}> {graph.node = 148 : i64, graph.phase = #graph.phase<backward>} : (tensor<f32>, tensor<32x256xf32>, tensor<32xi64>, tensor<f32>) -> tensor<32x256xf32>
    %204 = "graph._log_softmax_backward_data"(%203, %199) <{dim = 1 : i64, input_dtype = f32}> {graph.node = 147 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x256xf32>, tensor<32x256xf32>) -> tensor<32x256xf32>
    %205 = "graph.view"(%204) <{size = array<i64: 2, 16, 256>}> {graph.node = 146 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x256xf32>) -> tensor<2x16x256xf32>
    %206 = "graph.view"(%205) <{size = array<i64: 32, 256>}> {graph.node = 145 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x256xf32>) -> tensor<32x256xf32>
    %207 = "graph.t"(%206) {graph.node = 144 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x256xf32>) -> tensor<256x32xf32, #graph.layout<[1, 256], 0, 32768>>
    %208 = "graph.mm"(%207, %191) {graph.node = 144 : i64, graph.phase = #graph.phase<backward>} : (tensor<256x32xf32, #graph.layout<[1, 256], 0, 32768>>, tensor<32x64xf32>) -> tensor<256x64xf32>
    %209 = "graph.t"(%208) {graph.node = 144 : i64, graph.phase = #graph.phase<backward>} : (tensor<256x64xf32>) -> tensor<64x256xf32, #graph.layout<[1, 64], 0, 65536>>
    %210 = "graph.t"(%190) {graph.node = 144 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x256xf32, #graph.layout<[1, 64], 0, 65536>>) -> tensor<256x64xf32>
    %211 = "graph.mm"(%206, %210) {graph.node = 144 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x256xf32>, tensor<256x64xf32>) -> tensor<32x64xf32>
    %212 = "graph.view"(%211) <{size = array<i64: 2, 16, 64>}> {graph.node = 143 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %213 = "graph.t"(%209) {graph.node = 142 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x256xf32, #graph.layout<[1, 64], 0, 65536>>) -> tensor<256x64xf32>
    %214 = "graph.detach"(%213) {graph.phase = #graph.phase<backward>} : (tensor<256x64xf32>) -> tensor<256x64xf32>
    %215 = "graph.mul.Tensor"(%212, %19) {graph.node = 140 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<64xf32>) -> tensor<2x16x64xf32>
    %216 = "graph.mul.Tensor"(%212, %187) {graph.node = 140 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %217 = "graph.sum.dim_IntList"(%216) <{dim = array<i64: 0, 1>, keepdim = true}> {graph.node = 140 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<1x1x64xf32>
    %218 = "graph.view"(%217) <{size = array<i64: 64>}> {graph.node = 140 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x1x64xf32>) -> tensor<64xf32>
    %219 = "graph.detach"(%218) {graph.phase = #graph.phase<backward>} : (tensor<64xf32>) -> tensor<64xf32>
    %220 = "graph.mul.Tensor"(%215, %182) {graph.node = 139 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %221 = "graph.mul.Tensor"(%215, %186) {graph.node = 139 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x1xf32>) -> tensor<2x16x64xf32>
    %222 = "graph.sum.dim_IntList"(%220) <{dim = array<i64: 2>, keepdim = true}> {graph.node = 139 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x1xf32>
    %223 = "graph.pow.Tensor_Scalar"(%186) <{exponent = 3 : i64}> {graph.node = 138 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %224 = "graph.mul.Scalar"(%222) <{other = -5.000000e-01 : f64}> {graph.node = 138 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %225 = "graph.mul.Tensor"(%224, %223) {graph.node = 138 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>, tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %226 = "graph.expand"(%225) <{implicit = false, size = array<i64: 2, 16, 64>}> {graph.node = 136 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x64xf32, #graph.layout<[16, 1, 0], 0, 128>>
    %227 = "graph.div.Scalar"(%226) <{other = 64 : i64}> {graph.node = 136 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32, #graph.layout<[16, 1, 0], 0, 128>>) -> tensor<2x16x64xf32>
    %228 = "graph.pow.Tensor_Scalar"(%182) <{exponent = 1.000000e+00 : f64}> {graph.node = 135 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %229 = "graph.mul.Scalar"(%228) <{other = 2.000000e+00 : f64}> {graph.node = 135 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %230 = "graph.mul.Tensor"(%227, %229) {graph.node = 135 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %231 = "graph.add.Tensor"(%221, %230) <{alpha = 1 : i64}> {graph.node = 135 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %232 = "graph.view"(%231) <{size = array<i64: 32, 64>}> {graph.node = 133 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %233 = "graph.t"(%232) {graph.node = 132 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %234 = "graph.mm"(%233, %179) {graph.node = 132 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>, tensor<32x128xf32>) -> tensor<64x128xf32>
    %235 = "graph.t"(%234) {graph.node = 132 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x128xf32>) -> tensor<128x64xf32, #graph.layout<[1, 128], 0, 32768>>
    %236 = "graph.t"(%178) {graph.node = 132 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x64xf32, #graph.layout<[1, 128], 0, 32768>>) -> tensor<64x128xf32>
    %237 = "graph.mm"(%232, %236) {graph.node = 132 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>, tensor<64x128xf32>) -> tensor<32x128xf32>
    %238 = "graph.view"(%237) <{size = array<i64: 2, 16, 128>}> {graph.node = 131 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x128xf32>) -> tensor<2x16x128xf32>
    %239 = "graph.t"(%235) {graph.node = 130 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x64xf32, #graph.layout<[1, 128], 0, 32768>>) -> tensor<64x128xf32>
    %240 = "graph.detach"(%239) {graph.phase = #graph.phase<backward>} : (tensor<64x128xf32>) -> tensor<64x128xf32>
    %241 = "graph.mul.Tensor"(%238, %172) {graph.node = 129 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x128xf32>, tensor<2x16x128xf32>) -> tensor<2x16x128xf32>
    %242 = "graph.mul.Tensor"(%238, %176) {graph.node = 129 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x128xf32>, tensor<2x16x128xf32>) -> tensor<2x16x128xf32>
    %243 = "graph.view"(%241) <{size = array<i64: 32, 128>}> {graph.node = 128 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x128xf32>) -> tensor<32x128xf32>
    %244 = "graph.t"(%243) {graph.node = 127 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x128xf32>) -> tensor<128x32xf32, #graph.layout<[1, 128], 0, 16384>>
    %245 = "graph.mm"(%244, %174) {graph.node = 127 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x32xf32, #graph.layout<[1, 128], 0, 16384>>, tensor<32x64xf32>) -> tensor<128x64xf32>
    %246 = "graph.t"(%245) {graph.node = 127 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x64xf32>) -> tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>
    %247 = "graph.t"(%173) {graph.node = 127 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<128x64xf32>
    %248 = "graph.mm"(%243, %247) {graph.node = 127 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x128xf32>, tensor<128x64xf32>) -> tensor<32x64xf32>
    %249 = "graph.view"(%248) <{size = array<i64: 2, 16, 64>}> {graph.node = 126 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %250 = "graph.t"(%246) {graph.node = 125 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<128x64xf32>
    %251 = "graph.detach"(%250) {graph.phase = #graph.phase<backward>} : (tensor<128x64xf32>) -> tensor<128x64xf32>
    %252 = "graph.silu_backward"(%242, %171) {graph.node = 124 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x128xf32>, tensor<2x16x128xf32>) -> tensor<2x16x128xf32>
    %253 = "graph.view"(%252) <{size = array<i64: 32, 128>}> {graph.node = 123 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x128xf32>) -> tensor<32x128xf32>
    %254 = "graph.t"(%253) {graph.node = 122 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x128xf32>) -> tensor<128x32xf32, #graph.layout<[1, 128], 0, 16384>>
    %255 = "graph.mm"(%254, %174) {graph.node = 122 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x32xf32, #graph.layout<[1, 128], 0, 16384>>, tensor<32x64xf32>) -> tensor<128x64xf32>
    %256 = "graph.t"(%255) {graph.node = 122 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x64xf32>) -> tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>
    %257 = "graph.t"(%168) {graph.node = 122 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<128x64xf32>
    %258 = "graph.mm"(%253, %257) {graph.node = 122 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x128xf32>, tensor<128x64xf32>) -> tensor<32x64xf32>
    %259 = "graph.view"(%258) <{size = array<i64: 2, 16, 64>}> {graph.node = 121 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %260 = "graph.add.Tensor"(%249, %259) <{alpha = 1 : i64}> {graph.node = 121 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %261 = "graph.t"(%256) {graph.node = 120 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<128x64xf32>
    %262 = "graph.detach"(%261) {graph.phase = #graph.phase<backward>} : (tensor<128x64xf32>) -> tensor<128x64xf32>
    %263 = "graph.mul.Tensor"(%260, %18) {graph.node = 119 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<64xf32>) -> tensor<2x16x64xf32>
    %264 = "graph.mul.Tensor"(%260, %166) {graph.node = 119 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %265 = "graph.sum.dim_IntList"(%264) <{dim = array<i64: 0, 1>, keepdim = true}> {graph.node = 119 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<1x1x64xf32>
    %266 = "graph.view"(%265) <{size = array<i64: 64>}> {graph.node = 119 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x1x64xf32>) -> tensor<64xf32>
    %267 = "graph.detach"(%266) {graph.phase = #graph.phase<backward>} : (tensor<64xf32>) -> tensor<64xf32>
    %268 = "graph.mul.Tensor"(%263, %161) {graph.node = 118 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %269 = "graph.mul.Tensor"(%263, %165) {graph.node = 118 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x1xf32>) -> tensor<2x16x64xf32>
    %270 = "graph.sum.dim_IntList"(%268) <{dim = array<i64: 2>, keepdim = true}> {graph.node = 118 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x1xf32>
    %271 = "graph.add.Tensor"(%231, %269) <{alpha = 1 : i64}> {graph.node = 118 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %272 = "graph.pow.Tensor_Scalar"(%165) <{exponent = 3 : i64}> {graph.node = 117 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %273 = "graph.mul.Scalar"(%270) <{other = -5.000000e-01 : f64}> {graph.node = 117 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %274 = "graph.mul.Tensor"(%273, %272) {graph.node = 117 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>, tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %275 = "graph.expand"(%274) <{implicit = false, size = array<i64: 2, 16, 64>}> {graph.node = 115 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x64xf32, #graph.layout<[16, 1, 0], 0, 128>>
    %276 = "graph.div.Scalar"(%275) <{other = 64 : i64}> {graph.node = 115 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32, #graph.layout<[16, 1, 0], 0, 128>>) -> tensor<2x16x64xf32>
    %277 = "graph.pow.Tensor_Scalar"(%161) <{exponent = 1.000000e+00 : f64}> {graph.node = 114 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %278 = "graph.mul.Scalar"(%277) <{other = 2.000000e+00 : f64}> {graph.node = 114 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %279 = "graph.mul.Tensor"(%276, %278) {graph.node = 114 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %280 = "graph.add.Tensor"(%271, %279) <{alpha = 1 : i64}> {graph.node = 114 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %281 = "graph.view"(%280) <{size = array<i64: 32, 64>}> {graph.node = 112 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %282 = "graph.t"(%281) {graph.node = 111 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %283 = "graph.mm"(%282, %158) {graph.node = 111 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>, tensor<32x64xf32>) -> tensor<64x64xf32>
    %284 = "graph.t"(%283) {graph.node = 111 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32>) -> tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>
    %285 = "graph.t"(%157) {graph.node = 111 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<64x64xf32>
    %286 = "graph.mm"(%281, %285) {graph.node = 111 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>, tensor<64x64xf32>) -> tensor<32x64xf32>
    %287 = "graph.view"(%286) <{size = array<i64: 2, 16, 64>}> {graph.node = 110 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %288 = "graph.t"(%284) {graph.node = 109 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<64x64xf32>
    %289 = "graph.detach"(%288) {graph.phase = #graph.phase<backward>} : (tensor<64x64xf32>) -> tensor<64x64xf32>
    %290 = "graph.view"(%287) <{size = array<i64: 2, 16, 4, 16>}> {graph.node = 108 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x4x16xf32>
    %291 = "graph.transpose.int"(%290) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 107 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x4x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %292:3 = "graph._scaled_dot_product_flash_attention_for_cpu_backward"(%291, %146, %153, %137, %154#0, %154#1) <{dropout_p = 0.000000e+00 : f64, is_causal = true, scale = 2.500000e-01 : f64}> {graph.node = 106 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x4x16xf32, #graph.layout<[64, 1, 4], 0, 512>>) -> (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>)
    %293 = "graph.mul.Tensor"(%292#1, %139) {graph.node = 104 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<1x1x16x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %294 = "graph.slice.Tensor"(%293) <{dim = 3 : i64, end = 8 : i64, start = 0 : i64, step = 1 : i64}> {graph.node = 103 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %295 = "graph.slice.Tensor"(%293) <{dim = 3 : i64, end = 16 : i64, start = 8 : i64, step = 1 : i64}> {graph.node = 103 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 8, 4096>>
    %296 = "graph.neg"(%294) {graph.node = 102 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[256, 8, 16, 1], 0, 2048>>
    %297 = "graph.slice_backward"(%296) <{dim = 3 : i64, end = 9223372036854775807 : i64, input_sizes = array<i64: 2, 2, 16, 16>, start = 8 : i64, step = 1 : i64}> {graph.node = 101 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x8xf32, #graph.layout<[256, 8, 16, 1], 0, 2048>>) -> tensor<2x2x16x16xf32>
    %298 = "graph.slice_backward"(%295) <{dim = 3 : i64, end = 8 : i64, input_sizes = array<i64: 2, 2, 16, 16>, start = 0 : i64, step = 1 : i64}> {graph.node = 100 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 8, 4096>>) -> tensor<2x2x16x16xf32>
    %299 = "graph.add.Tensor"(%297, %298) <{alpha = 1 : i64}> {graph.node = 100 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32>, tensor<2x2x16x16xf32>) -> tensor<2x2x16x16xf32>
    %300 = "graph.mul.Tensor"(%292#1, %138) {graph.node = 99 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<1x1x16x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %301 = "graph.add.Tensor"(%299, %300) <{alpha = 1 : i64}> {graph.node = 99 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x16xf32>
    %302 = "graph.mul.Tensor"(%292#0, %139) {graph.node = 97 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<1x1x16x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %303 = "graph.slice.Tensor"(%302) <{dim = 3 : i64, end = 8 : i64, start = 0 : i64, step = 1 : i64}> {graph.node = 96 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %304 = "graph.slice.Tensor"(%302) <{dim = 3 : i64, end = 16 : i64, start = 8 : i64, step = 1 : i64}> {graph.node = 96 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 8, 8192>>
    %305 = "graph.neg"(%303) {graph.node = 95 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[512, 8, 32, 1], 0, 4096>>
    %306 = "graph.slice_backward"(%305) <{dim = 3 : i64, end = 9223372036854775807 : i64, input_sizes = array<i64: 2, 4, 16, 16>, start = 8 : i64, step = 1 : i64}> {graph.node = 94 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x8xf32, #graph.layout<[512, 8, 32, 1], 0, 4096>>) -> tensor<2x4x16x16xf32>
    %307 = "graph.slice_backward"(%304) <{dim = 3 : i64, end = 8 : i64, input_sizes = array<i64: 2, 4, 16, 16>, start = 0 : i64, step = 1 : i64}> {graph.node = 93 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 8, 8192>>) -> tensor<2x4x16x16xf32>
    %308 = "graph.add.Tensor"(%306, %307) <{alpha = 1 : i64}> {graph.node = 93 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32>, tensor<2x4x16x16xf32>) -> tensor<2x4x16x16xf32>
    %309 = "graph.mul.Tensor"(%292#0, %138) {graph.node = 92 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<1x1x16x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %310 = "graph.add.Tensor"(%308, %309) <{alpha = 1 : i64}> {graph.node = 92 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32>, tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x16xf32>
    %311 = "graph.transpose.int"(%292#2) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 91 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x16x2x16xf32>
    %312 = "graph.view"(%311) <{size = array<i64: 2, 16, 32>}> {graph.node = 90 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x2x16xf32>) -> tensor<2x16x32xf32>
    %313 = "graph.view"(%312) <{size = array<i64: 32, 32>}> {graph.node = 89 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x32xf32>) -> tensor<32x32xf32>
    %314 = "graph.t"(%313) {graph.node = 88 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32>) -> tensor<32x32xf32, #graph.layout<[1, 32], 0, 4096>>
    %315 = "graph.mm"(%314, %133) {graph.node = 88 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32, #graph.layout<[1, 32], 0, 4096>>, tensor<32x64xf32>) -> tensor<32x64xf32>
    %316 = "graph.t"(%315) {graph.node = 88 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %317 = "graph.t"(%132) {graph.node = 88 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x64xf32>
    %318 = "graph.mm"(%313, %317) {graph.node = 88 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32>, tensor<32x64xf32>) -> tensor<32x64xf32>
    %319 = "graph.view"(%318) <{size = array<i64: 2, 16, 64>}> {graph.node = 87 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %320 = "graph.t"(%316) {graph.node = 86 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x64xf32>
    %321 = "graph.detach"(%320) {graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<32x64xf32>
    %322 = "graph.transpose.int"(%301) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 85 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32>) -> tensor<2x16x2x16xf32, #graph.layout<[512, 16, 256, 1], 0, 4096>>
    %323 = "graph.clone"(%322) <{memory_format = "contiguous"}> {graph.node = 84 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x2x16xf32, #graph.layout<[512, 16, 256, 1], 0, 4096>>) -> tensor<2x16x2x16xf32>
    %324 = "graph._unsafe_view"(%323) <{size = array<i64: 2, 16, 32>}> {graph.node = 84 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x2x16xf32>) -> tensor<2x16x32xf32>
    %325 = "graph.view"(%324) <{size = array<i64: 32, 32>}> {graph.node = 83 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x32xf32>) -> tensor<32x32xf32>
    %326 = "graph.t"(%325) {graph.node = 82 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32>) -> tensor<32x32xf32, #graph.layout<[1, 32], 0, 4096>>
    %327 = "graph.mm"(%326, %133) {graph.node = 82 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32, #graph.layout<[1, 32], 0, 4096>>, tensor<32x64xf32>) -> tensor<32x64xf32>
    %328 = "graph.t"(%327) {graph.node = 82 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %329 = "graph.t"(%126) {graph.node = 82 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x64xf32>
    %330 = "graph.mm"(%325, %329) {graph.node = 82 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32>, tensor<32x64xf32>) -> tensor<32x64xf32>
    %331 = "graph.view"(%330) <{size = array<i64: 2, 16, 64>}> {graph.node = 81 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %332 = "graph.add.Tensor"(%319, %331) <{alpha = 1 : i64}> {graph.node = 81 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %333 = "graph.t"(%328) {graph.node = 80 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x64xf32>
    %334 = "graph.detach"(%333) {graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<32x64xf32>
    %335 = "graph.transpose.int"(%310) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 79 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32>) -> tensor<2x16x4x16xf32, #graph.layout<[1024, 16, 256, 1], 0, 8192>>
    %336 = "graph.clone"(%335) <{memory_format = "contiguous"}> {graph.node = 78 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x4x16xf32, #graph.layout<[1024, 16, 256, 1], 0, 8192>>) -> tensor<2x16x4x16xf32>
    %337 = "graph._unsafe_view"(%336) <{size = array<i64: 2, 16, 64>}> {graph.node = 78 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x4x16xf32>) -> tensor<2x16x64xf32>
    %338 = "graph.view"(%337) <{size = array<i64: 32, 64>}> {graph.node = 77 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %339 = "graph.t"(%338) {graph.node = 76 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %340 = "graph.mm"(%339, %133) {graph.node = 76 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>, tensor<32x64xf32>) -> tensor<64x64xf32>
    %341 = "graph.t"(%340) {graph.node = 76 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32>) -> tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>
    %342 = "graph.t"(%120) {graph.node = 76 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<64x64xf32>
    %343 = "graph.mm"(%338, %342) {graph.node = 76 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>, tensor<64x64xf32>) -> tensor<32x64xf32>
    %344 = "graph.view"(%343) <{size = array<i64: 2, 16, 64>}> {graph.node = 75 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %345 = "graph.add.Tensor"(%332, %344) <{alpha = 1 : i64}> {graph.node = 75 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %346 = "graph.t"(%341) {graph.node = 74 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<64x64xf32>
    %347 = "graph.detach"(%346) {graph.phase = #graph.phase<backward>} : (tensor<64x64xf32>) -> tensor<64x64xf32>
    %348 = "graph.mul.Tensor"(%345, %17) {graph.node = 73 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<64xf32>) -> tensor<2x16x64xf32>
    %349 = "graph.mul.Tensor"(%345, %118) {graph.node = 73 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %350 = "graph.sum.dim_IntList"(%349) <{dim = array<i64: 0, 1>, keepdim = true}> {graph.node = 73 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<1x1x64xf32>
    %351 = "graph.view"(%350) <{size = array<i64: 64>}> {graph.node = 73 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x1x64xf32>) -> tensor<64xf32>
    %352 = "graph.detach"(%351) {graph.phase = #graph.phase<backward>} : (tensor<64xf32>) -> tensor<64xf32>
    %353 = "graph.mul.Tensor"(%348, %113) {graph.node = 72 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %354 = "graph.mul.Tensor"(%348, %117) {graph.node = 72 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x1xf32>) -> tensor<2x16x64xf32>
    %355 = "graph.sum.dim_IntList"(%353) <{dim = array<i64: 2>, keepdim = true}> {graph.node = 72 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x1xf32>
    %356 = "graph.add.Tensor"(%280, %354) <{alpha = 1 : i64}> {graph.node = 72 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %357 = "graph.pow.Tensor_Scalar"(%117) <{exponent = 3 : i64}> {graph.node = 71 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %358 = "graph.mul.Scalar"(%355) <{other = -5.000000e-01 : f64}> {graph.node = 71 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %359 = "graph.mul.Tensor"(%358, %357) {graph.node = 71 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>, tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %360 = "graph.expand"(%359) <{implicit = false, size = array<i64: 2, 16, 64>}> {graph.node = 69 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x64xf32, #graph.layout<[16, 1, 0], 0, 128>>
    %361 = "graph.div.Scalar"(%360) <{other = 64 : i64}> {graph.node = 69 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32, #graph.layout<[16, 1, 0], 0, 128>>) -> tensor<2x16x64xf32>
    %362 = "graph.pow.Tensor_Scalar"(%113) <{exponent = 1.000000e+00 : f64}> {graph.node = 68 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %363 = "graph.mul.Scalar"(%362) <{other = 2.000000e+00 : f64}> {graph.node = 68 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %364 = "graph.mul.Tensor"(%361, %363) {graph.node = 68 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %365 = "graph.add.Tensor"(%356, %364) <{alpha = 1 : i64}> {graph.node = 68 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %366 = "graph.view"(%365) <{size = array<i64: 32, 64>}> {graph.node = 66 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %367 = "graph.t"(%366) {graph.node = 65 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %368 = "graph.mm"(%367, %110) {graph.node = 65 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>, tensor<32x128xf32>) -> tensor<64x128xf32>
    %369 = "graph.t"(%368) {graph.node = 65 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x128xf32>) -> tensor<128x64xf32, #graph.layout<[1, 128], 0, 32768>>
    %370 = "graph.t"(%109) {graph.node = 65 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x64xf32, #graph.layout<[1, 128], 0, 32768>>) -> tensor<64x128xf32>
    %371 = "graph.mm"(%366, %370) {graph.node = 65 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>, tensor<64x128xf32>) -> tensor<32x128xf32>
    %372 = "graph.view"(%371) <{size = array<i64: 2, 16, 128>}> {graph.node = 64 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x128xf32>) -> tensor<2x16x128xf32>
    %373 = "graph.t"(%369) {graph.node = 63 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x64xf32, #graph.layout<[1, 128], 0, 32768>>) -> tensor<64x128xf32>
    %374 = "graph.detach"(%373) {graph.phase = #graph.phase<backward>} : (tensor<64x128xf32>) -> tensor<64x128xf32>
    %375 = "graph.mul.Tensor"(%372, %103) {graph.node = 62 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x128xf32>, tensor<2x16x128xf32>) -> tensor<2x16x128xf32>
    %376 = "graph.mul.Tensor"(%372, %107) {graph.node = 62 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x128xf32>, tensor<2x16x128xf32>) -> tensor<2x16x128xf32>
    %377 = "graph.view"(%375) <{size = array<i64: 32, 128>}> {graph.node = 61 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x128xf32>) -> tensor<32x128xf32>
    %378 = "graph.t"(%377) {graph.node = 60 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x128xf32>) -> tensor<128x32xf32, #graph.layout<[1, 128], 0, 16384>>
    %379 = "graph.mm"(%378, %105) {graph.node = 60 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x32xf32, #graph.layout<[1, 128], 0, 16384>>, tensor<32x64xf32>) -> tensor<128x64xf32>
    %380 = "graph.t"(%379) {graph.node = 60 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x64xf32>) -> tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>
    %381 = "graph.t"(%104) {graph.node = 60 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<128x64xf32>
    %382 = "graph.mm"(%377, %381) {graph.node = 60 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x128xf32>, tensor<128x64xf32>) -> tensor<32x64xf32>
    %383 = "graph.view"(%382) <{size = array<i64: 2, 16, 64>}> {graph.node = 59 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %384 = "graph.t"(%380) {graph.node = 58 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<128x64xf32>
    %385 = "graph.detach"(%384) {graph.phase = #graph.phase<backward>} : (tensor<128x64xf32>) -> tensor<128x64xf32>
    %386 = "graph.silu_backward"(%376, %102) {graph.node = 57 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x128xf32>, tensor<2x16x128xf32>) -> tensor<2x16x128xf32>
    %387 = "graph.view"(%386) <{size = array<i64: 32, 128>}> {graph.node = 56 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x128xf32>) -> tensor<32x128xf32>
    %388 = "graph.t"(%387) {graph.node = 55 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x128xf32>) -> tensor<128x32xf32, #graph.layout<[1, 128], 0, 16384>>
    %389 = "graph.mm"(%388, %105) {graph.node = 55 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x32xf32, #graph.layout<[1, 128], 0, 16384>>, tensor<32x64xf32>) -> tensor<128x64xf32>
    %390 = "graph.t"(%389) {graph.node = 55 : i64, graph.phase = #graph.phase<backward>} : (tensor<128x64xf32>) -> tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>
    %391 = "graph.t"(%99) {graph.node = 55 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<128x64xf32>
    %392 = "graph.mm"(%387, %391) {graph.node = 55 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x128xf32>, tensor<128x64xf32>) -> tensor<32x64xf32>
    %393 = "graph.view"(%392) <{size = array<i64: 2, 16, 64>}> {graph.node = 54 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %394 = "graph.add.Tensor"(%383, %393) <{alpha = 1 : i64}> {graph.node = 54 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %395 = "graph.t"(%390) {graph.node = 53 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x128xf32, #graph.layout<[1, 64], 0, 32768>>) -> tensor<128x64xf32>
    %396 = "graph.detach"(%395) {graph.phase = #graph.phase<backward>} : (tensor<128x64xf32>) -> tensor<128x64xf32>
    %397 = "graph.mul.Tensor"(%394, %9) {graph.node = 52 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<64xf32>) -> tensor<2x16x64xf32>
    %398 = "graph.mul.Tensor"(%394, %97) {graph.node = 52 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %399 = "graph.sum.dim_IntList"(%398) <{dim = array<i64: 0, 1>, keepdim = true}> {graph.node = 52 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<1x1x64xf32>
    %400 = "graph.view"(%399) <{size = array<i64: 64>}> {graph.node = 52 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x1x64xf32>) -> tensor<64xf32>
    %401 = "graph.detach"(%400) {graph.phase = #graph.phase<backward>} : (tensor<64xf32>) -> tensor<64xf32>
    %402 = "graph.mul.Tensor"(%397, %92) {graph.node = 51 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %403 = "graph.mul.Tensor"(%397, %96) {graph.node = 51 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x1xf32>) -> tensor<2x16x64xf32>
    %404 = "graph.sum.dim_IntList"(%402) <{dim = array<i64: 2>, keepdim = true}> {graph.node = 51 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x1xf32>
    %405 = "graph.add.Tensor"(%365, %403) <{alpha = 1 : i64}> {graph.node = 51 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %406 = "graph.pow.Tensor_Scalar"(%96) <{exponent = 3 : i64}> {graph.node = 50 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %407 = "graph.mul.Scalar"(%404) <{other = -5.000000e-01 : f64}> {graph.node = 50 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %408 = "graph.mul.Tensor"(%407, %406) {graph.node = 50 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>, tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %409 = "graph.expand"(%408) <{implicit = false, size = array<i64: 2, 16, 64>}> {graph.node = 48 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x64xf32, #graph.layout<[16, 1, 0], 0, 128>>
    %410 = "graph.div.Scalar"(%409) <{other = 64 : i64}> {graph.node = 48 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32, #graph.layout<[16, 1, 0], 0, 128>>) -> tensor<2x16x64xf32>
    %411 = "graph.pow.Tensor_Scalar"(%92) <{exponent = 1.000000e+00 : f64}> {graph.node = 47 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %412 = "graph.mul.Scalar"(%411) <{other = 2.000000e+00 : f64}> {graph.node = 47 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %413 = "graph.mul.Tensor"(%410, %412) {graph.node = 47 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %414 = "graph.add.Tensor"(%405, %413) <{alpha = 1 : i64}> {graph.node = 47 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %415 = "graph.view"(%414) <{size = array<i64: 32, 64>}> {graph.node = 45 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %416 = "graph.t"(%415) {graph.node = 44 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %417 = "graph.mm"(%416, %89) {graph.node = 44 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>, tensor<32x64xf32>) -> tensor<64x64xf32>
    %418 = "graph.t"(%417) {graph.node = 44 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32>) -> tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>
    %419 = "graph.t"(%88) {graph.node = 44 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<64x64xf32>
    %420 = "graph.mm"(%415, %419) {graph.node = 44 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>, tensor<64x64xf32>) -> tensor<32x64xf32>
    %421 = "graph.view"(%420) <{size = array<i64: 2, 16, 64>}> {graph.node = 43 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %422 = "graph.t"(%418) {graph.node = 42 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<64x64xf32>
    %423 = "graph.detach"(%422) {graph.phase = #graph.phase<backward>} : (tensor<64x64xf32>) -> tensor<64x64xf32>
    %424 = "graph.view"(%421) <{size = array<i64: 2, 16, 4, 16>}> {graph.node = 41 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x4x16xf32>
    %425 = "graph.transpose.int"(%424) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 40 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x4x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %426:3 = "graph._scaled_dot_product_flash_attention_for_cpu_backward"(%425, %77, %84, %68, %85#0, %85#1) <{dropout_p = 0.000000e+00 : f64, is_causal = true, scale = 2.500000e-01 : f64}> {graph.node = 39 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x4x16xf32, #graph.layout<[64, 1, 4], 0, 512>>) -> (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>)
    %427 = "graph.mul.Tensor"(%426#1, %139) {graph.node = 37 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<1x1x16x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %428 = "graph.slice.Tensor"(%427) <{dim = 3 : i64, end = 8 : i64, start = 0 : i64, step = 1 : i64}> {graph.node = 36 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %429 = "graph.slice.Tensor"(%427) <{dim = 3 : i64, end = 16 : i64, start = 8 : i64, step = 1 : i64}> {graph.node = 36 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 8, 4096>>
    %430 = "graph.neg"(%428) {graph.node = 35 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x8xf32, #graph.layout<[256, 8, 16, 1], 0, 2048>>
    %431 = "graph.slice_backward"(%430) <{dim = 3 : i64, end = 9223372036854775807 : i64, input_sizes = array<i64: 2, 2, 16, 16>, start = 8 : i64, step = 1 : i64}> {graph.node = 34 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x8xf32, #graph.layout<[256, 8, 16, 1], 0, 2048>>) -> tensor<2x2x16x16xf32>
    %432 = "graph.slice_backward"(%429) <{dim = 3 : i64, end = 8 : i64, input_sizes = array<i64: 2, 2, 16, 16>, start = 0 : i64, step = 1 : i64}> {graph.node = 33 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x8xf32, #graph.layout<[512, 16, 32, 1], 8, 4096>>) -> tensor<2x2x16x16xf32>
    %433 = "graph.add.Tensor"(%431, %432) <{alpha = 1 : i64}> {graph.node = 33 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32>, tensor<2x2x16x16xf32>) -> tensor<2x2x16x16xf32>
    %434 = "graph.mul.Tensor"(%426#1, %138) {graph.node = 32 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>, tensor<1x1x16x16xf32>) -> tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>
    %435 = "graph.add.Tensor"(%433, %434) <{alpha = 1 : i64}> {graph.node = 32 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32>, tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x2x16x16xf32>
    %436 = "graph.mul.Tensor"(%426#0, %139) {graph.node = 30 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<1x1x16x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %437 = "graph.slice.Tensor"(%436) <{dim = 3 : i64, end = 8 : i64, start = 0 : i64, step = 1 : i64}> {graph.node = 29 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %438 = "graph.slice.Tensor"(%436) <{dim = 3 : i64, end = 16 : i64, start = 8 : i64, step = 1 : i64}> {graph.node = 29 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 8, 8192>>
    %439 = "graph.neg"(%437) {graph.node = 28 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x8xf32, #graph.layout<[512, 8, 32, 1], 0, 4096>>
    %440 = "graph.slice_backward"(%439) <{dim = 3 : i64, end = 9223372036854775807 : i64, input_sizes = array<i64: 2, 4, 16, 16>, start = 8 : i64, step = 1 : i64}> {graph.node = 27 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x8xf32, #graph.layout<[512, 8, 32, 1], 0, 4096>>) -> tensor<2x4x16x16xf32>
    %441 = "graph.slice_backward"(%438) <{dim = 3 : i64, end = 8 : i64, input_sizes = array<i64: 2, 4, 16, 16>, start = 0 : i64, step = 1 : i64}> {graph.node = 26 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x8xf32, #graph.layout<[1024, 16, 64, 1], 8, 8192>>) -> tensor<2x4x16x16xf32>
    %442 = "graph.add.Tensor"(%440, %441) <{alpha = 1 : i64}> {graph.node = 26 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32>, tensor<2x4x16x16xf32>) -> tensor<2x4x16x16xf32>
    %443 = "graph.mul.Tensor"(%426#0, %138) {graph.node = 25 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>, tensor<1x1x16x16xf32>) -> tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>
    %444 = "graph.add.Tensor"(%442, %443) <{alpha = 1 : i64}> {graph.node = 25 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32>, tensor<2x4x16x16xf32, #graph.layout<[1024, 16, 64, 1], 0, 8192>>) -> tensor<2x4x16x16xf32>
    %445 = "graph.transpose.int"(%426#2) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 24 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32, #graph.layout<[512, 16, 32, 1], 0, 4096>>) -> tensor<2x16x2x16xf32>
    %446 = "graph.view"(%445) <{size = array<i64: 2, 16, 32>}> {graph.node = 23 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x2x16xf32>) -> tensor<2x16x32xf32>
    %447 = "graph.view"(%446) <{size = array<i64: 32, 32>}> {graph.node = 22 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x32xf32>) -> tensor<32x32xf32>
    %448 = "graph.t"(%447) {graph.node = 21 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32>) -> tensor<32x32xf32, #graph.layout<[1, 32], 0, 4096>>
    %449 = "graph.mm"(%448, %64) {graph.node = 21 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32, #graph.layout<[1, 32], 0, 4096>>, tensor<32x64xf32>) -> tensor<32x64xf32>
    %450 = "graph.t"(%449) {graph.node = 21 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %451 = "graph.t"(%63) {graph.node = 21 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x64xf32>
    %452 = "graph.mm"(%447, %451) {graph.node = 21 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32>, tensor<32x64xf32>) -> tensor<32x64xf32>
    %453 = "graph.view"(%452) <{size = array<i64: 2, 16, 64>}> {graph.node = 20 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %454 = "graph.t"(%450) {graph.node = 19 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x64xf32>
    %455 = "graph.detach"(%454) {graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<32x64xf32>
    %456 = "graph.transpose.int"(%435) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 18 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x2x16x16xf32>) -> tensor<2x16x2x16xf32, #graph.layout<[512, 16, 256, 1], 0, 4096>>
    %457 = "graph.clone"(%456) <{memory_format = "contiguous"}> {graph.node = 17 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x2x16xf32, #graph.layout<[512, 16, 256, 1], 0, 4096>>) -> tensor<2x16x2x16xf32>
    %458 = "graph._unsafe_view"(%457) <{size = array<i64: 2, 16, 32>}> {graph.node = 17 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x2x16xf32>) -> tensor<2x16x32xf32>
    %459 = "graph.view"(%458) <{size = array<i64: 32, 32>}> {graph.node = 16 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x32xf32>) -> tensor<32x32xf32>
    %460 = "graph.t"(%459) {graph.node = 15 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32>) -> tensor<32x32xf32, #graph.layout<[1, 32], 0, 4096>>
    %461 = "graph.mm"(%460, %64) {graph.node = 15 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32, #graph.layout<[1, 32], 0, 4096>>, tensor<32x64xf32>) -> tensor<32x64xf32>
    %462 = "graph.t"(%461) {graph.node = 15 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %463 = "graph.t"(%57) {graph.node = 15 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x64xf32>
    %464 = "graph.mm"(%459, %463) {graph.node = 15 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x32xf32>, tensor<32x64xf32>) -> tensor<32x64xf32>
    %465 = "graph.view"(%464) <{size = array<i64: 2, 16, 64>}> {graph.node = 14 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %466 = "graph.add.Tensor"(%453, %465) <{alpha = 1 : i64}> {graph.node = 14 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %467 = "graph.t"(%462) {graph.node = 13 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>) -> tensor<32x64xf32>
    %468 = "graph.detach"(%467) {graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<32x64xf32>
    %469 = "graph.transpose.int"(%444) <{dim0 = 1 : i64, dim1 = 2 : i64}> {graph.node = 12 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x4x16x16xf32>) -> tensor<2x16x4x16xf32, #graph.layout<[1024, 16, 256, 1], 0, 8192>>
    %470 = "graph.clone"(%469) <{memory_format = "contiguous"}> {graph.node = 11 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x4x16xf32, #graph.layout<[1024, 16, 256, 1], 0, 8192>>) -> tensor<2x16x4x16xf32>
    %471 = "graph._unsafe_view"(%470) <{size = array<i64: 2, 16, 64>}> {graph.node = 11 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x4x16xf32>) -> tensor<2x16x64xf32>
    %472 = "graph.view"(%471) <{size = array<i64: 32, 64>}> {graph.node = 10 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<32x64xf32>
    %473 = "graph.t"(%472) {graph.node = 9 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>
    %474 = "graph.mm"(%473, %64) {graph.node = 9 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x32xf32, #graph.layout<[1, 64], 0, 8192>>, tensor<32x64xf32>) -> tensor<64x64xf32>
    %475 = "graph.t"(%474) {graph.node = 9 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32>) -> tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>
    %476 = "graph.t"(%51) {graph.node = 9 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<64x64xf32>
    %477 = "graph.mm"(%472, %476) {graph.node = 9 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>, tensor<64x64xf32>) -> tensor<32x64xf32>
    %478 = "graph.view"(%477) <{size = array<i64: 2, 16, 64>}> {graph.node = 8 : i64, graph.phase = #graph.phase<backward>} : (tensor<32x64xf32>) -> tensor<2x16x64xf32>
    %479 = "graph.add.Tensor"(%466, %478) <{alpha = 1 : i64}> {graph.node = 8 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %480 = "graph.t"(%475) {graph.node = 7 : i64, graph.phase = #graph.phase<backward>} : (tensor<64x64xf32, #graph.layout<[1, 64], 0, 16384>>) -> tensor<64x64xf32>
    %481 = "graph.detach"(%480) {graph.phase = #graph.phase<backward>} : (tensor<64x64xf32>) -> tensor<64x64xf32>
    %482 = "graph.mul.Tensor"(%479, %8) {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<64xf32>) -> tensor<2x16x64xf32>
    %483 = "graph.mul.Tensor"(%479, %49) {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %484 = "graph.sum.dim_IntList"(%483) <{dim = array<i64: 0, 1>, keepdim = true}> {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<1x1x64xf32>
    %485 = "graph.view"(%484) <{size = array<i64: 64>}> {graph.node = 6 : i64, graph.phase = #graph.phase<backward>} : (tensor<1x1x64xf32>) -> tensor<64xf32>
    %486 = "graph.detach"(%485) {graph.phase = #graph.phase<backward>} : (tensor<64xf32>) -> tensor<64xf32>
    %487 = "graph.mul.Tensor"(%482, %21) {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %488 = "graph.mul.Tensor"(%482, %48) {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x1xf32>) -> tensor<2x16x64xf32>
    %489 = "graph.sum.dim_IntList"(%487) <{dim = array<i64: 2>, keepdim = true}> {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x1xf32>
    %490 = "graph.add.Tensor"(%414, %488) <{alpha = 1 : i64}> {graph.node = 5 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %491 = "graph.pow.Tensor_Scalar"(%48) <{exponent = 3 : i64}> {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %492 = "graph.mul.Scalar"(%489) <{other = -5.000000e-01 : f64}> {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %493 = "graph.mul.Tensor"(%492, %491) {graph.node = 4 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>, tensor<2x16x1xf32>) -> tensor<2x16x1xf32>
    %494 = "graph.expand"(%493) <{implicit = false, size = array<i64: 2, 16, 64>}> {graph.node = 2 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x1xf32>) -> tensor<2x16x64xf32, #graph.layout<[16, 1, 0], 0, 128>>
    %495 = "graph.div.Scalar"(%494) <{other = 64 : i64}> {graph.node = 2 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32, #graph.layout<[16, 1, 0], 0, 128>>) -> tensor<2x16x64xf32>
    %496 = "graph.pow.Tensor_Scalar"(%21) <{exponent = 1.000000e+00 : f64}> {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %497 = "graph.mul.Scalar"(%496) <{other = 2.000000e+00 : f64}> {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %498 = "graph.mul.Tensor"(%495, %497) {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %499 = "graph.add.Tensor"(%490, %498) <{alpha = 1 : i64}> {graph.node = 1 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16x64xf32>) -> tensor<2x16x64xf32>
    %500 = "graph.embedding_dense_backward"(%499, %arg23) <{num_weights = 256 : i64, padding_idx = -1 : i64, scale_grad_by_freq = false}> {graph.node = 0 : i64, graph.phase = #graph.phase<backward>} : (tensor<2x16x64xf32>, tensor<2x16xi64>) -> tensor<256x64xf32>
    %501 = "graph.detach"(%500) {graph.phase = #graph.phase<backward>} : (tensor<256x64xf32>) -> tensor<256x64xf32>
    "graph.return"(%201, %501, %481, %468, %455, %423, %396, %385, %374, %486, %401, %347, %334, %321, %289, %262, %251, %240, %352, %267, %219, %214) : (tensor<f32>, tensor<256x64xf32>, tensor<64x64xf32>, tensor<32x64xf32>, tensor<32x64xf32>, tensor<64x64xf32>, tensor<128x64xf32>, tensor<128x64xf32>, tensor<64x128xf32>, tensor<64xf32>, tensor<64xf32>, tensor<64x64xf32>, tensor<32x64xf32>, tensor<32x64xf32>, tensor<64x64xf32>, tensor<128x64xf32>, tensor<128x64xf32>, tensor<64x128xf32>, tensor<64xf32>, tensor<64xf32>, tensor<64xf32>, tensor<256x64xf32>) -> ()
  }) : () -> ()
}) : () -> ()

