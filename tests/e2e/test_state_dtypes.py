"""The dtype of optimizer state is a choice: what the layout holds, what a checkpoint writes and reads under another world, and what the update does with it. And the same command
twice, bit for bit, whatever the choice.
"""

import json
import pathlib

import pytest
import safetensors.torch
import torch
from reference import one_thread  # noqa: F401
from small import CLIP, Net, rows

import heddle

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}
# (optimizer, dtype of AdamW's moments, of Muon's momentum)
CHOICES = [("adamw", "bf16", None), ("adamw", "fp64", None), ("muon", None, "bf16"), ("muon", "bf16", "fp32"), ("muon", "fp64", "bf16")]


def optimizer_of(kind, moments, momentum):
    adamw = heddle.AdamW(lr=1e-3, state_dtype=moments)
    return adamw if kind == "adamw" else heddle.Muon(lr=2e-2, adamw=adamw, state_dtype=momentum)


def compiled(choice, zero, ranks, precision="fp32"):
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return heddle.compile(Net(), rows(0, 2, dtype), optimizer=optimizer_of(*choice), plan=heddle.Plan(zero=zero, dp=ranks, clip=CLIP, precision=precision))


def expected(choice, kind):
    return DTYPES[(choice[2] if kind == "momentum" else choice[1]) or "fp32"]


def bits(step):
    return {**step.state_dict(), **{f"{kind}/{name}": tensor for name, kinds in step.optimizer_state_dict()["state"].items() for kind, tensor in kinds.items()}}


@pytest.mark.parametrize("saved, loaded", [((0, 1), (3, 4)), ((3, 3), (1, 2)), ((2, 2), (0, 1))])
@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(map(str, choice)))
def test_layout_and_checkpoint_carry_the_dtype(choice, saved, loaded, tmp_path):
    """Written by one world, read by another: the same bits in the same dtypes, and both worlds go on alike. A checkpoint that took moments through fp32 would pass the first of
    these and not the next one."""
    step = compiled(choice, *saved)
    batch = lambda number: rows(number, 24, torch.float32)  # noqa: E731
    for number in range(2):
        step(batch(number))
    state = step.optimizer_state_dict()["state"]
    kinds = {kind for tensors in state.values() for kind in tensors}
    assert kinds == ({"exp_avg", "exp_avg_sq"} if choice[0] == "adamw" else {"exp_avg", "exp_avg_sq", "momentum"})
    assert all(tensor.dtype == expected(choice, kind) and tensor.any() for tensors in state.values() for kind, tensor in tensors.items())
    bytes_of = {kind: memory for kind, memory in step.explain()["memory"].items()}
    whole = sum(p.numel() for p in Net().parameters())
    if saved == (0, 1) and choice[0] == "adamw":
        assert bytes_of["state: exp_avg"] == whole * expected(choice, "exp_avg").itemsize

    version = pathlib.Path(step.save_checkpoint(tmp_path))
    written = safetensors.torch.load_file(version / "optimizer.safetensors")
    assert {name.partition("/")[0] for name in written} >= kinds
    assert all(written[f"{kind}/{name}"].dtype == tensor.dtype and torch.equal(written[f"{kind}/{name}"], tensor) for name, tensors in state.items() for kind, tensor in tensors.items())
    assert json.loads((version / "manifest.json").read_text())["step"] == 2
    other = compiled(choice, *loaded)
    other.load_checkpoint(tmp_path)
    a, b = bits(step), bits(other)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)
    # Another order of an fp32 sum is all that may now differ; a moment's last bit in bf16 is 2^-8 of it.
    for number in range(2, 4):
        assert step(batch(number)).loss == pytest.approx(other(batch(number)).loss, rel=1e-5)


@pytest.mark.parametrize("zero, ranks", [(0, 1), (2, 3)])
def test_moments_in_another_dtype_are_read_as_theirs(zero, ranks, tmp_path):
    """A checkpoint with fp32 moments, read by a step that keeps bf16: each rounded to nearest."""
    wide, narrow = compiled(("adamw", None, None), zero, ranks), compiled(("adamw", "bf16", None), zero, ranks)
    for number in range(2):
        wide(rows(number, 24, torch.float32))
    wide.save_checkpoint(tmp_path)
    narrow.load_checkpoint(tmp_path)
    a, b = wide.optimizer_state_dict()["state"], narrow.optimizer_state_dict()["state"]
    assert all(b[name][kind].dtype == torch.bfloat16 and torch.equal(tensor.bfloat16(), b[name][kind]) for name, kinds in a.items() for kind, tensor in kinds.items())


@pytest.mark.parametrize("choice", [("adamw", "bf16", None), ("muon", None, "bf16")], ids=lambda choice: choice[0])
def test_bf16_state_is_rounded_once_an_update(choice):
    """Moments are read as they are kept and computed on in fp32: after one update from zero they are (1-beta) g, rounded to bf16; momentum is g, rounded."""
    step = compiled(choice, 2, 2)
    batch = rows(0, 4, torch.float32)
    gradients = step.gradients(batch)
    norm = step(batch).grad_norm
    clip = min(1.0, CLIP / (norm + 1e-6))
    for name, kinds in step.optimizer_state_dict()["state"].items():
        if "momentum" in kinds:
            assert torch.equal(kinds["momentum"], gradients[name].bfloat16())
        elif choice[1] == "bf16":
            want = (gradients[name].double() * clip * 0.1).bfloat16().float()
            assert float((kinds["exp_avg"].float() - want).abs().max()) <= 2**-8 * float(want.abs().max())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero, ranks", [(0, 3), (1, 2), (2, 3), (3, 4)])
@pytest.mark.parametrize("choice", [("adamw", None, None), ("muon", None, "bf16")], ids=lambda choice: choice[0])
def test_the_same_command_twice_is_bitwise_equal(choice, zero, ranks, precision):
    """Ranks are threads that the machine schedules as it likes; sums over them are taken in rank order all the same. (With AdamW, dropout and real models: test_zero.py.)"""

    def run():
        step = compiled(choice, zero, ranks, precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        outputs = [step(rows(number, 4 * ranks, dtype)) for number in range(4)]
        return [(out.loss, out.grad_norm) for out in outputs], bits(step)

    (a, first), (b, second) = run(), run()
    assert a == b and all(torch.equal(first[name], second[name]) for name in first)
