"""Random training steps through the whole pipeline, in float64: one rank or several, any stage, AdamW or Muon, beside eager PyTorch on the concatenated batch.

A seed draws everything: the model, the mesh, the stage, the optimizer, the micro-batches. One that fails prints the program and the command that runs it alone.
The bound bites: with the sum over ranks left out (`return OkStatus` in CollectiveStep::Execute) or a gradient of a shared weight added once only, seeds of every stage fail.
"""

import os
import random

import pytest
import torch
from reference import one_thread  # noqa: F401
from test_muon import Reference, is_matrix
from test_zero import adamw, off

import heddle

ONE = os.environ.get("HEDDLE_RANDOM_SEED")
SEEDS = [int(ONE)] if ONE else range(500 if os.environ.get("HEDDLE_TEST_FULL") == "1" else 24)
ROWS, WIDTHS, CLIP = 2, (1, 3, 4, 6, 8, 13), 0.05


class Program(torch.nn.Module):
    """A random graph over values of `ROWS` rows; every row is by itself, so that the mean over a batch is the mean over its micro-batches."""

    def __init__(self, seed):
        super().__init__()
        self.draw, self.steps, self.widths = random.Random(seed), [], []
        torch.manual_seed(seed)
        self.embed = torch.nn.Embedding(11, self.draw.choice(WIDTHS))
        self.values = [self.embed.embedding_dim, 5]
        self.linears = []
        for _ in range(self.draw.randint(3, 9)):
            getattr(self, "_" + self.draw.choice(("linear", "linear", "linear", "norm", "pointwise", "scale", "sum", "join", "part", "turn", "reduce", "attend")))()
        if self.draw.random() < 0.4:
            self.unused = torch.nn.Parameter(torch.randn(self.draw.choice((1, 7, 130))))
        # Shared parameters are updated once.
        self.last = torch.nn.Linear(sum(self.values[2:]) or self.values[0], 3, bias=self.draw.random() < 0.5)
        self.long = torch.nn.Parameter(torch.randn(self.draw.choice((1, 13, 257)))) if self.draw.random() < 0.5 else None
        self.double()

    def _add(self, text, width, function):
        self.steps.append((text, function))
        self.values.append(width)

    def _any(self, least=1):
        known = [i for i, width in enumerate(self.values) if width >= least]
        return self.draw.choice(known) if known else None

    def _own(self, module):
        setattr(self, f"m{len(self.steps)}", module)
        return module

    def _linear(self):
        i = self._any()
        shared = [module for module in self.linears if module.in_features == self.values[i]]
        if shared and self.draw.random() < 0.5:
            module, how = self.draw.choice(shared), "shared linear"
            if self.draw.random() < 0.5:  # the weight under another name, with a bias of its own
                other = torch.nn.Linear(module.in_features, module.out_features)
                other.weight = module.weight
                module = self._own(other)
        else:
            module, how = self._own(torch.nn.Linear(self.values[i], self.draw.choice(WIDTHS), bias=self.draw.random() < 0.6)), "linear"
            self.linears.append(module)
            if self.draw.random() < 0.2:
                module.requires_grad_(False)
                how = "frozen linear"
        self._add(f"{how}({i})", module.out_features, lambda v, m=module: m(v[i]))

    def _norm(self):
        i = self._any(least=3)
        if i is not None:
            module = self._own(torch.nn.LayerNorm(self.values[i], elementwise_affine=self.draw.random() < 0.7) if self.draw.random() < 0.5 else torch.nn.RMSNorm(self.values[i], eps=1e-6))
            self._add(f"{module}({i})", self.values[i], lambda v, m=module: m(v[i]))

    def _pointwise(self):
        i = self._any()
        name = self.draw.choice(("tanh", "sigmoid", "gelu", "silu", "softplus", "relu"))
        function = getattr(torch, name, None) or getattr(torch.nn.functional, name)
        self._add(f"{name}({i})", self.values[i], lambda v: function(v[i]))

    def _scale(self):
        i = self._any()
        weight = torch.nn.Parameter(torch.randn(() if self.draw.random() < 0.5 else self.values[i]))
        setattr(self, f"m{len(self.steps)}", weight)
        name = f"m{len(self.steps)}"
        self._add(f"{i} * parameter{list(weight.shape)}", self.values[i], lambda v: v[i] * getattr(self, name))

    def _sum(self):
        i = self._any()
        j = self.draw.choice([j for j, width in enumerate(self.values) if width in (1, self.values[i])])
        self._add(f"{i} + {j}", self.values[i], lambda v: v[i] + 0.5 * v[j])

    def _join(self):
        i, j = self._any(), self._any()
        self._add(f"join({i}, {j})", self.values[i] + self.values[j], lambda v: torch.cat([v[i], v[j]], -1))

    def _part(self):
        i = self._any(least=2)
        if i is not None:
            first = self.draw.randrange(self.values[i] - 1)
            self._add(f"{i}[{first}:]", self.values[i] - first, lambda v: v[i][:, first:])

    def _turn(self):
        i = self._any(least=4)
        if i is not None and self.values[i] % 2 == 0:
            self._add(f"turned {i}", self.values[i], lambda v: v[i].view(ROWS * (v[i].shape[0] // ROWS), 2, -1).transpose(1, 2).flatten(1))

    def _reduce(self):
        i = self._any()
        name = self.draw.choice(("mean", "sum", "amax", "logsumexp"))
        self._add(f"{name}({i})", 1, lambda v: getattr(v[i], name)(-1, keepdim=True))

    def _attend(self):
        i = self._any(least=4)
        if i is not None and self.values[i] % 2 == 0:
            heads = lambda v: v[i].unflatten(-1, (2, -1))  # noqa: E731
            self._add(f"attend({i})", self.values[i], lambda v: (torch.softmax(heads(v) @ heads(v).mT, -1) @ heads(v)).flatten(1))

    def forward(self, ids, x, y):
        values = [self.embed(ids), x]
        for _, function in self.steps:
            values.append(function(values))
        out = self.last(torch.cat(values[2:], -1) if len(values) > 2 else values[0])
        return (out - y).square().mean() + (0 if self.long is None else self.long.square().mean())


def batch_of(number, count):
    make = torch.Generator().manual_seed(number)
    return tuple(torch.cat(parts) for parts in zip(*((torch.randint(0, 11, (ROWS,), generator=make), torch.randn(ROWS, 5, dtype=torch.float64, generator=make), torch.randn(ROWS, 3, dtype=torch.float64, generator=make)) for _ in range(count))))


@pytest.mark.parametrize("seed", SEEDS)
def test_one_rank_or_many(seed):
    draw = random.Random(1000 + seed)
    ranks, zero, micros, muon, overlap = draw.choice((1, 2, 3, 4)), draw.choice((0, 1, 2, 3)), draw.choice((1, 2, 3)), draw.random() < 0.4, draw.random() < 0.8
    model = Program(seed)
    told = "\n".join(f"  {i}: {text}" for i, (text, _) in enumerate(model.steps, 2))
    about = f"HEDDLE_RANDOM_SEED={seed} ./dev python -m pytest tests/e2e/test_random_programs.py\nstage {zero} on {ranks} ranks, {micros} micro-batches, {'muon' if muon else 'adamw'}, overlap={overlap}; 0: embedding, 1: input of 5\n{told}"
    try:
        trains_like_eager(model, ranks, zero, micros, muon, overlap)
    except Exception as error:
        raise AssertionError(f"{error}\n{about}") from error


def trains_like_eager(model, ranks, zero, micros, muon, overlap):
    optimizer = heddle.AdamW(lr=1e-3)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad and is_matrix(name, parameter) and name != "unused"}
    if muon and names:
        optimizer = heddle.Muon(lr=2e-2, adamw=optimizer, ns="standard")
    step = heddle.compile(model, batch_of(0, 1), optimizer=optimizer, plan=heddle.Plan(zero=zero, dp=ranks, precision="fp64", clip=CLIP, overlap=overlap))
    loss = model(*batch_of(0, 1))
    loss.backward()
    used = {name: parameter for name, parameter in model.named_parameters() if parameter.grad is not None}
    # What the loss does not depend on is left alone, as torch.optim leaves it.
    view = torch.nn.Module()
    view.named_parameters = lambda: iter(used.items())
    reference = Reference(view, names & used.keys(), 2e-2, 1e-3) if muon and names else adamw(list(used.values()))
    for number in range(1, 4):
        whole = batch_of(number, ranks * micros)
        gradients = step.gradients(whole)
        out = step(whole)
        model.zero_grad()
        loss = model(*whole)
        loss.backward()
        assert {name for name, parameter in used.items() if off(gradients[name], parameter.grad) > 1e-9} == set()
        if muon and names:
            norm = reference.step(CLIP)
        else:
            norm = torch.nn.utils.clip_grad_norm_(list(used.values()), CLIP, foreach=False)
            reference.step()
        assert out.loss == pytest.approx(loss.item(), rel=1e-9)
        assert out.grad_norm == pytest.approx(norm.item(), rel=1e-9)
    state = step.state_dict()
    assert {name: off(state[name], parameter) for name, parameter in model.named_parameters() if off(state[name], parameter) > 1e-9} == {}
