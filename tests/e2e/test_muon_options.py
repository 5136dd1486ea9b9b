"""Every option of heddle.Muon through the whole pipeline, on ranks and stages: in float64 the numbers of a Muon that is written here from the options' definitions.

Options meet in pairs. The bound bites: each option's reference with another value of it fails every case in which that matters (`test_every_option_matters`).
"""

import itertools
import re

import mutation
import pytest
import torch
from reference import one_thread  # noqa: F401
from test_zero import off

import heddle

BOUND, CLIP, ROWS = 1e-9, 0.05, 2
# As published: Jordan (2024); You's five; Polar Express (Amsel, Persson, Musco, Gower) with its argument divided by 1.05.
YOU = [(4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037), (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)]
POLAR = [(8.28721, -23.59589, 17.30039), (4.10706, -2.94785, 0.54484), (3.94869, -2.90890, 0.55182), (3.31842, -2.48849, 0.51005), (2.30065, -1.66890, 0.41881)]
COEFFICIENTS = {
    "keller_jordan": [(3.4445, -4.7750, 2.0315)],
    "you": YOU,
    "polar_express": [(a / 1.05, b / 1.05**3, c / 1.05**5) for a, b, c in POLAR],
    "own": [(3.0, -3.2, 1.2), (2.0, -1.5, 0.5)],
}
SCALES = {
    "match_rms": lambda m, n: 0.2 * max(m, n) ** 0.5,
    "original": lambda m, n: max(1.0, m / n) ** 0.5,
    "spectral": lambda m, n: (m / n) ** 0.5,
    "none": lambda m, n: 1.0,
}
SPLIT = {"q.weight": 4, "gate_up": 2}
OPTIONS = {
    "ns": ["gram", "standard"],
    "coefficients": list(COEFFICIENTS),
    "scale": list(SCALES),
    "momentum_form": ["torch", "ema"],
    "nesterov": [True, False],
    "norm_eps": ["add", "clamp"],
    "ns_steps": [5, 3, 7],
    "momentum": [0.95, 0.8],
    "eps": [1e-7, 1e-2],
    "weight_decay": [0.1, 0.0],
    "split": [None, SPLIT],
    "place": [(0, 1), (0, 3), (1, 2), (2, 4), (3, 3), (3, 8)],
}


class Net(torch.nn.Module):
    """A wide, a tall and a square matrix, heads of a projection, experts' stacks with gate and up in one, and what is AdamW's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        new = lambda *shape: torch.nn.Parameter(torch.randn(shape) / 4)  # noqa: E731
        self.q, self.square = torch.nn.Linear(10, 12), torch.nn.Linear(12, 12)
        self.gate_up, self.down = new(3, 14, 12), new(3, 5, 7)
        self.last = torch.nn.Linear(5, 3)

    def forward(self, x, y):
        h = torch.tanh(self.square(torch.tanh(self.q(x))))
        gate, up = torch.einsum("emn,bn->ebm", self.gate_up, h).chunk(2, -1)
        return (self.last(torch.einsum("emn,ebn->bm", self.down, torch.sigmoid(gate) * up)) - y).square().mean()


def rows(seed, count):
    generator = torch.Generator().manual_seed(3000 + seed)
    return tuple(torch.randn(count, n, dtype=torch.float64, generator=generator) for n in (10, 3))


def orthogonal(matrix, chosen):
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    norm = wide.norm()
    x = wide / (norm + chosen["eps"] if chosen["norm_eps"] == "add" else norm.clamp(min=chosen["eps"]))
    coefficients = COEFFICIENTS[chosen["coefficients"]]
    for i in range(chosen["ns_steps"]):
        a, b, c = coefficients[min(i, len(coefficients) - 1)]
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Reference:
    def __init__(self, chosen, lr=2e-2, adamw_lr=1e-3):
        self.model, self.chosen, self.lr = Net().double(), chosen, lr
        named = dict(self.model.named_parameters())
        self.matrices = {name: p for name, p in named.items() if p.dim() >= 2}
        self.momenta = {name: torch.zeros_like(p) for name, p in self.matrices.items()}
        self.adamw = torch.optim.AdamW([p for p in named.values() if p.dim() < 2], lr=adamw_lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)

    def __call__(self, batch):
        self.model.zero_grad()
        loss = self.model(*batch)
        loss.backward()
        raw = {name: p.grad.clone() for name, p in self.matrices.items()}
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP, foreach=False)
        assert norm > CLIP
        self.adamw.step()
        chosen, beta = self.chosen, self.chosen["momentum"]
        for name, p in self.matrices.items():
            m, g = self.momenta[name], raw[name]
            if chosen["momentum_form"] == "torch":
                m.mul_(beta).add_(g)
                update = g + beta * m if chosen["nesterov"] else m
            else:
                m.lerp_(g, 1 - beta)
                update = g.lerp(m, beta) if chosen["nesterov"] else m
            height, width = p.shape[-2] // (chosen["split"] or {}).get(name, 1), p.shape[-1]
            parts = torch.stack([orthogonal(part, chosen) for part in update.reshape(-1, height, width)]).reshape(p.shape)
            with torch.no_grad():
                p.mul_(1 - self.lr * chosen["weight_decay"]).sub_(parts * self.lr * SCALES[chosen["scale"]](height, width))
        return loss.item(), norm.item()


def compiled(chosen):
    zero, ranks = chosen["place"]
    options = {key: value for key, value in chosen.items() if key != "place"}
    options["coefficients"] = COEFFICIENTS["own"] if chosen["coefficients"] == "own" else chosen["coefficients"]
    optimizer = heddle.Muon(lr=2e-2, adamw=heddle.AdamW(lr=1e-3), **options)
    return heddle.compile(Net().double(), rows(0, ROWS), optimizer=optimizer, plan=heddle.Plan(zero=zero, dp=ranks, clip=CLIP, precision="fp64"))


def trained(chosen, updates=3):
    """Weights and momenta after some updates."""
    step, ranks = compiled(chosen), chosen["place"][1]
    outputs = [step(rows(number, 2 * ROWS * ranks)) for number in range(updates)]
    return outputs, step.state_dict(), {name: kinds["momentum"] for name, kinds in step.optimizer_state_dict()["state"].items() if "momentum" in kinds}


def worst(found, chosen):
    outputs, state, momenta = found
    reference, apart = Reference(chosen), 0.0
    for number, out in enumerate(outputs):
        loss, norm = reference(rows(number, 2 * ROWS * chosen["place"][1]))
        apart = max(apart, abs(out.loss - loss) / abs(loss), abs(out.grad_norm - norm) / norm)
    assert momenta.keys() == reference.momenta.keys()
    for name, p in reference.model.named_parameters():
        apart = max(apart, off(state[name], p))
    return max([apart, *(off(momenta[name], tensor) for name, tensor in reference.momenta.items())])


def chosen_rows():
    numbered = {key: list(range(len(values))) for key, values in OPTIONS.items()}
    return [dict(zip(OPTIONS, (OPTIONS[key][i] for key, i in zip(OPTIONS, row)))) for row in pairs(numbered)]


def pairs(numbered):
    """Rows in which every two values of different options meet: greedy, a column at a time."""
    missing = {(a, i, b, j) for a, b in itertools.combinations(range(len(numbered)), 2) for i in list(numbered.values())[a] for j in list(numbered.values())[b]}
    found = []
    while missing:
        a, i, b, j = min(missing)
        row = {a: i, b: j}
        for column, values in enumerate(numbered.values()):
            if column in row:
                continue
            gain = lambda value: sum((min((column, value), (c, v)) + max((column, value), (c, v))) in missing for c, v in row.items())  # noqa: E731
            row[column] = max(values, key=gain)
        done = [row[column] for column in range(len(numbered))]
        missing -= {(a, done[a], b, done[b]) for a, b in itertools.combinations(range(len(done)), 2)}
        found.append(tuple(done))
    return found


@pytest.mark.parametrize("chosen", chosen_rows(), ids=lambda chosen: "-".join(str(value).replace(" ", "") for key, value in chosen.items() if key != "split") + ("-split" if chosen["split"] else ""))
def test_options_in_pairs(chosen):
    assert worst(trained(chosen), chosen) <= BOUND


@pytest.mark.parametrize(
    "precision, ns, asked, expected",
    [("fp64", "gram", None, "fp64"), ("fp32", "gram", None, "fp32"), ("fp32", "standard", None, "fp32"), ("bf16", "gram", None, "fp16"), ("bf16", "standard", None, "bf16"), ("fp16", "gram", None, "fp16"),
     ("fp16", "standard", None, "bf16"), ("fp64", "gram", "fp32", "fp32"), ("fp32", "standard", "bf16", "bf16"), ("bf16", "gram", "fp64", "fp64")],
)  # fmt: skip
def test_the_dtype_of_the_iteration(precision, ns, asked, expected):
    """As asked for, or as the precision and the form have it; and it is what the iterates have: on the same gradients the update is as far from float64's as that dtype rounds. (Momentum is fp32 outside of fp64.)"""
    dtype = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    batch = tuple(part.to(dtype) for part in rows(0, 2 * ROWS * 2))
    optimizer = heddle.Muon(lr=1.0, adamw=heddle.AdamW(lr=1e-3), ns=ns, ns_dtype=asked, weight_decay=0.0, scale="none")
    step, text = mutation.compiled(Net(), tuple(part[:ROWS] for part in batch), optimizer=optimizer, plan=heddle.Plan(zero=2, dp=2, precision=precision, master_dtype="fp64", loss_scale=64.0 if precision == "fp16" else None))
    assert set(re.findall(r'"optim\.muon".*?dtype = "(\w+)"', text["dist"])) == {expected}
    gradients, before = step.gradients(batch), step.state_dict()
    assert not step(batch).skipped
    after, chosen = step.state_dict(), {**DEFAULTS, "ns": ns}
    apart = []
    for name in ("q.weight", "square.weight"):
        moved, exact = before[name].double() - after[name].double(), orthogonal(1.95 * gradients[name].double(), chosen)
        apart.append(float((moved - exact).norm() / exact.norm()))
    low, high = {"fp64": (0, 1e-9 if precision == "fp64" else 1e-5), "fp32": (1e-9, 1e-4), "fp16": (1e-4, 5e-2), "bf16": (2e-3, 0.2)}[expected]
    assert all(low <= each <= high for each in apart), apart


DEFAULTS = {key: values[0] for key, values in OPTIONS.items()}


@pytest.mark.parametrize("option", [option for option in OPTIONS if option != "place"])
def test_every_option_matters(option):
    """The step with one value of the option against the reference with another: the comparison sees each of them, but for the form of Newton-Schulz, which changes how and not what."""
    found = trained({**DEFAULTS, "place": (2, 2), "eps": 1e-2})
    for value in OPTIONS[option]:
        chosen = {**DEFAULTS, "place": (2, 2), "eps": 1e-2, option: value}
        apart = worst(found, chosen)
        assert (apart <= BOUND) == (option == "ns" or value == {**DEFAULTS, "eps": 1e-2}[option]), (value, apart)
