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
