// RUN: heddle-opt %s --train-pipeline='mode=train optimizer={"clip": 1.0, "skip_nonfinite": true}' | FileCheck %s

// Tests the sections of a training plan: gradients end in accumulators, labels are counted before, the norm is taken of sums and divided, buffers take their new values.
// CHECK: sched.plan "train"
// CHECK-SAME: loss_average\22:\22tokens
// CHECK: %[[PB:.+]] = sched.buffer state device parameter 48 bytes at 0 "w"
// CHECK: %[[P:.+]] = sched.value %[[PB]]
// CHECK: sched.state "buffer" ["seen"] %[[SEEN:[0-9]+]]
// CHECK: sched.state "accumulator" ["w"] %[[ACC:[0-9]+]]
// CHECK: sched.section "prologue"
// CHECK: sched.aten "aten::ne.Scalar"
// CHECK-SAME: -100
// CHECK: sched.aten "aten::sum"
// CHECK: sched.result "output" "label_count"
// CHECK: sched.section "micro_first"
// CHECK: sched.aten "aten::nll_loss_forward"
// CHECK: sched.kernel "accumulate"(%[[ACC]], %{{.+}}) -> (%[[ACC]]) [#sched.operand, #sched.operand, true]
// CHECK: sched.copy %{{.+}} to %[[SEEN]]
// CHECK: sched.result "loss" "loss"
// CHECK: sched.section "micro_next"
// CHECK: sched.kernel "accumulate"{{.+}}[#sched.operand, #sched.operand, false]
// CHECK: sched.section "boundary"
// CHECK: sched.kernel "grad_norm"(%[[ACC]]) -> (%[[NORM:.+]], %[[FACTOR:.+]], %[[FINITE:.+]]) {{\[\[}}#sched.operand], #sched.runtime<"label_count">, 1.000000e+00]
// CHECK: sched.kernel "adamw"(%[[P]], %[[ACC]], %{{.+}}, %{{.+}}, %[[FACTOR]], %[[FINITE]]) -> (%[[P]],
// CHECK: sched.result "output" "grad_norm" %[[NORM]]
// CHECK: sched.result "output" "finite" %[[FINITE]]
"builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.param<["w"], true, "matrix">, #graph.buffer<"seen", true>, #graph.input<"x">, #graph.input<"labels">], format_version = 1 : i64,
                   precision = "fp32", result_roles = [#graph.loss, #graph.gradient<"w">, #graph.new_value<"seen">], target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%w: tensor<3x4xf32>, %seen: tensor<i64>, %x: tensor<2x3xf32>, %labels: tensor<2xi64>):
    %o = "graph.mm"(%x, %w) {graph.phase = #graph.phase<forward>} : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
    %p = "graph._log_softmax"(%o) <{dim = 1 : i64, half_to_float = false}> {graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %l, %n = "graph.nll_loss_forward"(%p, %labels) <{ignore_index = -100 : i64, operandSegmentSizes = array<i32: 1, 1, 0>, reduction = 1 : i64}>
      {graph.phase = #graph.phase<forward>} : (tensor<2x4xf32>, tensor<2xi64>) -> (tensor<f32>, tensor<f32>)
    %s = "graph.add.Scalar"(%seen) <{alpha = 1 : i64, other = 1 : i64}> {graph.phase = #graph.phase<forward>} : (tensor<i64>) -> tensor<i64>
    %one = "graph.ones_like"(%l) <{memory_format = "preserve"}> {graph.phase = #graph.phase<backward>} : (tensor<f32>) -> tensor<f32>
    %gp = "graph.nll_loss_backward"(%one, %p, %labels, %n) <{ignore_index = -100 : i64, operandSegmentSizes = array<i32: 1, 1, 1, 0, 1>, reduction = 1 : i64}>
      {graph.phase = #graph.phase<backward>} : (tensor<f32>, tensor<2x4xf32>, tensor<2xi64>, tensor<f32>) -> tensor<2x4xf32>
    %go = "graph._log_softmax_backward_data"(%gp, %p) <{dim = 1 : i64, input_dtype = f32}> {graph.phase = #graph.phase<backward>} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
    %xt = "graph.t"(%x) {graph.phase = #graph.phase<backward>} : (tensor<2x3xf32>) -> tensor<3x2xf32, #graph.layout<[1, 3], 0, 24>>
    %g = "graph.mm"(%xt, %go) {graph.phase = #graph.phase<backward>} : (tensor<3x2xf32, #graph.layout<[1, 3], 0, 24>>, tensor<2x4xf32>) -> tensor<3x4xf32>
    "graph.return"(%l, %g, %s) : (tensor<f32>, tensor<3x4xf32>, tensor<i64>) -> ()
  }) : () -> ()
}) : () -> ()
