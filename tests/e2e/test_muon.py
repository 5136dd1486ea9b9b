"""heddle.Muon on several ranks and stages: in float64 the numbers of a Newton-Schulz written here, on the concatenated batch.

The bounds bite: with the reference's momentum fed clipped gradients, its stacks flattened, its splits forgotten or its last matrix left out, every case of `test_free_run_in_fp64` fails.
"""

import itertools
import os

import pytest
import torch
from mutation import lowered
from reference import Fp64Inside, joined, micro_batch, one_thread  # noqa: F401
from small import Net, rows
from test_zero import CLIP, micros_of, model_of, off, pairwise

import heddle

FULL = os.environ.get("HEDDLE_TEST_FULL") == "1"
MATRIX = {"family": ["llama", "qwen3", "gpt2", "deepseek_v3"], "zero": [0, 1, 2, 3], "ranks": [1, 2, 3, 4, 8], "micros": [1, 3, 4]}
KELLER_JORDAN = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix, coefficients=(KELLER_JORDAN,) * 5, eps=1e-7):
    """The quintic iteration (Jordan, 2024) on the wide orientation, in float64."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + eps)
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Reference:
    """Muon with momentum m = 0.95 m + g, Nesterov, for `names`, every matrix of a stack by itself; AdamW for the rest. Only AdamW sees clipped gradients."""

    def __init__(self, model, names, lr, adamw_lr, split=None):
        self.muon = {name: parameter for name, parameter in model.named_parameters() if name in names}
        self.rest = [parameter for name, parameter in model.named_parameters() if name not in names]
        self.momenta = {name: torch.zeros_like(parameter) for name, parameter in self.muon.items()}
        self.adamw = torch.optim.AdamW(self.rest or [torch.zeros(0)], lr=adamw_lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
        self.lr, self.split = lr, split or {}

    def step(self, clip):
        raw = {name: parameter.grad.clone() for name, parameter in self.muon.items()}
        norm = torch.nn.utils.clip_grad_norm_([*self.muon.values(), *self.rest], clip, foreach=False)
        self.adamw.step()
        for name, parameter in self.muon.items():
            momentum = self.momenta[name].mul_(0.95).add_(raw[name])
            update = raw[name] + 0.95 * momentum
            rows = parameter.shape[-2] // self.split.get(name, 1)
            matrices = update.reshape(-1, rows, parameter.shape[-1])
            update = torch.stack([orthogonal(matrix) for matrix in matrices]).reshape(parameter.shape)
            with torch.no_grad():
                parameter.mul_(1 - self.lr * 0.1).sub_(update * self.lr * 0.2 * max(rows, parameter.shape[-1]) ** 0.5)
        return norm


def is_matrix(name, parameter):
    return parameter.dim() >= 2 and not any(part in name for part in ("embed", "lm_head", "wte", "wpe"))


@pytest.mark.parametrize("family, zero, ranks, micros", list(itertools.product(*MATRIX.values())) if FULL else pairwise(MATRIX))
@pytest.mark.parametrize("ns", ["standard", "gram"] if FULL else ["gram"])
def test_free_run_in_fp64(family, zero, ranks, micros, ns):
    model = model_of(family)
    names = {name for name, parameter in model.named_parameters() if is_matrix(name, parameter)}
    # Queries by head, and a stack of experts into gate and up.
    split = {name: 4 if "q_" in name else 2 for name in names if name.endswith(("q_proj.weight", "q_b_proj.weight", "gate_up_proj"))}
    assert split or family == "gpt2"
    optimizer = heddle.Muon(lr=2e-2, adamw=heddle.AdamW(lr=1e-3), ns=ns, split=split)
    step = heddle.compile(model, micro_batch(0, 8, 1, 8), optimizer=optimizer, plan=heddle.Plan(precision="fp64", clip=CLIP, zero=zero, dp=ranks))
    assert {name for name, state in step.optimizer_state_dict()["state"].items() if "momentum" in state} == names
    reference = model.double()
    update = Reference(reference, names, 2e-2, 1e-3, split)
    for number in range(10):
        batch = joined(micros_of(number, ranks * micros))
        gradients = step.gradients(batch) if FULL or number in (0, 9) else {}
        out = step(batch)
        reference.zero_grad()
        with Fp64Inside():
            loss = reference(**batch, use_cache=False).loss
        loss.backward()
        assert {name: off(gradient, reference.get_parameter(name).grad) for name, gradient in gradients.items() if off(gradient, reference.get_parameter(name).grad) > 1e-9} == {}
        norm = update.step(CLIP)
        assert norm > CLIP
        assert out.loss == pytest.approx(loss.item(), rel=1e-9)
        assert out.grad_norm == pytest.approx(norm.item(), rel=1e-9)
    state = step.state_dict()
    assert {name: off(state[name], parameter) for name, parameter in reference.named_parameters() if off(state[name], parameter) > 1e-9} == {}


@pytest.mark.parametrize("zero, ranks", [(0, 2), (3, 3)])
def test_each_matrix_is_orthogonalised_once_over_all_ranks(zero, ranks):
    """Counted in the plan: a rank's lists hold its own matrices only, and together they hold every one."""
    model = model_of("deepseek_v3")
    step = heddle.compile(model, micro_batch(0, 8, 1, 8), optimizer=heddle.Muon(lr=1e-2, adamw=heddle.AdamW(lr=1e-3)), plan=heddle.Plan(precision="fp32", zero=zero, dp=ranks))
    wanted = sum(parameter.numel() // (parameter.shape[-1] * parameter.shape[-2]) for name, parameter in model.named_parameters() if is_matrix(name, parameter))
    assert step.explain()["newton_schulz"] == {"matrices": wanted, "by_rank": step.explain()["newton_schulz"]["by_rank"]}
    by_rank = step.explain()["newton_schulz"]["by_rank"]
    assert sum(by_rank) == wanted and len(by_rank) == ranks and min(by_rank) > 0


@pytest.mark.parametrize("zero", [1, 3])
def test_a_checkpoint_keeps_momentum_across_worlds(zero, tmp_path):
    """Two steps, a checkpoint, two more: the same weights on 3 ranks as on the 2 that wrote it."""
    batch = lambda number: joined(micros_of(number, 6))  # noqa: E731
    make = lambda zero, ranks: heddle.compile(model_of("llama"), micro_batch(0, 8, 1, 8), optimizer=heddle.Muon(lr=1e-2, adamw=heddle.AdamW(lr=1e-3)), plan=heddle.Plan(precision="fp64", zero=zero, dp=ranks))  # noqa: E731
    first = make(zero, 2)
    for number in range(2):
        first(batch(number))
    first.save_checkpoint(tmp_path)
    second = make(4 - zero if zero == 3 else 2, 3)
    second.load_checkpoint(tmp_path)
    for number in range(2, 4):
        first(batch(number))
        second(batch(number))
    ours, theirs = second.state_dict(), first.state_dict()
    assert max(off(ours[name], theirs[name]) for name in theirs) <= 1e-9


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"params": [{"params": ["*layernorm*"]}, {"params": ["*"], "use_muon": False}]}, "takes '.*layernorm.*', which group 0 has"),
        ({"params": [{"params": ["*q_porj*"]}]}, "takes no parameter"),
        ({"params": [{"params": ["*"], "momentun": 0.9}]}, "no option 'momentun'; did you mean 'momentum'"),
        ({"params": [{"params": ["*norm*"]}, {"params": ["*proj*", "*embed*", "*lm_head*"], "use_muon": False}]}, "by Muon: it takes matrices and stacks of matrices; give it to AdamW"),
        ({"params": [{"params": ["*proj*"]}, {"params": ["*norm*"], "use_muon": False}]}, 'no param group takes "model.embed_tokens.weight"'),
        ({"split": {"*.q_proj.weight": 7}}, "rows do not split into 7 blocks"),
        ({"split": {"*.q_prj.weight": 2}}, r"split: '\*.q_prj.weight' takes no parameter"),
        ({"split": {"*embed_tokens.weight": 2}}, r'split of "\*embed_tokens.weight" takes no matrix that Muon updates'),
        ({"split": {"*.q_proj.weight": 2, "*layers.0*q_proj*": 4}}, "split gives it 2 and 4 blocks"),
        ({"scale": "rms"}, "scale='rms' is not one of"),
        ({"ns_steps": 0}, "ns_steps=0 is not in 1 to 32"),
        ({"coefficients": [(1, 2)]}, "neither a name nor a list"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(heddle.HeddleError, match=message):
        heddle.compile(model_of("llama"), micro_batch(0, 8, 1, 8), optimizer=heddle.Muon(lr=1e-2, adamw=heddle.AdamW(lr=1e-3), **arguments), plan=heddle.Plan(precision="fp32", dp=2))


class Deep(Net):
    """Ten matrices of five shapes."""

    def __init__(self):
        super().__init__()
        sizes = [5, *[16] * 7, 24, 16]
        self.layers, self.last = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)), torch.nn.Linear(16, 3)


@pytest.mark.parametrize("zero, ranks, ns", [(0, 1, "gram"), (0, 1, "standard"), (1, 2, "gram"), (3, 3, "standard")])
def test_batches_change_no_bit(zero, ranks, ns):
    """Matrices two at a time and all at once: the same losses and weights, bit for bit, in a smaller arena. With pieces that begin at entry 0 of their shape it fails."""
    states, arenas = [], []
    for stack in (1, 2**30):
        optimizer = heddle.Muon(lr=1e-2, ns=ns, adamw=heddle.AdamW(lr=1e-3))
        step = lowered(f"muon-stack={stack}", Deep(), rows(0, 2, torch.float32), optimizer=optimizer, plan=heddle.Plan(zero=zero, dp=ranks, clip=1.0))
        losses = [float(step(rows(number, 2 * ranks, torch.float32)).loss) for number in range(3)]
        states.append((losses, step.state_dict()))
        arenas.append(step.explain()["sections"]["boundary"]["scratch_bytes"])
        assert step.explain()["newton_schulz"]["matrices"] == 10
    assert states[0][0] == states[1][0] and all(torch.equal(states[0][1][name], tensor) for name, tensor in states[1][1].items())
    assert ranks > 1 or arenas[0] < arenas[1] // 2
