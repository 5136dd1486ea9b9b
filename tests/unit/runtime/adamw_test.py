"""The runtime's AdamW step against torch.optim.AdamW, bit for bit, for many sizes."""

import os
import pathlib
import subprocess

import pytest
import torch

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])
SIZES = [*range(1, 1001), 4097, 100003]


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    torch.ops.load_library(str(LIBRARIES / "libheddle_runtime.so"))
    directory = tmp_path_factory.mktemp("plans")
    subprocess.run([LIBRARIES / "write_plans", directory], check=True)
    return directory


def load(path):
    return torch.ops.heddle.load_plan(torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8), 0)


@pytest.mark.parametrize(
    "name, dtype, weight_decay",
    [("adamw_fp32", torch.float32, 0.1), ("adamw_fp64", torch.float64, 0.1), ("adamw_no_decay", torch.float32, 0.0)],
)
def test_ten_steps_have_torchs_bits(plans, name, dtype, weight_decay):
    torch.manual_seed(0)
    executable = load(plans / f"{name}.plan")
    parameters = [torch.nn.Parameter(torch.randn(n, dtype=dtype)) for n in SIZES]
    for n, parameter in zip(SIZES, parameters):
        executable.set_state("parameter", f"w.{n}", parameter.detach())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=weight_decay, foreach=False, fused=False)
    for step in range(1, 11):
        lr = 1e-3 / step
        for group in optimizer.param_groups:
            group["lr"] = lr
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter) * 10 ** (step % 4 - 2)
        executable.set_scalar("lr", lr)
        executable.set_scalar("step", step)
        executable.run("micro_first", {f"g.{n}": p.grad for n, p in zip(SIZES, parameters)})
        executable.run("boundary", {})
        optimizer.step()
    for n, parameter in zip(SIZES, parameters):
        assert torch.equal(executable.get_state("parameter", f"w.{n}"), parameter.detach()), n
        assert torch.equal(executable.get_state("exp_avg", f"w.{n}"), optimizer.state[parameter]["exp_avg"]), n
        assert torch.equal(executable.get_state("exp_avg_sq", f"w.{n}"), optimizer.state[parameter]["exp_avg_sq"]), n


def test_errors_are_runtime_errors_with_the_message(plans):
    executable = load(plans / "linear.plan")
    with pytest.raises(RuntimeError, match="section replay reads input x"):
        executable.run("replay", {})
    with pytest.raises(RuntimeError, match="the nearest is parameter w"):
        executable.get_state("parameter", "ww")
    with pytest.raises(RuntimeError, match="not a plan"):
        torch.ops.heddle.load_plan(torch.zeros(8, dtype=torch.uint8), 0)


def test_eager_allocations_are_untouched(plans):
    load(plans / "linear.plan")
    tensors = [torch.randn(n) for n in range(1, 2000, 7)]
    assert all(torch.equal(t, t.clone()) for t in tensors)
    storage = torch.UntypedStorage(16)
    storage.resize_(4096)
    assert storage.nbytes() == 4096
