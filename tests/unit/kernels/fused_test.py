"""The host references of the fused kernels against float64 PyTorch autograd.

Bites: a factor of 2 in rms_norm_backward's mean term, sin and cos swapped in rotary_backward, a forgotten `ignore_index`, an average where a sum is asked
for, strides ignored in Rows::Offset: each made at least one of these fail."""

import pytest
import torch

from tests.unit.kernels.kernel_caller import call

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def close(got, want):
    """Within one rounding of the exact result, with room for the double arithmetic itself."""
    eps = torch.finfo(got.dtype).eps
    want = want.detach()
    assert torch.all((got.double() - want).abs() <= eps * want.abs() + eps * 1e-3 * want.abs().max() + 1e-30), (got.double() - want).abs().max()


def leaf(tensor):
    return tensor.double().requires_grad_(True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["dense", "transposed"])
@pytest.mark.parametrize("adds", [False, True])
def test_rms_norm(dtype, layout, adds):
    torch.manual_seed(0)
    make = lambda: torch.randn(2, 5, 3, 24, dtype=dtype) if layout == "dense" else torch.randn(2, 3, 5, 24, dtype=dtype).transpose(1, 2)
    x, addend, dy = make(), make(), [make() for _ in range(3 if adds else 1)]
    weight = torch.randn(24, dtype=dtype)
    y, total, rstd, eps = torch.empty_like(x), torch.empty_like(x), torch.empty(2, 5, 3, 1), 1e-3
    call("rms_norm", {"x": x, "weight": weight, **({"addend": addend} if adds else {})}, [y, rstd] + [total] * adds, eps=eps)
    if adds:
        close(total, x.double() + addend.double())
    h, w = leaf(total if adds else x), leaf(weight)
    root = torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)
    want = h * root * w
    close(y, want)
    close(rstd, root)
    want.backward(sum(d.double() for d in dy))
    residual, dx, dw, partials = make(), torch.empty_like(x), torch.empty_like(weight), torch.empty(30, 24)
    grads = {name: d for name, d in zip(("dy", "dy1", "dy2"), dy)}
    call("rms_norm_backward", {**grads, "x": total if adds else x, "weight": weight, "rstd": root.detach().float(), "residual": residual}, [dx, dw, partials])
    # rstd was given in float32.
    assert torch.allclose(dx.double(), h.grad + residual.double(), rtol=2 * torch.finfo(dtype).eps, atol=1e-5 + 1e-3 * torch.finfo(dtype).eps)
    assert torch.allclose(dw.double(), w.grad, rtol=2 * torch.finfo(dtype).eps, atol=1e-4 + 1e-3 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu(dtype):
    torch.manual_seed(1)
    gate, up, dy = (torch.randn(3, 7, 10, dtype=dtype) for _ in range(3))
    y, dgate, dup = (torch.empty_like(gate) for _ in range(3))
    g, u = leaf(gate), leaf(up)
    want = torch.nn.functional.silu(g) * u
    want.backward(dy.double())
    call("swiglu", {"gate": gate, "up": up}, [y])
    call("swiglu_backward", {"dy": dy, "gate": gate, "up": up}, [dgate, dup])
    for got, exact in ((y, want), (dgate, g.grad), (dup, u.grad)):
        close(got, exact)
    call("swiglu_backward", {"dy": dy, "gate": gate, "up": up}, [gate, up])  # over its operands
    assert torch.equal(gate, dgate) and torch.equal(up, dup)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotary(dtype):
    torch.manual_seed(2)
    x = torch.randn(2, 6, 4, 8, dtype=dtype).transpose(1, 2)
    dy = torch.randn(2, 4, 6, 8, dtype=dtype)
    cos, sin = (torch.randn(2, 1, 6, 8, dtype=dtype) for _ in range(2))
    y, dx = torch.empty_like(x), torch.empty(2, 6, 4, 8, dtype=dtype).transpose(1, 2)
    h = leaf(x)
    want = h * cos.double() + torch.cat((-h[..., 4:], h[..., :4]), -1) * sin.double()
    want.backward(dy.double())
    call("rotary", {"x": x, "cos": cos, "sin": sin}, [y])
    call("rotary_backward", {"dy": dy, "cos": cos, "sin": sin}, [dx])
    close(y, want)
    close(dx, h.grad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mean", [False, True])
def test_cross_entropy(dtype, mean):
    torch.manual_seed(3)
    logits = (4 * torch.randn(2, 6, 33)).to(dtype)
    labels = torch.randint(0, 33, (24,))[::2]
    labels[3] = labels[7] = -100
    loss, total, lse, rows = torch.empty(()), torch.empty(()), torch.empty(12), torch.empty(12)
    call("cross_entropy", {"logits": logits, "labels": labels}, [loss, total, lse, rows], ignore_index=-100, mean=mean)
    z = leaf(logits)
    want = torch.nn.functional.cross_entropy(z.view(12, 33), labels, reduction="mean" if mean else "sum")
    close(loss, want)
    close(lse, z.view(12, 33).logsumexp(-1))
    assert total == 10
    want.backward(torch.tensor(0.25, dtype=torch.float64))
    grad = torch.empty_like(logits)
    call("cross_entropy_backward", {"dloss": torch.tensor(0.25), "logits": logits, "labels": labels, "total_weight": total, "lse": lse}, [grad], ignore_index=-100, mean=mean)
    # The sum of exponentials was given in float32.
    assert torch.allclose(grad.double(), z.grad, rtol=torch.finfo(dtype).eps + 1e-6, atol=1e-8 + torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps)
    assert torch.all(grad.view(12, 33)[3] == 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding_backward_add(dtype):
    torch.manual_seed(6)
    base, dy = torch.randn(5, 6, dtype=dtype), torch.randn(2, 4, 6, dtype=dtype)
    indices = torch.tensor([[0, 3, 3, 1], [4, 3, 1, 0]])
    out = torch.empty_like(base)
    call("embedding_backward_add", {"base": base, "dy": dy, "indices": indices}, [out], padding_idx=1)
    weight = torch.zeros(5, 6, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.embedding(indices, weight, padding_idx=1).backward(dy.double())
    close(out, weight.grad + base.double())


def test_a_label_that_is_no_class_is_seen():
    labels = torch.tensor([0, 5])
    loss, total, lse, rows = torch.empty(()), torch.empty(()), torch.empty(2), torch.empty(2)
    call("cross_entropy", {"logits": torch.zeros(2, 5), "labels": labels}, [loss, total, lse, rows], ignore_index=-100, mean=0)
    assert loss.isnan()


def test_refusals():
    x = torch.zeros(2, 4)
    with pytest.raises(RuntimeError, match="no kernel 'rms_morn'; there are .*rms_norm"):
        call("rms_morn", {"x": x}, [x])
    with pytest.raises(RuntimeError, match="kernel rms_norm needs weight"):
        call("rms_norm", {"x": x}, [x, x], eps=0)
    with pytest.raises(RuntimeError, match="kernel swiglu needs up of its operand's shape"):
        call("swiglu", {"gate": x, "up": torch.zeros(2, 5)}, [x])
    with pytest.raises(RuntimeError, match="x dense in its last dimension"):
        call("rotary", {"x": torch.zeros(4, 2).t(), "cos": x, "sin": x}, [x])
    with pytest.raises(RuntimeError, match="one label per row"):
        call("cross_entropy", {"logits": x, "labels": torch.zeros(3, dtype=torch.int64)}, [x, x, x, x])


@pytest.mark.parametrize("copy", [None, torch.bfloat16])
def test_multi_adamw_is_torch_for_each_tensor(copy):
    torch.manual_seed(4)
    shapes = [(5, 3), (7,), (1, 2, 3)]
    params = [torch.nn.Parameter(torch.randn(s, dtype=torch.float64).float()) for s in shapes]
    ours = [p.detach().clone() for p in params]
    averages, squares = [torch.zeros(s) for s in shapes], [torch.zeros(s) for s in shapes]
    copies = [torch.zeros(s, dtype=copy) for s in shapes] if copy else []
    optimizer = torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    grads = [torch.randn(s) for s in shapes]
    norm, factor, finite = torch.zeros(()), torch.zeros(()), torch.zeros((), dtype=torch.bool)
    for step in range(1, 4):
        for p, g in zip(params, grads):
            p.grad = g / 2
        want = torch.nn.utils.clip_grad_norm_(params, 0.5)
        call("multi_grad_norm", {"grads": grads}, [norm, factor, finite, torch.zeros(9, dtype=torch.float64)], divisor=2, max_norm=0.5)
        assert torch.allclose(norm, want, rtol=1e-6) and finite
        optimizer.step()
        call("multi_adamw", {"params": ours, "grads": grads, "exp_avgs": averages, "exp_avg_sqs": squares, "copies": copies, "factor": factor, "finite": finite}, [],
             divisor=2, lr=1e-2, step=step, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, lr_scale=1)
        for p, o in zip(params, ours):
            assert torch.allclose(p, o, rtol=1e-5, atol=1e-7)
        for o, c in zip(ours, copies):
            assert torch.equal(o.to(copy), c)
    before = [o.clone() for o in ours]
    grads[1][0] = float("inf")
    call("multi_grad_norm", {"grads": grads}, [norm, None, finite, torch.zeros(9, dtype=torch.float64)], divisor=2, max_norm=0.5)
    call("multi_adamw", {"params": ours, "grads": grads, "exp_avgs": averages, "exp_avg_sqs": squares, "copies": copies, "factor": factor, "finite": finite}, [],
         lr=1e-2, step=4, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
    assert not finite and all(torch.equal(a, b) for a, b in zip(before, ours))
