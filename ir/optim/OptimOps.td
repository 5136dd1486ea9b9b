// The update phase of a training step: what graph-append-optimizer writes after a captured backward pass.
// Invariant: every op is pure; new state leaves the step as results, which the schedule places over the old state.
#ifndef HEDDLE_OPTIM_OPS
#define HEDDLE_OPTIM_OPS

include "mlir/IR/OpBase.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Optim_Dialect : Dialect {
  let name = "optim";
  let cppNamespace = "::heddle::optim";
  let summary = "Optimizer updates over whole parameters";
  let description = [{
    Run-time scalars are not operands: the executor is given them before each run, under the names `lr` (learning rate of the
    schedule), `step` (1 for the first update), `micro_batches` and `label_count`.
  }];
}

def Optim_Float : RankedTensorOf<[F32, F64, F16, BF16]>;
def Optim_Scalar : 0DTensorOf<[F32, F64]>;
def Optim_Predicate : 0DTensorOf<[I1]>;

class Optim_Op<string name, list<Trait> traits = []> : Op<Optim_Dialect, name, traits # [Pure]>;

def Optim_AccumulateOp : Optim_Op<"accumulate", [AllTypesMatch<["accumulator", "result"]>]> {
  let summary = "Adds one micro-batch's value to the sum over micro-batches";
  let description = [{
    `result = accumulator + cast(value)` in the accumulator's dtype. The first micro-batch of a step takes
    `result = cast(value)`: the accumulator's old contents are not read (section `micro_first`).

    Constraints:
    * optim_accumulate_r1: value and accumulator have equal shapes.
  }];
  let arguments = (ins Optim_Float:$accumulator, Optim_Float:$value);
  let results = (outs Optim_Float:$result);
  let hasVerifier = 1;
}

def Optim_AccumulateProductOp : Optim_Op<"accumulate_product", [AllTypesMatch<["accumulator", "result"]>, AllElementTypesMatch<["lhs", "rhs"]>]> {
  let summary = "Adds one micro-batch's matrix product to the sum over micro-batches";
  let description = [{
    `result = accumulator + lhs · rhs`, or its transpose where `transposed` is set, summed and stored in the accumulator's dtype: the product is never rounded to
    its operands'. The first micro-batch of a step does not read the accumulator (section `micro_first`).

    Constraints:
    * optim_accumulate_product_r1: lhs is m×k, rhs k×n and the accumulator m×n (transposed: n×m).
  }];
  let arguments = (ins Optim_Float:$accumulator, Optim_Float:$lhs, Optim_Float:$rhs, UnitAttr:$transposed);
  let results = (outs Optim_Float:$result);
  let hasVerifier = 1;
}

def Optim_ProductOp : Optim_Op<"product", [AllElementTypesMatch<["lhs", "rhs"]>]> {
  let summary = "Multiplies two matrices into a wider dtype";
  let description = [{
    `result = lhs · rhs`, or its transpose where `transposed` is set, summed and stored in the result's dtype: the product is never rounded to its operands'. Where a
    `dist.pack` is its reader the multiplication writes into the bucket.

    Constraints:
    * optim_product_r1: lhs is m×k, rhs k×n and the result m×n (transposed: n×m).
  }];
  let arguments = (ins Optim_Float:$lhs, Optim_Float:$rhs, UnitAttr:$transposed);
  let results = (outs Optim_Float:$result);
  let hasVerifier = 1;
}

def Optim_AverageOp : Optim_Op<"average", [AllTypesMatch<["value", "result"]>]> {
  let summary = "Divides a sum over micro-batches by a run-time count";
  let description = [{
    `result = value / divisor`, the run-time scalar converted to the value's dtype. With divisor 1 the value is unchanged bit for bit.

    Constraints:
    * optim_average_r1: divisor is `micro_batches` or `label_count`.
  }];
  let arguments = (ins Optim_Float:$value, StrAttr:$divisor);
  let results = (outs Optim_Float:$result);
  let hasVerifier = 1;
}

def Optim_GradNormOp : Optim_Op<"grad_norm"> {
  let summary = "Takes the Euclidean norm of all gradients together";
  let description = [{
    The norm of each gradient in operand order, then the norm of those norms: the order of `torch.nn.utils.get_total_norm`.

    `fused` asks for the kernel that reads all gradients in a few launches; it sums in a fixed order, per gradient and then over gradients.

    Constraints:
    * optim_grad_norm_r1: at least one gradient.
  }];
  let arguments = (ins Variadic<Optim_Float>:$gradients, UnitAttr:$fused);
  let results = (outs Optim_Scalar:$result);
  let hasVerifier = 1;
}

def Optim_SquareSumsOp : Optim_Op<"square_sums"> {
  let summary = "Sums the squares of each parameter's gradient, as far as it lies on this rank";
  let description = [{
    Each gradient is a flat shard; `segments` lists, gradient by gradient, the number of parameters in its bucket and then their first element
    and length in the bucket. Shard i holds `shard[i]` elements per rank; where that is -1, its bounds are the next ones of `bounds`, ranks + 1 each. The result has one f64 sum per parameter, in the order of `segments`;
    it is zero where nothing of the parameter lies here, so the sum over ranks is the parameter's own.

    Constraints:
    * optim_square_sums_r1: one shard length per gradient; segments hold what they announce, and the result one element per parameter.
  }];
  let arguments = (ins Variadic<Optim_Float>:$gradients, DenseI64ArrayAttr:$segments, DenseI64ArrayAttr:$shard, DefaultValuedAttr<DenseI64ArrayAttr, "{}">:$bounds);
  let results = (outs TensorOf<[F64]>:$result);
  let hasVerifier = 1;
}

def Optim_NormOp : Optim_Op<"norm"> {
  let summary = "Takes the Euclidean norm from sums of squares";
  let description = [{
    `result = sqrt(sums[0] + sums[1] + ...) / divisor`, in f64, rounded once; `divisor` names a run-time scalar as in `optim.average`.

    Constraints:
    * optim_norm_r1: divisor is `micro_batches` or `label_count`.
  }];
  let arguments = (ins TensorOf<[F64]>:$sums, StrAttr:$divisor);
  let results = (outs Optim_Scalar:$result);
  let hasVerifier = 1;
}

def Optim_ClipFactorOp : Optim_Op<"clip_factor", [AllTypesMatch<["norm", "result"]>]> {
  let summary = "Computes the factor that limits the gradient norm";
  let description = [{
    `min(1, max_norm / (norm + 1e-6))`.

    Constraints:
    * optim_clip_factor_r1: max_norm is positive and finite.
  }];
  let arguments = (ins Optim_Scalar:$norm, F64Attr:$max_norm);
  let results = (outs Optim_Scalar:$result);
  let hasVerifier = 1;
}

def Optim_FiniteOp : Optim_Op<"finite"> {
  let summary = "Tells whether a step's gradients are finite";
  let description = [{
    True where the norm is neither inf nor NaN. An update whose `finite` operand is false leaves its state bitwise unchanged.
  }];
  let arguments = (ins Optim_Scalar:$norm);
  let results = (outs Optim_Predicate:$result);
}

def Optim_LossScaleOp : Optim_Op<"loss_scale", [AllTypesMatch<["norm", "result_norm", "factor"]>]> {
  let summary = "Takes the loss scale out of the gradient norm and chooses the next one";
  let description = [{
    The backward pass began with `scale * seed` in place of 1, so every gradient is that many times too large. With `inverse = 1 / (scale * seed)`:

    ```
    result_norm = norm * inverse
    factor      = min(1, max_norm / (result_norm + 1e-6)) * inverse      (max_norm absent: inverse)
    finite      = isfinite(result_norm)
    ```
    An update that multiplies its gradients by `factor` has unscaled and clipped them; one by `inverse`, which Muon takes, has unscaled them only. `used` is the scale that
    this step ran with.

    Without `state` the scale is `initial`, always. With it, `state` is the scale, the finite steps since it last changed and how many overflows it still bears, and the
    new ones follow DeepSpeed's dynamic scaler: where not finite, the scale is halved, down to `min_scale`, once `hysteresis` - 1 overflows have been borne, and `exhausted`
    says that it would have had to fall below; after `window` finite steps in a row it is doubled and overflows are borne anew (with `consecutive_hysteresis`: anew after
    any finite step). A scale that would not be finite is left alone.

    Constraints:
    * optim_loss_scale_r1: state is empty, or tensor<f32>, tensor<i64>, tensor<i64>, and new_state is of its types.
    * optim_loss_scale_r2: initial, seed, min_scale and max_norm are positive and finite, window and hysteresis at least 1.
  }];
  let arguments = (ins Optim_Scalar:$norm, Variadic<0DTensorOf<[F32, I64]>>:$state, F64Attr:$initial, F64Attr:$seed, OptionalAttr<F64Attr>:$max_norm,
    DefaultValuedAttr<I64Attr, "1000">:$window, DefaultValuedAttr<I64Attr, "2">:$hysteresis, UnitAttr:$consecutive_hysteresis,
    DefaultValuedAttr<F64Attr, "1.0">:$min_scale);
  let results = (outs Optim_Scalar:$result_norm, Optim_Scalar:$factor, 0DTensorOf<[F32]>:$inverse, Optim_Predicate:$finite, 0DTensorOf<[F32]>:$used,
    Optim_Predicate:$exhausted, Variadic<0DTensorOf<[F32, I64]>>:$new_state);
  let hasVerifier = 1;
}

def Optim_AdamWOp : Optim_Op<"adamw", [AttrSizedOperandSegments, AllTypesMatch<["param", "new_param"]>,
    AllTypesMatch<["exp_avg", "new_exp_avg"]>, AllTypesMatch<["exp_avg_sq", "new_exp_avg_sq"]>]> {
  let summary = "Updates one parameter by AdamW";
  let description = [{
    The single-tensor form of `torch.optim.AdamW(foreach=False)`, with `rate = lr * lr_scale` and `g = grad * factor`
    (factor absent: `g = grad`), both scalars `lr` and `step` being given at run time:

    ```
    param      = param * (1 - rate * weight_decay)
    exp_avg    = lerp(exp_avg, g, 1 - beta1)
    exp_avg_sq = exp_avg_sq * beta2 + (1 - beta2) * g * g
    denom      = sqrt(exp_avg_sq) / sqrt(1 - beta2^step) + eps
    param      = param - (rate / (1 - beta1^step)) * exp_avg / denom
    ```

    Where `finite` is present and false all three results equal their operands bitwise.

    Constraints:
    * optim_adamw_r1: param, grad, exp_avg and exp_avg_sq have equal shapes.
    * optim_adamw_r2: beta1 and beta2 lie in [0, 1).
    * optim_adamw_r3: eps, weight_decay and lr_scale are not negative.
  }];
  let arguments = (ins Optim_Float:$param, Optim_Float:$grad, Optim_Float:$exp_avg, Optim_Float:$exp_avg_sq,
    Optional<Optim_Scalar>:$factor, Optional<Optim_Predicate>:$finite,
    F64Attr:$beta1, F64Attr:$beta2, F64Attr:$eps, F64Attr:$weight_decay, F64Attr:$lr_scale, I64Attr:$group);
  let results = (outs Optim_Float:$new_param, Optim_Float:$new_exp_avg, Optim_Float:$new_exp_avg_sq);
  let hasVerifier = 1;
}

def Optim_MuonOp : Optim_Op<"muon", [AttrSizedOperandSegments, AttrSizedResultSegments]> {
  let summary = "Updates matrices by Muon";
  let description = [{
    Momentum, Newton-Schulz orthogonalisation and a scaled, decoupled update, each matrix by itself. Operand i of `params`, `grads` and `momenta` holds the
    matrices that `matrices` lists for it, six numbers each: operand, owning rank, first element in the whole operand, first element in the owner's shard of it, rows,
    columns. Matrices are row-major. A rank updates what it owns, so over all ranks each matrix is orthogonalised once a step.

    `settings`: momentum, weight_decay, lr_scale, eps (f64), nesterov (bool), form, ns, scale, norm_eps, dtype (strings), coefficients (a name, or three numbers an
    iteration), steps (i64); kernels/muon.h and kernels/newton_schulz.h say what each means. `copies`, where there are any, are the new parameters in another dtype.
    Gradients are multiplied by `factor` where it is present. Where `finite` is present and false all results equal their operands bitwise.

    Constraints:
    * optim_muon_r1: as many grads, momenta, new parameters and new momenta as params, of equal lengths; copies are as many, or none.
    * optim_muon_r2: matrices lie inside their operand.
    * optim_muon_r3: settings hold exactly what is listed.
  }];
  let arguments = (ins Variadic<Optim_Float>:$params, Variadic<Optim_Float>:$grads, Variadic<Optim_Float>:$momenta, Optional<0DTensorOf<[F32]>>:$factor, Optional<Optim_Predicate>:$finite,
    DenseI64ArrayAttr:$matrices, DictionaryAttr:$settings, I64Attr:$group);
  let results = (outs Variadic<Optim_Float>:$new_params, Variadic<Optim_Float>:$new_momenta, Variadic<Optim_Float>:$copies);
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    // One row of `matrices`.
    struct Matrix {
      int64_t operand, rank, inBucket, inShard, rows, columns;
    };
    ::llvm::SmallVector<Matrix> getMatrixRows();
  }];
}

def Optim_MultiAdamWOp : Optim_Op<"multi_adamw", [AttrSizedOperandSegments, AttrSizedResultSegments]> {
  let summary = "Updates many parameters by AdamW";
  let description = [{
    `optim.adamw` of each of `params` with the gradient and moments of the same number. `copies` are none, or each parameter's value in the compute dtype before the
    update, which is not read; `new_copies` are the new parameters rounded to it.

    Constraints:
    * optim_multi_adamw_r1: as many gradients and moments as parameters, of their shapes; as many copies, or none.
    * optim_multi_adamw_r2: results are of their operands' types.
    * optim_multi_adamw_r3: the hyperparameters are in the ranges of optim_adamw_r2 and optim_adamw_r3.
  }];
  let arguments = (ins Variadic<Optim_Float>:$params, Variadic<Optim_Float>:$grads, Variadic<Optim_Float>:$exp_avgs, Variadic<Optim_Float>:$exp_avg_sqs,
    Variadic<Optim_Float>:$copies, Optional<Optim_Scalar>:$factor, Optional<Optim_Predicate>:$finite,
    F64Attr:$beta1, F64Attr:$beta2, F64Attr:$eps, F64Attr:$weight_decay, F64Attr:$lr_scale, I64Attr:$group);
  let results = (outs Variadic<Optim_Float>:$new_params, Variadic<Optim_Float>:$new_exp_avgs, Variadic<Optim_Float>:$new_exp_avg_sqs,
    Variadic<Optim_Float>:$new_copies);
  let hasVerifier = 1;
}

#endif  // HEDDLE_OPTIM_OPS
