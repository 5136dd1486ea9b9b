"""What capture keeps, and what it refuses: one error with operator, module and remedy, after which the next capture works."""

import copy
import random
import re
import tempfile

import families
import heddle
import numpy
import pytest
import torch
import transformers as hf
from torch.utils.checkpoint import checkpoint


class Net(torch.nn.Module):
    """`body(self, x)` between an embedding-free linear layer and a mean-square loss."""

    def __init__(self, body, width=8):
        super().__init__()
        self.first = torch.nn.Linear(width, width)
        self.second = torch.nn.Linear(width, width)
        self.body = body

    def forward(self, x, **extra):
        return self.second(self.body(self, self.first(x), **extra)).square().mean()


def check(body, x=None, **kwargs):
    torch.manual_seed(0)
    report = heddle.check(Net(body), {"x": torch.randn(4, 8) if x is None else x, **kwargs.pop("extra", {})}, **kwargs)
    assert report.bit_identical, report
    return report


def refuse(body, pattern, extra=None):
    model = Net(body)
    with pytest.raises(heddle.CaptureError, match=pattern):
        heddle.capture(model, {"x": torch.randn(4, 8), **(extra or {})})
    check(lambda self, x: x.relu())


def test_model_is_as_before():
    model, batch = families.llama_tied(2, 8)
    before = copy.deepcopy(model.state_dict())
    addresses = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    heddle.capture(model, batch)
    assert addresses == {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not torch.nn.modules.module._global_forward_hooks and not torch.nn.modules.module._global_forward_pre_hooks


def test_capture_is_deterministic_and_tied_weights_are_one_argument():
    model, batch = families.llama_tied(2, 8)
    text = heddle.capture(model, batch).mlir
    assert text == heddle.capture(model, batch).mlir
    assert '#graph.param<["model.embed_tokens.weight", "lm_head.weight"], true, "embedding">' in text


def test_module_path_on_every_operator_and_backward_linked():
    model, batch = families.llama(2, 8)
    text = heddle.capture(model, batch).mlir
    backward = [line for line in text.splitlines() if "#graph.phase<backward>" in line]
    linked = [line for line in backward if "graph.node" in line]
    assert len(linked) / len(backward) > 0.9
    assert 'loc("model.layers.1.mlp.down_proj")' in text


def test_source_lines_on_request():
    model, batch = families.llama(2, 8)
    assert "modeling_llama.py" in heddle.capture(model, batch, sources=True).mlir
    assert "modeling_llama.py" not in heddle.capture(model, batch).mlir


def test_meta_model_gives_the_same_program():
    model, batch = families.llama(2, 8)
    with torch.device("meta"):
        meta = hf.AutoModelForCausalLM.from_config(model.config)
    real, meta = heddle.capture(model, batch), heddle.capture(meta.train(), batch)
    assert real.mlir == meta.mlir
    assert all(torch.equal(real.constants[name], meta.constants[name]) for name in real.constants)


def test_save_and_load(tmp_path):
    model, batch = families.llama(2, 8)
    program = heddle.capture(model, batch)
    program.save(tmp_path / "step.mlir")
    again = heddle.load_program(tmp_path / "step.mlir")
    assert again.mlir == program.mlir and set(again.constants) == set(program.constants)


def test_complex_numbers_are_multiplied_where_eager_does():
    """Compilers keep two versions of such a loop, which round differently: one for a result that lies over an operand, and one for another place.

    That it bites: written over the operand that dies there, the first product differs by 1e-8; made out of place, the product in place does.
    """

    def body(self, x):
        turned = torch.view_as_complex(x.reshape(4, 4, 2))
        angles = torch.linspace(0, 3, 16, device=x.device).reshape(4, 4).t()
        turns = torch.polar(torch.ones_like(angles), angles)
        product = (turned * 2).mul(turns) + 1
        with torch.no_grad():
            shift = (turned.detach() + 1).mul_(turns)
        return torch.view_as_real(product * shift).reshape(4, 8)

    check(body)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant):
    check(lambda self, x: checkpoint(lambda y: torch.nn.functional.dropout(y.tanh(), 0.5).exp(), x, use_reentrant=reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_links_what_it_repeats(reentrant):
    """Every repeated operator names its forward operator: same operator, same module, also where an equal operator stands before the checkpoint, outside autograd, and in a checkpoint inside a checkpoint.

    That it bites: matching by name alone links the repeated tanh to the one before the checkpoint.
    """

    def inner(y):
        with torch.no_grad():
            shift = torch.arange(8, device=y.device) > 3
        return (y.tanh() * shift).exp()

    def outer(y):
        return checkpoint(inner, y.tanh().sigmoid(), use_reentrant=reentrant).sin()

    body = lambda self, x: checkpoint(outer, x.tanh() + x.tanh(), use_reentrant=reentrant).tanh()  # noqa: E731
    check(body)
    lines = heddle.capture(Net(body), {"x": torch.randn(4, 8)}).mlir.splitlines()
    name = lambda line: re.search(r'"graph\.([\w.]+)"', line)[1]  # noqa: E731
    of = lambda line, what: int(found[1]) if (found := re.search(rf"graph.{what} = (\d+)", line)) else None  # noqa: E731
    forward = {of(line, "node"): line for line in lines if "phase<forward>" in line and of(line, "node") is not None}
    repeated = [line for line in lines if of(line, "recompute_of") is not None]
    assert all(name(forward[of(line, "recompute_of")]) == name(line) for line in repeated)
    order = [line for line in lines if "phase<forward>" in line]
    tanh = [line for line in order if name(line) == "tanh"]
    assert len(tanh) == 5
    # The two before the checkpoint and the one behind it are never repeated; the inner one is, by both checkpoints.
    counts = [sum(of(line, "recompute_of") == of(t, "node") and of(t, "node") is not None for line in repeated) for t in tanh]
    assert counts == [0, 0, 1, 2, 0], counts
    # The mode that is not reentrant stops at the last tensor that backward wants.
    for op, times in {"sigmoid": 1, "sin": int(reentrant), "exp": 2, "arange": 2, "gt.Scalar": 2}.items():
        assert sum(name(line) == op for line in repeated) == times, op


def test_frozen_parameters_and_no_grad():
    torch.manual_seed(0)

    def body(self, x):
        with torch.no_grad():
            scale = x.abs().mean()
        return x * scale

    model = Net(body)
    model.first.weight.requires_grad_(False)
    report = heddle.check(model, {"x": torch.randn(4, 8)})
    assert report.bit_identical and "first.weight" not in report.gradients


def test_in_place_writes_through_views():
    def body(self, x):
        y = x.clone()
        y[:, ::2] *= 2
        y[0] = y[1] + 1
        z = y.view(-1)[3:9]
        z.add_(1)
        return y + z.sum()

    check(body)


def test_reshapes_in_place():
    def body(self, x):
        y, z = x.clone(), x.clone()
        y.unsqueeze_(0).transpose_(1, 2)
        y.mul_(2)
        z.t_()
        row = z[:, 0:1]
        row.squeeze_(1)
        x.detach().clone().resize_(4, 8)
        return y.squeeze(0).t() + z.t() + row

    check(body)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse_loss", "smooth_l1_loss", "soft_margin_loss", "huber_loss", "l1_loss", "kl_div"])
def test_losses_of_every_reduction(name, reduction):
    check(lambda self, x: x * getattr(torch.nn.functional, name)(x, torch.ones_like(x), reduction=reduction))


def test_rms_norm_module_is_what_the_target_runs():
    check(lambda self, x: torch.nn.functional.rms_norm(x, (8,), self.first.bias))
    net, batch = Net(lambda self, x: torch.nn.functional.rms_norm(x, (8,), self.first.bias)), {"x": torch.randn(4, 8)}
    assert '_fused_rms_norm' not in heddle.capture(net, batch).mlir and "_fused_rms_norm_backward" in heddle.capture(net, batch, device="cuda").mlir


def test_layouts_that_kernels_choose():
    """Gradients of pointwise operators whose operands lie differently."""
    functions = torch.nn.functional
    for f in (functions.softplus, functions.elu, functions.hardsigmoid, functions.hardtanh, functions.hardswish, functions.leaky_relu, functions.relu, torch.logit, lambda x: torch.log_softmax(x, -1), lambda x: torch.logaddexp(x, x.T.contiguous().T)):
        check(lambda self, x, f=f: f(self.second(x).sigmoid().T).T.contiguous())
        check(lambda self, x, f=f: f(x.sigmoid().view(2, 2, 8).transpose(0, 1)).reshape(4, 8))


def test_custom_autograd_function():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * 2 + 0 * x

    check(lambda self, x: Double.apply(x))


def test_custom_operator_with_fake_kernel():
    @torch.library.custom_op("heddle_test::shift", mutates_args=())
    def shift(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    shift.register_fake(torch.empty_like)
    shift.register_autograd(lambda ctx, grad: grad)
    check(lambda self, x: torch.ops.heddle_test.shift(x))


def test_host_reads_of_integers_become_guards():
    def body(self, x, n):
        return x * n.item() + x[: int(n[0].tolist())].sum()

    model, n = Net(body), torch.tensor([3])
    program = heddle.capture(model, {"x": torch.randn(4, 8), "n": n})
    assert program.mlir.count('"graph.guard"') == 2
    check(body, extra={"n": n})


def test_one_hot_of_what_the_step_computes():
    """PyTorch's own looks at the values on every device but CUDA, to check them."""
    check(lambda self, x: x * torch.nn.functional.one_hot(x.argmax(-1), 8).sum(-2))


def test_windows_folded_and_unfolded():
    """Kernels that allocate their result with the size of their input and shrink it then."""
    check(lambda self, x: torch.nn.functional.fold(torch.nn.functional.unfold(x.reshape(1, 2, 4, 4), 3, padding=1), 4, 3, padding=1).reshape(4, 8))


def test_constant_made_in_the_step():
    check(lambda self, x: x * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]))


OUTSIDE = torch.arange(8.0)
TORCH, PYTHON, NUMPY = torch.Generator(), random.Random(0), numpy.random.default_rng(0)


@pytest.mark.parametrize(
    "body, pattern",
    [
        (lambda self, x: x * OUTSIDE, r"aten::mul.*existed before the step.*Register it as a buffer"),
        (lambda self, x: x * (2 if x.sum() > 0 else 1), r"asks for a .* value of the step"),
        (lambda self, x: x * float(x.sum().item()), r"aten::_local_scalar_dense.*cannot steer a compiled step"),
        (lambda self, x: x[x > 0].sum() + x, r"aten::.*shape depends on data"),
        (lambda self, x: x * random.random(), r"host generator of `random`(?s:.*)drawn in module '<root>'\n  at .*test_capture.py"),
        (lambda self, x: x * numpy.random.rand(), r"host generator of `numpy.random`"),
        (lambda self, x: x + torch.rand(8), r"host generator of `torch`(?s:.*)drawn in module '<root>'\n  at .*test_capture.py"),
        (lambda self, x: x + torch.rand(8, generator=TORCH), r"aten::rand in module '<root>' of .*test_capture.py:\d+ draws from a generator of its own"),
        (lambda self, x: x + torch.nn.init.normal_(torch.empty(8), generator=torch.Generator()), r"aten::normal_ in module '<root>' of .*test_capture.py:\d+ draws from a generator of its own"),
        (lambda self, x: x * (2 if torch.empty(()).uniform_(generator=TORCH) < 0.5 else 1), r"aten::uniform_ in module"),
        (lambda self, x: x.detach().clone().bernoulli_(generator=TORCH) + x, r"aten::bernoulli_.* draws from a generator of its own"),
        (lambda self, x: x * PYTHON.gauss(0, 1), r"host generator of `random.Random`(?s:.*)drawn in module '<root>'\n  at .*test_capture.py"),
        (lambda self, x: x * random.SystemRandom().choice([1, 2]), r"host generator of `random.SystemRandom`(?s:.*)drawn in module '<root>'\n  at .*test_capture.py"),
        (lambda self, x: x * NUMPY.normal(), r"host generator of `numpy.random.Generator`(?s:.*)drawn in module '<root>'\n  at .*test_capture.py"),
        (lambda self, x, held=numpy.random.RandomState(0): x * held.rand(), r"host generator of `numpy.random.RandomState`"),
        (lambda self, x: self.second(x) if torch.rand([]) < 0.5 else x, r"(?s)aten::rand draws a number on the host.*in module '<root>'\n  at .*test_capture.py"),
        (lambda self, x: x.to_sparse().to_dense(), r"aten::_to_sparse in module.*Keep the tensor dense"),
        (lambda self, x: x + x.data_ptr(), r"(?s)in module '<root>' reads a tensor's data pointer.*custom operator.*test_capture.py"),
        (lambda self, x: x.cumprod(-1), r"aten::_local_scalar_dense in module '<root>' \(backward\) of .*test_capture.py:\d+ asks for a value"),
        (lambda self, x: x + x.detach().clone().resize_(2, 16).sum(), r"aten::resize_ in module.*Make a new tensor"),
        (lambda self, x: x + x.detach().clone().set_(x.detach()), r"aten::set_.* in module.*Make a new tensor"),
        (lambda self, x: x + torch.add(x.detach(), 1, out=torch.empty(0, device=x.device)), r"aten::add.out in module.*Give `out` the shape"),
        (lambda self, x: torch.autograd.grad(x.square().sum(), x, create_graph=True)[0], r"create_graph(?s:.*)in module '<root>'\n  at .*test_capture.py"),
    ],
)
def test_refusals(body, pattern):
    refuse(body, pattern)


def test_refuses_generators_that_the_model_holds():
    model = Net(lambda self, x: x * self.held["mask"][0].random())
    model.held = {"mask": [numpy.random.default_rng(0)]}
    with pytest.raises(heddle.CaptureError, match="numpy.random.Generator"):
        heddle.capture(model, {"x": torch.randn(4, 8)})
    model.body = lambda self, x: x
    heddle.capture(model, {"x": torch.randn(4, 8)}, loss=lambda out, batch: out)
    with pytest.raises(heddle.CaptureError, match="numpy.random.Generator"):
        heddle.capture(model, {"x": torch.randn(4, 8)}, loss=lambda out, batch, held=model.held["mask"][0]: out * held.random())


def test_what_a_module_draws_when_it_is_first_imported_is_not_the_steps(tmp_path, monkeypatch):
    """As sympy does, which torch imports within the first capture of a process: counted as the step's, no plain module could be captured."""
    (tmp_path / "draws_on_import.py").write_text("import random\nSCALE = 1 + 0 * random.Random().random()\n")
    monkeypatch.syspath_prepend(tmp_path)

    class Importing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(5, 3)

        def forward(self, x):
            import draws_on_import

            return (self.layer(x) * draws_on_import.SCALE).sum()

    heddle.capture(Importing(), torch.zeros(2, 5))


def test_generators_that_the_step_does_not_draw_from_are_left_alone():
    """They go on where they were, and so do the classes that were watched."""
    before = vars(random.Random).get("random"), vars(random.SystemRandom)["random"], vars(random.SystemRandom)["getrandbits"]
    state = NUMPY.bit_generator.state, PYTHON.getstate(), TORCH.get_state()
    check(lambda self, x: x * (2 if NUMPY is PYTHON or TORCH is None else 1))
    check(lambda self, x: x * len(tempfile.mktemp()[:1]))
    assert before == (vars(random.Random).get("random"), vars(random.SystemRandom)["random"], vars(random.SystemRandom)["getrandbits"])
    assert state[:2] == (NUMPY.bit_generator.state, PYTHON.getstate()) and torch.equal(state[2], TORCH.get_state())


def test_refuses_operator_without_meta_kernel():
    torch.library.define("heddle_test::opaque", "(Tensor x) -> Tensor")
    torch.library.impl("heddle_test::opaque", "CPU", lambda x: x.clone())
    refuse(lambda self, x: torch.ops.heddle_test.opaque(x), r"heddle_test::opaque in module.*register_fake")


def test_refuses_more_than_64_host_values():
    refuse(lambda self, x, n: x * sum(n.tolist()), r"more than 64.*pass it in the batch", {"n": torch.arange(65)})


def test_refuses_compiled_modules():
    model = torch.compile(Net(lambda self, x: x))
    with pytest.raises(heddle.CaptureError, match="OptimizedModule.*capture the plain model"):
        heddle.capture(model, {"x": torch.randn(4, 8)})


def test_refuses_engines_by_class():
    """DeepSpeed's engines wrap the model and are modules themselves; the package need not be installed."""

    class DeepSpeedEngine(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    class PipelineEngine(DeepSpeedEngine):
        pass

    for engine in (DeepSpeedEngine, PipelineEngine, torch.nn.DataParallel):
        with pytest.raises(heddle.CaptureError, match=f"{engine.__name__}: capture the plain model"):
            heddle.capture(engine(torch.nn.Linear(8, 8)), (torch.randn(2, 8),))
    with pytest.raises(heddle.CaptureError, match="no torch.nn.Module"):
        heddle.capture(lambda x: x, (torch.randn(2, 8),))


def test_layer_dropout_of_nothing_is_no_chance():
    """BART, OPT and others draw a number for every layer although the probability is 0; eager's later dropout draws come after it."""
    check(lambda self, x: torch.nn.functional.dropout(self.second(x) if torch.rand([]) < 0.0 else x, 0.5))


def test_refuses_sharded_modules():
    """FSDP2 and DTensor parameters; one process that believes in two ranks is enough, nothing is communicated."""
    from torch.distributed.fsdp import fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
        with pytest.raises(heddle.CaptureError, match="FSDPLinear.*capture the plain model"):
            heddle.capture(fully_shard(torch.nn.Linear(8, 8), mesh=mesh), (torch.randn(2, 8),))
        model = torch.nn.Linear(8, 8)
        model.weight = torch.nn.Parameter(torch.distributed.tensor.distribute_tensor(model.weight.detach(), mesh))
        with pytest.raises(heddle.CaptureError, match="'weight' is a DTensor"):
            heddle.capture(model, (torch.randn(2, 8),))
    finally:
        torch.distributed.destroy_process_group()


def test_nothing_is_rounded_by_default():
    model = Net(lambda self, x: x)
    model.second.bfloat16()
    with pytest.raises(heddle.CaptureError, match="first.weight.*float32.*second.weight.*bfloat16.*pass precision="):
        heddle.capture(model, {"x": torch.randn(4, 8)})
    with pytest.raises(heddle.CaptureError, match="float8_e4m3fn.*pass precision="):
        heddle.capture(torch.nn.ParameterList([torch.zeros(2, dtype=torch.float8_e4m3fn)]), (torch.randn(2, 8),))


def test_refuses_sparse_batch():
    with pytest.raises(heddle.CaptureError, match="batch entry 'x' is sparse"):
        heddle.capture(Net(lambda self, x: x), {"x": torch.randn(4, 8).to_sparse()})


def test_error_names_the_callers_line():
    with pytest.raises(heddle.CaptureError, match=r"test_capture.py:\d+"):
        heddle.capture(Net(lambda self, x: x * OUTSIDE), {"x": torch.randn(4, 8)})


def test_no_loss_and_unknown_precision():
    with pytest.raises(heddle.CaptureError, match="the model returned no loss"):
        heddle.capture(torch.nn.Linear(8, 8), (torch.randn(2, 8),))
    with pytest.raises(heddle.CaptureError, match="unknown precision 'fp99'"):
        heddle.capture(Net(lambda self, x: x), {"x": torch.randn(4, 8)}, precision="fp99")


def test_channels_last_batch_keeps_its_layout():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 4))
    batch = (torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last),)
    report = heddle.check(model, batch, loss=lambda out, _: out.square().mean())
    assert report.bit_identical, report
