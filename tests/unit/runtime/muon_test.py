"""Muon's steps in a plan against torch.optim.Muon, Keller Jordan's form and Moonlight's, in float64 where they can be."""

import math
import os
import pathlib
import subprocess

import pytest
import torch
import torch.optim._muon

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])
SHAPES = [(12, 20), (20, 12), (16, 16), (3, 8, 12)]
A, B, C = 3.4445, -4.7750, 2.0315


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    torch.ops.load_library(str(LIBRARIES / "libheddle_runtime.so"))
    directory = tmp_path_factory.mktemp("plans")
    subprocess.run([LIBRARIES / "write_plans", directory], check=True)
    return directory


def load(path):
    return torch.ops.heddle.load_plan(torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8), 0)


def start(plans, name, dtype):
    torch.manual_seed(0)
    executable = load(plans / f"{name}.plan")
    parameters = [torch.randn(shape, dtype=dtype) for shape in SHAPES]
    for i, parameter in enumerate(parameters):
        executable.set_state("parameter", f"w.{i}", parameter)
    return executable, parameters


def step(executable, gradients, lr, finite=True):
    executable.set_scalar("lr", lr)
    inputs = {f"g.{i}": gradient for i, gradient in enumerate(gradients)}
    executable.run("boundary", {"finite": torch.tensor(finite), **inputs})


def orthogonalise(x, denominator):
    """Newton-Schulz of each matrix of a stack, in x's own precision."""
    x = x / denominator(x.norm(dim=(-2, -1), keepdim=True))
    if x.shape[-2] > x.shape[-1]:
        return orthogonalise_wide(x.mT).mT
    return orthogonalise_wide(x)


def orthogonalise_wide(x):
    for _ in range(5):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x


# Fails when the scale modes, the momentum forms, or the rows and columns of a scale are exchanged (each tried).
@pytest.mark.parametrize("name, adjust", [("muon_original", "original"), ("muon_match_rms", "match_rms_adamw")])
def test_equals_torchs_muon_in_float64(plans, name, adjust, monkeypatch):
    monkeypatch.setattr(
        torch.optim._muon,
        "_zeropower_via_newtonschulz",
        lambda grad, coefficients, steps, eps: orthogonalise(grad, lambda norm: norm.clamp(min=eps)),
    )
    executable, values = start(plans, name, torch.float64)
    # torch's takes matrices only, so a stack is three of them.
    parameters = [[torch.nn.Parameter(m.clone()) for m in value.reshape(-1, *value.shape[-2:])] for value in values]
    optimizer = torch.optim.Muon(sum(parameters, []), lr=1e-2, weight_decay=0.1, adjust_lr_fn=adjust)
    for number in range(1, 6):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / number
        gradients = [torch.randn_like(value) * 10 ** (number % 4 - 2) for value in values]
        for matrices, gradient in zip(parameters, gradients):
            for matrix, part in zip(matrices, gradient.reshape(-1, *gradient.shape[-2:])):
                matrix.grad = part
        step(executable, gradients, 1e-2 / number)
        optimizer.step()
    for i, matrices in enumerate(parameters):
        want = torch.stack([matrix.detach() for matrix in matrices]).reshape(SHAPES[i])
        torch.testing.assert_close(executable.get_state("parameter", f"w.{i}"), want, rtol=0, atol=1e-12)


def test_equals_torchs_muon_to_its_bf16(plans):
    executable, values = start(plans, "muon_bf16", torch.float32)
    parameters = [torch.nn.Parameter(value.clone()) for value in values[:3]]
    optimizer = torch.optim.Muon(parameters, lr=1e-2, weight_decay=0.1, adjust_lr_fn="original")
    gradients = [torch.randn_like(value) for value in values]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient
    step(executable, gradients, 1e-2)
    optimizer.step()
    for i, parameter in enumerate(parameters):
        decayed = values[i] * (1 - 1e-2 * 0.1)
        got, want = executable.get_state("parameter", f"w.{i}") - decayed, parameter.detach() - decayed
        exact = orthogonalise(gradients[i].double(), lambda norm: norm)
        exact *= -1e-2 * math.sqrt(max(1, SHAPES[i][0] / SHAPES[i][1]))
        # bf16 iterations that round in different places: as far from the truth as torch's is.
        assert (got - exact).norm() <= 1.5 * (want - exact).norm() <= 0.06 * exact.norm(), i


def keller_jordan(momentum, gradient, shape):
    momentum.lerp_(gradient, 0.05)
    return gradient.lerp(momentum, 0.95), math.sqrt(max(1, shape[-2] / shape[-1]))


def moonlight(momentum, gradient, shape):
    momentum.mul_(0.95).add_(gradient)
    return gradient + 0.95 * momentum, 0.2 * math.sqrt(max(shape[-2:]))


def spectral(momentum, gradient, shape):
    return moonlight(momentum, gradient, shape)[0], math.sqrt(shape[-2] / shape[-1])


@pytest.mark.parametrize("form", [keller_jordan, moonlight, spectral])
def test_equals_the_published_forms_in_float64(plans, form):
    executable, values = start(plans, f"muon_{form.__name__}", torch.float64)
    momenta = [torch.zeros_like(value) for value in values]
    for _ in range(5):
        gradients = [torch.randn_like(value) for value in values]
        step(executable, gradients, 1e-2)
        for value, momentum, gradient in zip(values, momenta, gradients):
            matrix, scale = form(momentum, gradient, value.shape)
            update = orthogonalise(matrix, lambda norm: norm + 1e-7)
            value.mul_(1 - 1e-2 * 0.1).sub_(update, alpha=1e-2 * scale)
    for i, value in enumerate(values):
        torch.testing.assert_close(executable.get_state("parameter", f"w.{i}"), value, rtol=0, atol=1e-11)
        torch.testing.assert_close(executable.get_state("momentum", f"w.{i}"), momenta[i], rtol=0, atol=1e-12)


def test_a_step_that_is_not_finite_changes_nothing(plans):
    executable, values = start(plans, "muon_moonlight", torch.float64)
    step(executable, [torch.randn_like(value) for value in values], 1e-2)
    kinds = ["parameter", "momentum"]
    before = [executable.get_state(kind, f"w.{i}").clone() for kind in kinds for i in range(len(values))]
    step(executable, [torch.full_like(value, math.inf) for value in values], 1e-2, finite=False)
    after = [executable.get_state(kind, f"w.{i}") for kind in kinds for i in range(len(values))]
    assert all(torch.equal(a, b) for a, b in zip(before, after))
