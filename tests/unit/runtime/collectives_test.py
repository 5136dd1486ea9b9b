"""Every collective of a distributed step is needed: without it the plan is refused, or the numbers are others."""

import os
import pathlib
import subprocess

import pytest
import torch

import heddle
import heddle.step

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])
RANKS = 3


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = torch.nn.Linear(13, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, 3)

    def forward(self, x, y):
        return (self.last(torch.tanh(self.norm(self.first(x)))) - y).square().mean()


def batch(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2 * count, 13, dtype=torch.float64, generator=generator), torch.randn(2 * count, 3, dtype=torch.float64, generator=generator)


def trained(zero, optimizer):
    """Weights, moments, norms and losses after three updates of two micro-batches a rank, and the evaluation that follows."""
    step = heddle.compile(Network().double(), batch(0, 1), optimizer=optimizer, plan=heddle.Plan(zero=zero, dp=RANKS, clip=0.05, precision="fp64"))
    outputs = [step(batch(number, 2 * RANKS)) for number in range(3)]
    moments = step.optimizer_state_dict()["state"]
    return [
        *step.state_dict().values(),
        *(tensor for kinds in moments.values() for tensor in kinds.values()),
        torch.tensor([(out.loss, out.grad_norm) for out in outputs], dtype=torch.float64),
        torch.tensor(step.evaluate(batch(9, RANKS)).loss, dtype=torch.float64),
    ]


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_step_without_one_of_its_collectives_is_found(zero, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    intact = trained(zero, heddle.AdamW(lr=1e-2))
    assert all(torch.equal(a, b) for a, b in zip(intact, trained(zero, heddle.AdamW(lr=1e-2)))), "what is compared must be the same from run to run"
    compile_program, dropped = heddle.step.compile_program, []

    def without(*arguments):
        (tmp_path / "whole.plan").write_bytes(compile_program(*arguments))
        (tmp_path / "part.plan").unlink(missing_ok=True)
        run = subprocess.run([LIBRARIES / "drop_collective", tmp_path / "whole.plan", tmp_path / "part.plan", str(len(dropped))], check=True, capture_output=True, text=True)
        dropped.append(run.stdout)
        return (tmp_path / ("part.plan" if run.stdout else "whole.plan")).read_bytes()

    monkeypatch.setattr(heddle.step, "compile_program", without)
    refused, other, unnoticed = 0, 0, []
    while True:
        try:
            results = trained(zero, heddle.AdamW(lr=1e-2))
        except heddle.HeddleError as error:
            assert "plan_" in str(error), error
            refused += 1
            continue
        if not dropped[-1]:
            break
        if max(float((a - b).abs().max()) for a, b in zip(intact, results)) > 1e-9:
            other += 1
        else:
            unnoticed.append(dropped[-1])
    print(f"stage {zero}: {refused} plans refused, {other} with other numbers")
    assert unnoticed == []
    assert refused + other == len(dropped) - 1 >= 2
