"""Learning rates on several ranks: schedules and groups against torch's schedulers and param groups, in float64.

The bounds bite: with the factor of the next update (schedules count from 1, torch's from 0), for AdamW and for Muon, or with one group's rate 0.1 % off, the cases tried fail.
"""

import math

import pytest
import torch
from reference import one_thread  # noqa: F401
from small import CLIP, Net, rows
from test_muon import orthogonal

import heddle

BOUND, LR, UPDATES = 1e-9, 3e-3, 8
RANKS = [(0, 1), (0, 3), (1, 2), (2, 4), (3, 3)]


def torch_cosine(warmup, total):
    """transformers.get_cosine_schedule_with_warmup's factor of update `number`, from 0."""

    def factor(number):
        if number < warmup:
            return number / max(1, warmup)
        return max(0.0, 0.5 * (1 + math.cos(math.pi * (number - warmup) / max(1, total - warmup))))

    return factor


SCHEDULES = {
    # name: (ours, torch's scheduler for an optimizer)
    "constant": (None, lambda opt: torch.optim.lr_scheduler.ConstantLR(opt, factor=1.0)),
    "warm-up": (heddle.schedules.constant(warmup=4), lambda opt: torch.optim.lr_scheduler.LinearLR(opt, start_factor=1 / 4, total_iters=3)),
    "linear": (heddle.schedules.linear(total=10), lambda opt: torch.optim.lr_scheduler.LinearLR(opt, start_factor=0.9, end_factor=0.0, total_iters=9)),
    "cosine": (heddle.schedules.cosine(warmup=3, total=10), lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda number: torch_cosine(3, 10)(number + 1))),
    "callable": (lambda number: 1 / number**0.5, lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda number: (number + 1) ** -0.5)),
}


def groups(model):
    """Biases without decay at a third of the rate; one matrix with other betas and eps."""
    bias = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    own = ["layers.1.weight"]
    rest = [name for name, _ in model.named_parameters() if name not in bias + own]
    return [
        {"params": bias, "lr": LR / 3, "weight_decay": 0.0},
        {"params": own, "betas": (0.7, 0.9), "eps": 1e-5, "weight_decay": 0.3},
        {"params": rest},
    ]


@pytest.mark.parametrize("zero, ranks", RANKS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_adamw_with_groups_under_a_schedule(schedule, zero, ranks):
    ours, theirs = SCHEDULES[schedule]
    model = Net().double()
    defaults = {"lr": LR, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    plan = heddle.Plan(zero=zero, dp=ranks, clip=CLIP, precision="fp64")
    step = heddle.compile(model, rows(0, 2), optimizer=heddle.AdamW(**defaults, params=groups(model)), schedule=ours, plan=plan)
    optimizer = torch.optim.AdamW([{**group, "params": [model.get_parameter(name) for name in group["params"]]} for group in groups(model)], **defaults, foreach=False)
    scheduler, rates = theirs(optimizer), []
    for number in range(UPDATES):
        batch = rows(number, 2 * ranks)
        out = step(batch)
        optimizer.zero_grad()
        model(*batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP, foreach=False)
        rates.append(optimizer.param_groups[2]["lr"])
        assert out.lr == pytest.approx(rates[-1], rel=1e-12, abs=1e-15)
        optimizer.step()
        scheduler.step()
    assert schedule == "constant" or len({round(rate, 12) for rate in rates}) >= 4
    state = step.state_dict()
    assert {name for name, p in model.named_parameters() if float((state[name] - p.detach()).abs().max()) > BOUND * float(p.detach().abs().max())} == set()


@pytest.mark.parametrize("zero, ranks", RANKS)
def test_muon_with_groups_under_a_schedule(zero, ranks):
    """Two groups of matrices with settings of their own and one for AdamW; the schedule multiplies every rate. The reference is written out from each group's numbers."""
    model = Net().double()
    schedule = heddle.schedules.cosine(warmup=3, total=10)
    settings = {"layers.0.weight": (2e-2, 0.9, 0.0, False), "layers.1.weight": (2e-2, 0.9, 0.0, False), "last.weight": (5e-3, 0.95, 0.2, True)}
    params = [
        {"params": ["layers.*.weight"], "momentum": 0.9, "weight_decay": 0.0, "nesterov": False},
        {"params": ["last.weight"], "lr": 5e-3, "weight_decay": 0.2},
        {"params": ["*bias"], "use_muon": False, "lr": 1e-3, "weight_decay": 0.0},
    ]
    optimizer = heddle.Muon(lr=2e-2, adamw=heddle.AdamW(lr=3e-3), scale="spectral", params=params)
    step = heddle.compile(model, rows(0, 2), optimizer=optimizer, schedule=schedule, plan=heddle.Plan(zero=zero, dp=ranks, clip=CLIP, precision="fp64"))
    adamw = torch.optim.AdamW([p for name, p in model.named_parameters() if name.endswith("bias")], lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, foreach=False)
    scheduler = torch.optim.lr_scheduler.LambdaLR(adamw, lambda number: torch_cosine(3, 10)(number + 1))
    momenta = {name: torch.zeros_like(model.get_parameter(name)) for name in settings}
    for number in range(UPDATES):
        batch = rows(number, 2 * ranks)
        step(batch)
        model.zero_grad()
        model(*batch).backward()
        raw = {name: model.get_parameter(name).grad.clone() for name in settings}
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP, foreach=False)
        for name, (lr, momentum, decay, nesterov) in settings.items():
            p, rate = model.get_parameter(name), lr * torch_cosine(3, 10)(number + 1)
            momenta[name].mul_(momentum).add_(raw[name])
            update = orthogonal(raw[name] + momentum * momenta[name] if nesterov else momenta[name])
            with torch.no_grad():
                p.mul_(1 - rate * decay).sub_(rate * (p.shape[0] / p.shape[1]) ** 0.5 * update)
        adamw.step()
        scheduler.step()
    state = step.state_dict()
    assert {name for name, p in model.named_parameters() if float((state[name] - p.detach()).abs().max()) > BOUND * float(p.detach().abs().max())} == set()
