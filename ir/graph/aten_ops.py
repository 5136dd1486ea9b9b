"""Writes GraphAtenOps.td from torch's own schemas, or checks that it still agrees with them.

    python ir/graph/aten_ops.py > ir/graph/GraphAtenOps.td
    python ir/graph/aten_ops.py --check ir/graph/GraphAtenOps.td

To give an operator an ODS op, add its name to the right list below and run the first command.
"""

import re
import sys

import torch

# Class of the op in GraphAten.td -> ATen overloads.
OPS = {
    "Matmul": "mm bmm addmm baddbmm mv addmv dot _grouped_mm",
    "Convolution": "convolution convolution_backward",
    "Attention": """_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_backward
        _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
        _scaled_dot_product_efficient_attention _scaled_dot_product_efficient_attention_backward
        _scaled_dot_product_cudnn_attention _scaled_dot_product_cudnn_attention_backward""",
    "View": """view _unsafe_view _reshape_alias t transpose.int permute slice.Tensor select.int unsqueeze squeeze squeeze.dim squeeze.dims
        expand alias detach as_strided diagonal unfold split.Tensor split_with_sizes unbind.int view.dtype view_as_real view_as_complex lift_fresh""",
    "Pointwise": """neg abs exp exp2 expm1 log log1p log2 sqrt rsqrt reciprocal sin cos tan tanh sigmoid silu relu gelu erf erfc sign sgn floor ceil
        round trunc bitwise_not logical_not isnan isinf softplus elu leaky_relu hardtanh hardswish hardsigmoid mish
        clamp clamp.Tensor clamp_min clamp_max pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar
        add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar
        div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode floor_divide floor_divide.Scalar remainder.Tensor remainder.Scalar fmod.Tensor fmod.Scalar
        maximum minimum atan2 eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor gt.Scalar ge.Tensor ge.Scalar
        bitwise_and.Tensor bitwise_and.Scalar bitwise_or.Tensor bitwise_or.Scalar bitwise_xor.Tensor bitwise_xor.Scalar
        logical_and logical_or logical_xor where.self where.ScalarSelf where.ScalarOther where.Scalar addcmul addcdiv lerp.Scalar lerp.Tensor
        masked_fill.Scalar masked_fill.Tensor silu_backward gelu_backward tanh_backward sigmoid_backward threshold threshold_backward
        softplus_backward elu_backward leaky_relu_backward hardtanh_backward hardswish_backward hardsigmoid_backward mish_backward
        _to_copy clone copy fill.Scalar fill.Tensor native_dropout_backward zeros_like ones_like empty_like full_like""",
    "Random": "native_dropout bernoulli bernoulli.p rand rand_like randn randn_like",
    "Reduction": """sum sum.dim_IntList mean mean.dim prod prod.dim_int amax amin max max.dim min min.dim argmax argmin any any.dim any.dims all all.dim
        all.dims var.correction var_mean.correction std.correction logsumexp cumsum cumprod histc linalg_vector_norm count_nonzero
        count_nonzero.dim_IntList bincount _is_all_true _is_any_true
        _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data _safe_softmax
        native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward _fused_rms_norm _fused_rms_norm_backward""",
    "Loss": """nll_loss_forward nll_loss_backward nll_loss2d_forward nll_loss2d_backward mse_loss mse_loss_backward
        smooth_l1_loss smooth_l1_loss_backward binary_cross_entropy_with_logits""",
    "Indexing": """embedding embedding_dense_backward topk sort sort.stable gather scatter.src scatter.value scatter.reduce scatter.value_reduce scatter_add
        scatter_reduce.two index.Tensor index_put index_select index_add index_copy index_fill.int_Scalar index_fill.int_Tensor
        masked_scatter masked_scatter_backward
        searchsorted.Tensor bucketize.Tensor repeat_interleave.Tensor select_scatter slice_scatter select_backward slice_backward diagonal_backward
        unfold_backward cat stack constant_pad_nd repeat roll flip tril triu""",
    "Factory": """zeros ones full empty.memory_format empty_strided arange arange.start arange.start_step new_zeros new_ones new_full new_empty
        new_empty_strided eye eye.m linspace scalar_tensor""",
}

# Tensor arguments without `?` for which ATen passes undefined tensors on.
UNDEFINED = {
    "_scaled_dot_product_flash_attention_backward": {"cum_seq_q", "cum_seq_k"},
    "_scaled_dot_product_cudnn_attention_backward": {"cum_seq_q", "cum_seq_k", "attn_bias"},
    "_scaled_dot_product_efficient_attention_backward": {"attn_bias"},
}

ATTRS = {
    "int": "Int", "SymInt": "Int", "float": "Float", "bool": "Bool", "number": "Scalar", "Scalar": "Scalar",
    "int[]": "IntList", "SymInt[]": "IntList", "float[]": "FloatList", "bool[]": "BoolList", "str": "String", "ScalarType": "ScalarType",
    "Device": "Device", "Layout": "Layout", "MemoryFormat": "MemoryFormat",
}  # fmt: skip


def schema(name):
    base, _, overload = name.partition(".")
    packet = getattr(torch.ops.aten, base)
    return getattr(packet, overload or "default")._schema


def argument(op, arg):
    """One schema argument as .td text."""
    text, optional = str(arg.real_type), False
    if text.startswith("Optional["):
        optional, text = True, text[len("Optional[") : -1]
    if text.startswith("List["):
        text = text[len("List[") : -1] + "[]"
    if text == "Optional[Tensor][]":
        return f"OptionalTensorListArg:${arg.name}, PresentArg:${arg.name}_present"
    if text == "Tensor[]":
        return f"TensorListArg:${arg.name}"
    if text == "Tensor":
        return f"{'OptionalTensorArg' if optional or arg.name in UNDEFINED.get(op, ()) else 'TensorArg'}:${arg.name}"
    if text == "Generator":
        return f"GeneratorArg:${arg.name}"
    if text not in ATTRS:
        raise SystemExit(f"{op}: argument {arg.name} has type {text}, which has no attribute")
    return f"{'Optional' if optional else ''}{ATTRS[text]}Arg:${arg.name}"


def definition(kind, op):
    sch = schema(op)
    args = [argument(op, a) for a in sch.arguments]
    returns = [str(r.type) for r in sch.returns]
    if returns == ["List[Tensor]"]:
        results = ["TensorListRes:$result"]
    else:
        tensors = [r for r in returns if r == "Tensor"]
        results = ["TensorRes:$result"] if len(tensors) == 1 else [f"TensorRes:$result{i}" for i in range(len(tensors))]
    cpp = "".join(word[:1].upper() + word[1:] for word in re.split(r"[._]", op) if word)
    segmented = sum(a.startswith(("OptionalTensor", "TensorList")) for a in args) > 1
    traits = ", [AttrSizedOperandSegments]" if segmented else ""
    return f'def Graph_{cpp}Op : {kind}Op<"{op}", (ins {", ".join(args)}), (outs {", ".join(results)}){traits}>;'


HEADER = """// One op per ATen overload that a pass reasons about, in the order and under the names of its schema.
// Invariant: equal to what ir/graph/aten_ops.py prints from torch's schemas. Editing by hand breaks it, and a test finds it.
include "ir/graph/GraphAten.td"
"""


def document():
    lines = [HEADER]
    for kind, names in OPS.items():
        lines.append(f"// {kind}")
        lines += [definition(kind, op) for op in names.split()]
        lines.append("")
    return "\n".join(lines)


def main(argv):
    if len(argv) == 2 and argv[0] == "--check":
        with open(argv[1], encoding="utf-8") as f:
            have = f.read()
        want = document()
        for a, b in zip(have.splitlines(), want.splitlines()):
            if a != b:
                raise SystemExit(f"{argv[1]} differs from torch {torch.__version__}:\n  have {a}\n  want {b}")
        if have != want:
            raise SystemExit(f"{argv[1]} has another number of ops than torch {torch.__version__} gives")
        return
    if argv:
        raise SystemExit(__doc__)
    sys.stdout.write(document())


if __name__ == "__main__":
    main(sys.argv[1:])
