"""Plans on a GPU: ATen's bits, planned memory, AdamW on the device. Skipped where there is no GPU."""

import json
import os
import pathlib
import subprocess

import pytest
import torch

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    torch.ops.load_library(str(LIBRARIES / "libheddle_runtime.so"))
    directory = tmp_path_factory.mktemp("plans")
    subprocess.run([LIBRARIES / "write_plans", directory], check=True)
    return directory


def load(path):
    return torch.ops.heddle.load_plan(torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8), 0)


def planned(executable):
    counters = json.loads(executable.stats())["counters"]
    return counters["outside_workspace"] == counters["unplanned_copies"] == counters["escaped"] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_cuda_plan_is_refused_by_name(plans):
    with pytest.raises(RuntimeError, match="GPU|CUDA"):
        load(plans / "linear_cuda.plan")


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@gpu
def test_linear_layer_has_eagers_bits(plans):
    executable = load(plans / "linear_cuda.plan")
    w = torch.randn(5, 3, device="cuda")
    executable.set_state("parameter", "w", w)
    for _ in range(4):
        x = torch.randn(4, 3, device="cuda")
        results = executable.run("replay", {"x": x})
        assert torch.equal(results["output:y"], x @ w.T)
        assert torch.equal(results["loss"], (x @ w.T).sum())
    assert planned(executable)


@gpu
def test_streams_keep_their_order(plans):
    executable = load(plans / "streams_cuda.plan")
    executable.set_state("parameter", "w", torch.randn(64))
    x = torch.randn(64)
    runs = [executable.run("replay", {"x": x}) for _ in range(20)]
    assert all(torch.equal(runs[0][name], run[name]) for run in runs for name in run)
    assert planned(executable)


@gpu
@pytest.mark.parametrize("name, dtype, tolerance", [("train_cuda", torch.float32, 1e-6), ("train64_cuda", torch.float64, 1e-14)])
def test_trains_like_eager(plans, name, dtype, tolerance):
    torch.manual_seed(0)
    executable = load(plans / f"{name}.plan")
    parameters = [torch.nn.Parameter(torch.randn(64, 64, dtype=dtype, device="cuda") / 8) for _ in range(2)]
    for i, parameter in enumerate(parameters):
        executable.set_state("parameter", f"layers.{i}.weight", parameter.detach())
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1, foreach=False)
    executable.set_scalar("lr", 1e-2)
    executable.set_scalar("micro_batches", 1)
    for step in range(1, 11):
        x = torch.randn(64, 64, dtype=dtype, device="cuda")
        executable.set_scalar("step", step)
        loss = executable.run("micro_first", {"x": x})["loss"]
        executable.run("boundary", {})
        optimizer.zero_grad()
        expected = (x @ parameters[0].T @ parameters[1].T).sum()
        expected.backward()
        optimizer.step()
        assert torch.allclose(loss, expected, rtol=1e-4 if dtype == torch.float32 else 1e-12)
    for i, parameter in enumerate(parameters):
        difference = (executable.get_state("parameter", f"layers.{i}.weight") - parameter.detach()).abs().max().item()
        assert difference <= tolerance * parameter.abs().max().item() * 10, difference
    assert planned(executable)


@gpu
@pytest.mark.parametrize("layout, m, k, n", [(0, 256, 512, 128), (1, 256, 512, 128), (6, 256, 512, 128), (7, 33, 20, 17)])
def test_products_are_added_to_the_accumulator(plans, layout, m, k, n):
    """Bits of `layout`: a, b, the accumulator lie transposed. Bites: with beta left at 0 the second section's sum is wrong, with the transpositions swapped the others."""
    executable = load(plans / f"gemm_cuda_{layout}.plan")
    expected = torch.zeros(m, n, dtype=torch.float64, device="cuda")
    for section in ("micro_first", "micro_next", "micro_next", "micro_next"):
        a, b = (torch.randn(shape, device="cuda").bfloat16() for shape in ((m, k), (k, n)))
        expected += a.double() @ b.double()
        executable.run(section, {"a": a.T.contiguous() if layout & 1 else a, "b": b.T.contiguous() if layout & 2 else b})
    found = executable.get_state("accumulator", "w")
    torch.testing.assert_close((found.T if layout & 4 else found).double(), expected, rtol=1e-5, atol=1e-4)


@gpu
def test_a_skipped_step_changes_nothing(plans):
    executable = load(plans / "train_cuda.plan")
    w = torch.randn(64, 64)
    executable.set_state("parameter", "layers.0.weight", w)
    for name, value in {"lr": 1e-2, "micro_batches": 1, "step": 1}.items():
        executable.set_scalar(name, value)
    executable.run("micro_first", {"x": torch.full((64, 64), float("inf"))})
    assert not executable.run("boundary", {})["output:finite"].item()
    assert torch.equal(executable.get_state("parameter", "layers.0.weight").cpu(), w)


@gpu
def test_eager_training_still_works_beside_it(plans):
    executable = load(plans / "linear_cuda.plan")
    executable.run("replay", {"x": torch.randn(4, 3)})
    layer = torch.nn.Linear(256, 256, device="cuda")
    layer(torch.randn(64, 256, device="cuda")).square().mean().backward()
    assert torch.isfinite(layer.weight.grad).all()
    torch.cuda.empty_cache()
