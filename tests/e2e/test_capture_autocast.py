"""torch.autocast regions: the program holds the casts that the target's autocast makes, so that heddle.check gives eager's bits.

The reference for cpu is eager itself; for cuda it is PyTorch's own autocast on fake CUDA tensors, operator by operator, which needs no GPU.
That the comparisons bite: with an AutocastTraced that passes `softplus` and `mse_loss` by, test_casts_are_the_targets fails for cuda and for cpu and names them;
with a new stand-in for every use of a weight, test_weight_casts_are_cached_in_the_outermost_region counts too many.
"""

import re
from unittest import mock

import families
import heddle
import pytest
import torch
import torch.nn.functional as F
from heddle.checking import eager_step
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint


def cpu(dtype=torch.bfloat16, **kwargs):
    return torch.autocast("cpu", dtype=dtype, **kwargs)


class Net(torch.nn.Module):
    """`body(self, x)` with two linear layers at hand; the loss is the mean square of what it returns."""

    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.body = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), body
        self.scale = torch.nn.Parameter(torch.rand(8))

    def forward(self, x):
        return self.body(self, x).float().square().mean()


def capture(body, device="cpu", **kwargs):
    return heddle.capture(Net(body), {"x": torch.randn(4, 8)}, device=device, **kwargs).mlir


def identical(body, **kwargs):
    report = heddle.check(Net(body), {"x": torch.randn(4, 8)}, **kwargs)
    assert report.bit_identical, report


def casts(text, dtype="bf16"):
    return len(re.findall(rf'"graph._to_copy".*<forward>.*-> tensor<[0-9x]*{dtype}', text))


@pytest.mark.parametrize("family", ["llama", "llama_tied", "mixtral", "deepseek_v3", "gpt2_dropout", "vit"])
def test_families_under_autocast(family):
    """The usual mixed-precision loop: fp32 parameters, the region around the step."""
    model, batch = families.FAMILIES[family](3, 37)
    with cpu():
        report = heddle.check(model, batch)
    assert report.bit_identical, report
    assert all(gradient.dtype == torch.float32 for gradient in eager_step(model, batch, None, "fp32")[2].values())


def test_region_inside_forward_and_half():
    identical(lambda self, x: cpu()(lambda: self.second(self.first(x).relu()))())
    identical(lambda self, x: cpu(torch.float16)(lambda: self.second(self.first(x).relu()))())


def test_region_around_the_loss_only():
    model = torch.nn.Linear(8, 4)

    def loss(out, batch):
        with cpu():
            return F.mse_loss(out @ out.T, torch.eye(4, device=out.device))

    report = heddle.check(model, (torch.randn(4, 8),), loss=loss)
    assert report.bit_identical, report
    assert "bf16" in heddle.capture(model, (torch.randn(4, 8),), loss=loss).mlir


def test_nested_and_disabled_regions():
    def body(self, x):
        with cpu():
            y = self.first(x)
            with cpu(enabled=False):
                z = self.second(y.float())
            with cpu(torch.float16):
                w = z @ z.T
            return w.bfloat16() @ y + z

    identical(body)
    text = capture(body)
    assert "bf16" in text and "xf16" in text


def test_weight_casts_are_cached_in_the_outermost_region():
    """Twice the same layer in a region is one cast of its weight and bias, and a gradient that is summed in the region's type."""

    def twice(**kwargs):
        def body(self, x):
            with cpu(**kwargs):
                return self.first(self.first(x))

        return body

    def two_regions(self, x):
        with cpu():
            y = self.first(x)
        with cpu():
            return self.first(y)

    def nested(self, x):
        with cpu():
            with cpu():
                y = self.first(x)
            return self.first(y)

    def first_without_gradient(self, x):
        with cpu():
            with torch.no_grad():
                y = self.first(x)
            return self.first(y) + self.second(y)

    bodies = {3: twice(), 5: twice(cache_enabled=False)}
    for count, body in bodies.items():
        assert casts(capture(body)) == count
    assert casts(capture(nested)) == 3 and casts(capture(two_regions)) == 5
    for body in (*bodies.values(), nested, two_regions, first_without_gradient):
        identical(body)


def test_the_cache_is_not_shared_with_eager():
    """Eager, a capture, and eager again in one region, on one model."""
    model, x = Net(lambda self, x: self.first(x)), torch.randn(4, 8)
    with cpu():
        before = model(x)
        text = heddle.capture(model, {"x": x}).mlir
        after = model(x)
        assert text == heddle.capture(model, {"x": x}).mlir
    assert torch.equal(before, after)


def test_backward_inside_and_outside_the_region():
    """backward() of a region's loss has casts of its own where it runs inside the region too: its matmuls are on the list."""
    identical(lambda self, x: cpu()(lambda: (self.first(x) * self.scale) @ self.scale)())
    with cpu():
        identical(lambda self, x: (self.first(x) * self.scale) @ self.scale)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_restores_the_region(reentrant):
    def body(self, x):
        with cpu():
            return self.second(checkpoint(lambda y: self.first(y).tanh(), self.first(x), use_reentrant=reentrant))

    identical(body)


def test_kernels_that_call_listed_operators():
    """The kernel of F.bilinear multiplies matrices by calling PyTorch, in the region's type."""
    identical(lambda self, x: cpu()(lambda: F.bilinear(x, x, torch.stack([self.first.weight, self.second.weight])))())


def test_a_module_that_asks_for_its_own_device():
    """Hugging Face turns autocast off for `x.device.type`, and asks for its state; both must speak of the target."""
    seen = []

    def body(self, x):
        device = x.device.type
        with cpu():
            seen.append((torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)))
            y = self.first(x)
            with torch.autocast(device, enabled=False):
                seen.append(torch.is_autocast_enabled("cpu"))
                return y.float() @ y.float().T

    identical(body)
    assert seen == [(True, torch.bfloat16), False] * 2


def test_custom_functions_follow_the_region():
    class Product(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="cpu")
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        @torch.amp.custom_bwd(device_type="cpu")
        def backward(ctx, grad):
            x, w = ctx.saved_tensors
            return grad @ w.T, x.T @ grad

    class Widened(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
        def forward(ctx, x):
            assert x.dtype == torch.float32
            return x.exp()

        @staticmethod
        @torch.amp.custom_bwd(device_type="cpu")
        def backward(ctx, grad):
            return grad

    identical(lambda self, x: cpu()(lambda: Product.apply(self.first(x), self.second.weight))())
    identical(lambda self, x: cpu()(lambda: Widened.apply(self.first(x)))())


def test_custom_operators_bring_their_rule():
    @torch.library.custom_op("heddle_test::scaled", mutates_args=())
    def scaled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y

    scaled.register_fake(torch.mul)
    scaled.register_autograd(lambda ctx, grad: (grad, grad.sum(0)))
    scaled.register_autocast("cpu", torch.bfloat16)
    scaled.register_autocast("cuda", torch.float16)
    body = lambda self, x: torch.ops.heddle_test.scaled(self.first(x), self.scale)  # noqa: E731
    with cpu():
        identical(body)
        assert re.search(r'"heddle_test::scaled".*: \(tensor<4x8xbf16>, tensor<8xbf16>\)', capture(body))

    def on_cuda(self, x):
        with torch.autocast("cuda"):
            return body(self, x)

    assert re.search(r'"heddle_test::scaled".*: \(tensor<4x8xf16>, tensor<8xf16>\)', capture(on_cuda, "cuda"))


def test_another_devices_region_casts_nothing():
    """As in eager: autocast of one device leaves tensors of another alone."""
    with cpu():
        assert "bf16" not in capture(lambda self, x: self.first(x), "cuda")

    def body(self, x):
        with mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False), mock.patch("torch.cuda.is_bf16_supported", lambda: True):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                return self.first(x)

    assert "bf16" not in capture(body)
    identical(body)


def test_what_the_target_refuses_is_refused():
    def body(self, x):
        with torch.autocast("cuda"):
            return F.binary_cross_entropy(self.first(x).sigmoid(), torch.ones_like(x))

    with pytest.raises(heddle.CaptureError, match=r"(?s)unsafe to autocast.*test_capture_autocast.py:\d+"):
        capture(body, "cuda")


def test_state_is_put_back():
    names = ["is_autocast_enabled", "set_autocast_enabled", "get_autocast_dtype", "set_autocast_dtype"]
    before = [getattr(torch, name) for name in names] + [torch.autocast.__init__, torch.amp.autocast_mode._cast, torch.cuda.is_bf16_supported]
    for device in ("cpu", "cuda"):
        capture(lambda self, x: self.first(x), device)
        with pytest.raises(heddle.CaptureError):
            capture(lambda self, x: self.first(x) * self.scale.sum().item(), device)
    assert before == [getattr(torch, name) for name in names] + [torch.autocast.__init__, torch.amp.autocast_mode._cast, torch.cuda.is_bf16_supported]


# Every operator of the targets' lists that a plain call reaches, each on (x [4, 8], w [8, 8], v [8]) in fp32 and with x in the region's type.
CALLS = {
    "linear": lambda x, w, v: F.linear(x, w),
    "linear_bias": lambda x, w, v: F.linear(x, w, v),
    "matmul": lambda x, w, v: x @ w,
    "mm": lambda x, w, v: torch.mm(x, w),
    "mv": lambda x, w, v: torch.mv(x, v),
    "bmm": lambda x, w, v: torch.bmm(x[None], w[None]),
    "addmm": lambda x, w, v: torch.addmm(v, x, w),
    "baddbmm": lambda x, w, v: torch.baddbmm(v, x[None], w[None]),
    "addbmm": lambda x, w, v: torch.addbmm(v, x[None], w[None]),
    "einsum": lambda x, w, v: torch.einsum("ij,jk->ik", x, w),
    "tensordot": lambda x, w, v: torch.tensordot(x, w, 1),
    "conv1d": lambda x, w, v: F.conv1d(x[None, :, :], w[:, :4, None]),
    "conv2d": lambda x, w, v: F.conv2d(x[None, None], w[None, None, :3, :3]),
    "conv_transpose1d": lambda x, w, v: F.conv_transpose1d(x[None], w[:4, :4, None]),
    "prelu": lambda x, w, v: F.prelu(x, v),
    "sdpa": lambda x, w, v: F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
    "acos": lambda x, w, v: torch.acos(x.tanh()),
    "asin": lambda x, w, v: torch.asin(x.tanh()),
    "cosh": lambda x, w, v: torch.cosh(x),
    "erfinv": lambda x, w, v: torch.erfinv(x.tanh()),
    "exp": lambda x, w, v: torch.exp(x),
    "expm1": lambda x, w, v: torch.expm1(x),
    "log": lambda x, w, v: torch.log(x.abs()),
    "log10": lambda x, w, v: torch.log10(x.abs()),
    "log2": lambda x, w, v: torch.log2(x.abs()),
    "log1p": lambda x, w, v: torch.log1p(x.abs()),
    "reciprocal": lambda x, w, v: torch.reciprocal(x),
    "rsqrt": lambda x, w, v: torch.rsqrt(x.abs()),
    "sinh": lambda x, w, v: torch.sinh(x),
    "tan": lambda x, w, v: torch.tan(x),
    "pow_scalar": lambda x, w, v: torch.pow(x, 3.0),
    "pow_tensor": lambda x, w, v: torch.pow(x.abs(), v.abs()),
    "softplus": lambda x, w, v: F.softplus(x),
    "layer_norm": lambda x, w, v: F.layer_norm(x, (8,), v, v),
    "group_norm": lambda x, w, v: F.group_norm(x, 2, v, v),
    "cosine_similarity": lambda x, w, v: F.cosine_similarity(x, v[None]),
    "cosine_embedding_loss": lambda x, w, v: F.cosine_embedding_loss(x, x * 2, torch.ones_like(x[:, 0])),
    "hinge_embedding_loss": lambda x, w, v: F.hinge_embedding_loss(x, torch.ones_like(x)),
    "mse_loss": lambda x, w, v: F.mse_loss(x, w[:4]),
    "l1_loss": lambda x, w, v: F.l1_loss(x, w[:4]),
    "smooth_l1_loss": lambda x, w, v: F.smooth_l1_loss(x, w[:4]),
    "huber_loss": lambda x, w, v: F.huber_loss(x, w[:4]),
    "kl_div": lambda x, w, v: F.kl_div(x, w[:4], reduction="sum"),
    "soft_margin_loss": lambda x, w, v: F.soft_margin_loss(x, torch.ones_like(x)),
    "margin_ranking_loss": lambda x, w, v: F.margin_ranking_loss(x, x * 2, torch.ones_like(x)),
    "triplet_margin_loss": lambda x, w, v: F.triplet_margin_loss(x, x * 2, w[:4]),
    "poisson_nll_loss": lambda x, w, v: F.poisson_nll_loss(x, w[:4]),
    "bce_with_logits": lambda x, w, v: F.binary_cross_entropy_with_logits(x, torch.ones_like(x)),
    "cross_entropy": lambda x, w, v: F.cross_entropy(x, torch.zeros_like(x[:, 0], dtype=torch.long)),
    "nll_loss": lambda x, w, v: F.nll_loss(x, torch.zeros_like(x[:, 0], dtype=torch.long)),
    "softmax": lambda x, w, v: torch.softmax(x, -1),
    "softmax_dtype": lambda x, w, v: F.softmax(x, -1, dtype=torch.float32),
    "log_softmax": lambda x, w, v: torch.log_softmax(x, -1),
    "cumsum": lambda x, w, v: torch.cumsum(x, -1),
    "cumprod": lambda x, w, v: torch.cumprod(x, -1),
    "prod": lambda x, w, v: torch.prod(x),
    "prod_dim": lambda x, w, v: torch.prod(x, 1),
    "sum": lambda x, w, v: torch.sum(x),
    "sum_dim": lambda x, w, v: torch.sum(x, 1),
    "logsumexp": lambda x, w, v: torch.logsumexp(x, 1),
    "norm": lambda x, w, v: torch.linalg.vector_norm(x),
    "addcmul": lambda x, w, v: torch.addcmul(x, x, v),
    "addcdiv": lambda x, w, v: torch.addcdiv(x, x, v),
    "atan2": lambda x, w, v: torch.atan2(x, v),
    "dot": lambda x, w, v: torch.dot(x[0], v),
    "cross": lambda x, w, v: torch.cross(x[:, :3], w[:4, :3], dim=1),
    "scatter_add": lambda x, w, v: torch.scatter_add(x, 0, torch.zeros_like(x, dtype=torch.long), w[:4]),
    "index_put": lambda x, w, v: torch.index_put(x, (torch.zeros_like(x[:, 0], dtype=torch.long),), v),
    "grid_sample": lambda x, w, v: F.grid_sample(x[None, None], w[None, :4, :2].unsqueeze(1), align_corners=False),
    "cat": lambda x, w, v: torch.cat([x, w]),
    "stack": lambda x, w, v: torch.stack([x, w[:4]]),
    "pad_reflect": lambda x, w, v: F.pad(x[None], (2, 2), mode="reflect"),
    "interpolate": lambda x, w, v: F.interpolate(x[None], scale_factor=2, mode="linear"),
    "avg_pool3d": lambda x, w, v: F.avg_pool3d(x[None, None, None], (1, 2, 2)),
    "adaptive_avg_pool3d": lambda x, w, v: F.adaptive_avg_pool3d(x[None, None, None], (1, 2, 2)),
    "gelu": lambda x, w, v: F.gelu(x),
    "mul": lambda x, w, v: x * v,
}

DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16", torch.float64: "f64", torch.int64: "i64", torch.int32: "i32", torch.bool: "i1"}


class Operators(TorchDispatchMode):
    """(operator, types of its tensors, types of its results) of everything that runs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = lambda tree: [DTYPES[leaf.dtype] for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]  # noqa: E731
        self.seen.append((func._schema.name, tensors((args, kwargs)), tensors(result)))
        return result


def recorded(text):
    """The same of a program's forward."""
    types = lambda part: re.findall(r"tensor<(?:\d+x)*([a-z]+\d+)", part)  # noqa: E731
    seen = []
    for line in text.splitlines():
        match = re.match(r'\s*(?:%\S+ = )?"graph\.(\w+)[\w.]*"\(.*} : \((.*)\) -> (.*) loc', line)
        if match:
            name = re.search(r'callee = "aten::(\w+)', line).group(1) if match[1] == "call" else match[1]
            seen.append((f"aten::{name}", types(match[2]), types(match[3])))
    return seen


def arithmetic(seen):
    """Without what says nothing of casts, or is another operator on the device that captures: views, new tensors, numbers as tensors."""
    says_nothing = {f"aten::{name}" for name in ("detach", "alias", "t", "view", "_unsafe_view", "reshape", "lift_fresh", "empty", "scalar_tensor", "clone", "expand", "unsqueeze", "select", "slice", "permute", "transpose", "split", "as_strided", "squeeze", "_reshape_alias")}
    # Further results are statistics, whose type on cpu PyTorch's fake tensors do not know.
    return [(name, operands, results[:1]) for name, operands, results in seen if name not in says_nothing and name.startswith("aten::")]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_casts_are_the_targets(device, half):
    dtype = torch.bfloat16

    def step(call, x, w, v):
        with torch.autocast(device, dtype=dtype), sdpa_kernel(SDPBackend.MATH):
            return call(x.to(dtype) if half else x, w, v).float().sum()

    def reference(call):
        tensors = [torch.empty(shape, device=device) for shape in ((4, 8), (8, 8), (8,))]
        with Operators() as operators:
            step(call, *tensors)
        return arithmetic(operators.seen)

    wrong = {}
    for name, call in CALLS.items():
        batch = tuple(torch.rand(shape) for shape in ((4, 8), (8, 8), (8,)))
        with FakeTensorMode(), mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False), mock.patch("torch.cuda.is_bf16_supported", lambda: True), torch.no_grad():
            try:
                expected = reference(call)
            except RuntimeError:
                expected = "refused"
        model = torch.nn.Module()
        model.forward = lambda x, w, v, call=call: step(call, x, w, v)
        try:
            found = arithmetic(recorded(heddle.capture(model, batch, device=device, backward=False).mlir))
        except heddle.CaptureError:
            found = "refused"
        if found != expected:
            wrong[name] = (found, expected)
    assert not wrong, wrong
