"""A model of a few hundred parameters, in odd sizes, in buckets of one and of two, and the eager float64 step that tests compare with: a compilation takes 50 ms, so a property can be tried with every mutant."""

import hashlib
import itertools
from unittest import mock

import torch

import heddle
import heddle.step

CLIP = 0.05


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.last = torch.nn.ModuleList([torch.nn.Linear(5, 13), torch.nn.Linear(13, 7)]), torch.nn.Linear(7, 3)

    def outputs(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.last(x)

    def forward(self, x, y):
        return (self.outputs(x) - y).square().mean()


class Normed(torch.nn.Module):
    """With buffers that the step writes, of which rank 0's are everyone's."""

    def __init__(self, inputs=5):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = torch.nn.Linear(inputs, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3)

    def forward(self, x, y):
        return (self.last(torch.tanh(self.norm(self.first(x)))) - y).square().mean()


def rows(seed, count, dtype=torch.float64):
    """Inputs and targets of `count` rows that no other seed gives."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return tuple(torch.randn(count, n, dtype=torch.float64, generator=generator).to(dtype) for n in (5, 3))


def optimizer(kind):
    return heddle.AdamW(lr=1e-3) if kind == "adamw" else heddle.Muon(lr=2e-2, adamw=heddle.AdamW(lr=1e-3))


def arguments(kind="adamw", **plan):
    return {"optimizer": optimizer(kind), "plan": heddle.Plan(**{"clip": CLIP, "precision": "fp64", **plan})}


def hashes(clip):
    """Of the plans of both optimizers and all stages."""
    found, compile_program = [], heddle.step.compile_program

    def hashing(*given):
        plan = compile_program(*given)
        found.append(hashlib.sha256(plan).hexdigest())
        return plan

    with mock.patch.object(heddle.step, "compile_program", hashing):
        for kind, zero in itertools.product(("adamw", "muon"), range(4)):
            heddle.compile(Net(), rows(0, 2, torch.float32), **arguments(kind, zero=zero, dp=3, precision="fp32", clip=clip))
    return found


class Eager:
    """The same updates in eager PyTorch: the loss is the mean over all rows, as it is where every micro-batch has as many."""

    def __init__(self, model, kind="adamw", clip=CLIP):
        self.model, self.clip = model, clip
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if kind == "muon":
            from test_muon import Reference  # with all of transformers, which who only compiles need not wait for

            self.update = Reference(model, {name for name, p in trained if p.dim() == 2}, 2e-2, 1e-3)
        else:
            self.parameters = [p for _, p in trained]
            self.update = torch.optim.AdamW(self.parameters, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)

    def __call__(self, batch):
        """(loss, norm) of one update."""
        self.model.zero_grad()
        loss = self.model(*batch)
        loss.backward()
        if isinstance(self.update, torch.optim.AdamW):
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=False)
            self.update.step()
        else:
            norm = self.update.step(self.clip)
        return loss.item(), norm.item()


def deviation(step, eager, batches):
    """The largest relative deviation of losses, norms and, at the end, parameters over these updates."""
    worst = 0.0
    for batch in batches:
        out = step(batch)
        loss, norm = eager(batch)
        for ours, theirs in ((out.loss, loss), (out.grad_norm, norm)):
            worst = max(worst, abs(ours - theirs) / abs(theirs) if ours == ours else float("inf"))
    state = step.state_dict()
    for name, parameter in eager.model.named_parameters():
        if parameter.numel():
            difference = float((state[name] - parameter.detach()).abs().max() / parameter.detach().abs().max())
            worst = max(worst, difference if difference == difference else float("inf"))
    return worst
