"""fp16 with a loss scale: DeepSpeed's scaler, written again here from its description, and torch.amp's; overflows planted at chosen steps, on one rank and on many.

The tests bite: a scale that is halved at the first overflow whatever the hysteresis (kernels/loss_scale.h) fails six cases of `test_the_scale_is_deepspeeds`, gradients that keep their
scale (`Step._unscaling`) fail `test_gradients_are_eagers`.
"""

import copy
import json
import math
import random

import pytest
import torch
from reference import micro_batch, one_thread  # noqa: F401
from test_zero import model_of, off

import heddle

SEQ = 8


class DeepSpeedScaler:
    """What DeepSpeed's DynamicLossScaler does with `overflow` or its absence after each step (fp16/loss_scaler.py): a window counted from the last overflow, and hysteresis."""

    def __init__(self, initial_scale_power=16, loss_scale_window=1000, hysteresis=2, consecutive_hysteresis=False, min_loss_scale=1):
        self.scale, self.window, self.least = 2.0**initial_scale_power, loss_scale_window, min_loss_scale
        self.shift = self.left = hysteresis
        self.consecutive, self.number, self.last = consecutive_hysteresis, 0, -1

    def update(self, overflow):
        """False where the scale is at its least and would have to fall."""
        alive = True
        if overflow:
            if self.shift == 1 or self.left == 1:
                alive = self.scale > self.least
                self.scale = max(self.scale / 2, self.least)
            else:
                self.left -= 1
            self.last = self.number
        else:
            if self.consecutive:
                self.left = self.shift
            if (self.number - self.last) % self.window == 0:
                if not self.consecutive:
                    self.left = self.shift
                self.scale *= 2
        self.number += 1
        return alive


class Small(torch.nn.Module):
    """Two matrices; `gain` is what the loss is multiplied by, so that one batch's gradients can be made to overflow."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

    def forward(self, x, y, gain):
        found = self.second(torch.tanh(self.first(x)))
        return ((found.float() - y).square() * gain).mean()


def small_batch(seed, gain=1.0, count=1):
    draw = torch.Generator().manual_seed(seed)
    gains = torch.tensor(gain if isinstance(gain, list) else [gain] * count).repeat_interleave(2)[:, None]
    return {"x": torch.randn(2 * count, 8, generator=draw).half(), "y": torch.randn(2 * count, 4, generator=draw), "gain": gains}


def compiled(model, batch, optimizer=None, **plan):
    return heddle.compile(model, batch, optimizer=optimizer or heddle.AdamW(lr=1e-2), plan=heddle.Plan(**{"precision": "fp16", **plan}))


def state_of(step):
    return {(kind, name): tensor.clone() for kind, name, tensor in step._state() if kind != "scaler"}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


SETTINGS = [
    {"initial_scale_power": 4, "loss_scale_window": 3, "hysteresis": 1},
    {"initial_scale_power": 6, "loss_scale_window": 4, "hysteresis": 3},
    {"initial_scale_power": 6, "loss_scale_window": 5, "hysteresis": 2, "consecutive_hysteresis": True},
    {"initial_scale_power": 3, "loss_scale_window": 6, "hysteresis": 2, "min_loss_scale": 4},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "hysteresis", "consecutive", "least"])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_the_scale_is_deepspeeds(settings, clip):
    step, reference, draw = compiled(Small(), small_batch(0), loss_scale=settings, clip=clip), DeepSpeedScaler(**settings), random.Random(json.dumps(settings))
    skipped = exhausted = 0
    scales = set()
    for number in range(60):
        overflow = draw.random() < (0.8 if 20 <= number < 30 else 0.15)
        before, updates, scale = state_of(step), step.global_step, reference.scale
        alive = reference.update(overflow)
        batch = small_batch(number, math.inf if overflow else 1.0)
        if alive:
            out = step(batch)
            assert (out.loss_scale, out.skipped) == (scale, overflow), number
            assert overflow or (math.isfinite(out.grad_norm) and (clip is None or out.grad_norm > clip))
        else:
            exhausted += 1
            with pytest.raises(heddle.HeddleError, match="the least that heddle.Plan.loss_scale=.... allows"):
                step(batch)
        assert step.global_step == updates + (not overflow)
        assert not overflow or equal(state_of(step), before), number
        assert equal(state_of(step), before) == overflow, number
        skipped += overflow
        scales.add(scale)
    assert skipped > 5 and len(scales) > 2
    assert exhausted or "min_loss_scale" not in settings


@pytest.mark.parametrize("clip", [None, 0.5])
def test_updates_are_torch_amps(clip):
    """Bit for bit, with an fp32 master beside fp16 weights, through overflows and growth."""
    model = Small()
    step = compiled(model, small_batch(0), loss_scale={"initial_scale_power": 9, "loss_scale_window": 4, "hysteresis": 1, "min_loss_scale": 2**-20}, clip=clip)
    narrow, master = copy.deepcopy(model).half(), copy.deepcopy(model)
    optimizer = torch.optim.AdamW(master.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**9, growth_factor=2.0, backoff_factor=0.5, growth_interval=4)
    for number in range(24):
        gain = math.inf if number in (3, 4, 11, 19) else 1.0
        batch = small_batch(number, gain)
        with torch.no_grad():
            for wide, cast in zip(master.parameters(), narrow.parameters()):
                cast.copy_(wide)
                cast.grad = None
        loss = narrow(**batch)
        scale = scaler.get_scale()
        scaler.scale(loss).backward()
        for wide, cast in zip(master.parameters(), narrow.parameters()):
            wide.grad = cast.grad.float()
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in master.parameters()], foreach=False)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(master.parameters(), clip, foreach=False)
        scaler.step(optimizer)
        scaler.update()
        out = step(batch)
        assert (out.loss_scale, out.skipped) == (scale, math.isinf(gain)), number
        if not out.skipped:
            assert out.loss == loss.item() and out.grad_norm == norm.item(), number
        state = step.state_dict()
        for name, wide in master.named_parameters():
            assert torch.equal(state[name], wide), (number, name)


def test_gradients_are_eagers():
    """fp16 on the CPU: the gradients of fp16 eager PyTorch under the same scale, and near those of fp32. A scale that is no power of two is divided out too."""
    model = model_of("llama")
    narrow, micro = copy.deepcopy(model), micro_batch(3, SEQ, 1, SEQ)
    for parameter in narrow.parameters():  # buffers keep their dtype
        parameter.data = parameter.data.half()
    for scale, bound in ((1024.0, 0.0), (1000.0, 1e-6)):
        step = compiled(model, micro, loss_scale=scale, loss_average="batches")
        found = step.gradients(micro)
        (narrow(**micro, use_cache=False).loss * scale).backward()
        for name, parameter in narrow.named_parameters():
            assert off(found[name], parameter.grad.float() / scale) <= bound, name
        narrow.zero_grad()
    model(**micro, use_cache=False).loss.backward()
    tokens = compiled(model, micro, loss_average="tokens").gradients(micro)
    worst = max(off(found[name], parameter.grad) for name, parameter in model.named_parameters())
    assert worst <= 0.02 and max(off(tokens[name], parameter.grad) for name, parameter in model.named_parameters()) <= 0.02


def test_faint_gradients_survive():
    """Gradients below fp16's smallest number vanish without a scale and are fp32's with one."""
    model, batch = Small(), small_batch(0, 1e-7)
    wide = {name: tensor.float() for name, tensor in batch.items()}
    model(**wide).backward()
    lost = compiled(model, batch, loss_scale=1.0).gradients(batch)
    kept = compiled(model, batch, loss_scale=2.0**16).gradients(batch)
    for name, parameter in model.named_parameters():
        assert off(lost[name], parameter.grad) > 0.2 and off(kept[name], parameter.grad) <= 0.01, name


@pytest.mark.parametrize("optimizer", [heddle.AdamW(lr=1e-3), heddle.Muon(lr=2e-3, ns="standard", adamw=heddle.AdamW(lr=1e-3))], ids=["adamw", "muon"])
@pytest.mark.parametrize("zero, ranks", [(0, 2), (1, 3), (2, 2), (3, 4)])
def test_ranks_are_as_one(zero, ranks, optimizer):
    """An overflow on one rank, whichever, skips all of them, bit for bit; otherwise the numbers are one rank's."""
    settings = {"initial_scale_power": 7, "loss_scale_window": 3, "hysteresis": 1}
    alone = compiled(Small(), small_batch(0), optimizer, clip=0.2, loss_scale=settings)
    many = compiled(Small(), small_batch(0), optimizer, clip=0.2, loss_scale=settings, zero=zero, dp=ranks)
    reference = DeepSpeedScaler(**settings)
    for number in range(10):
        gains = [1.0] * (2 * ranks)
        if number in (1, 6, 7):
            gains[number % (2 * ranks)] = math.inf
        batch, before, scale = small_batch(number, gains, 2 * ranks), state_of(many), reference.scale
        ours, one = many(batch), alone(batch)
        reference.update(number in (1, 6, 7))
        assert (ours.loss_scale, ours.skipped) == (one.loss_scale, one.skipped) == (scale, number in (1, 6, 7))
        if ours.skipped:
            assert equal(state_of(many), before)
        else:
            assert ours.loss == pytest.approx(one.loss, rel=1e-5) and ours.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    theirs = alone.state_dict()
    assert max(off(tensor, theirs[name]) for name, tensor in many.state_dict().items()) <= 1e-4
    for kind in ("loss_scale", "good_steps", "hysteresis"):
        assert len({float(each) for each in many._executable._call("get_state_ranks", "scaler", kind)}) == 1


def test_a_static_scale_stays():
    step = compiled(Small(), small_batch(0), loss_scale=64.0)
    outs = [step(small_batch(number, math.inf if number in (1, 2, 5) else 1.0)) for number in range(8)]
    assert [out.loss_scale for out in outs] == [64.0] * 8 and [out.skipped for out in outs] == [number in (1, 2, 5) for number in range(8)]
    assert not any(entry["kind"] == "scaler" for entry in step._entries)


@pytest.mark.parametrize("ranks, zero", [(1, 0), (2, 3)])
def test_resumes_with_its_scale(tmp_path, ranks, zero):
    """Losses, norms and scales of the run that was not interrupted, bit for bit, its overflows and the count of its good steps included."""
    plan = {"loss_scale": {"initial_scale_power": 8, "loss_scale_window": 3}, "dp": ranks, "zero": zero}
    batch = lambda number: small_batch(number, [math.inf if number in (2, 3, 9) else 1.0] * ranks, ranks)  # noqa: E731
    said = lambda out: (out.loss, out.grad_norm, out.loss_scale, out.skipped) if not out.skipped else (out.loss_scale, True)  # noqa: E731
    whole = compiled(Small(), small_batch(0), **plan)
    expected = [said(whole(batch(number))) for number in range(12)]
    first = compiled(Small(), small_batch(0), **plan)
    assert [said(first(batch(number))) for number in range(5)] == expected[:5]
    first.save_checkpoint(tmp_path, extra={"next": 5})
    second = compiled(Small(), small_batch(0), **plan)
    at = second.load_checkpoint(tmp_path)["next"]
    assert [said(second(batch(number))) for number in range(at, 12)] == expected[5:]
    # A checkpoint of a run that did not scale: the scale begins anew, whatever this step did before.
    plain = heddle.compile(Small(), small_batch(0), optimizer=heddle.AdamW(lr=1e-2), plan=heddle.Plan(precision="bf16"))
    plain.save_checkpoint(tmp_path / "bf16")
    second.load_checkpoint(tmp_path / "bf16")
    assert second(batch(0)).loss_scale == 2.0**8


@pytest.mark.parametrize(
    "scale, message",
    [
        (0, "loss_scale=0 is not a number above 0"),
        ("dynamic", "loss_scale='dynamic' is not a number"),
        ({"hysteresi": 2}, "did you mean 'hysteresis'"),
        ({"hysteresis": 0}, "hysteresis=0 is not a number of at least 1"),
        ({"loss_scale_window": 2.5}, "is no number of steps"),
        ({"initial_scale_power": 200}, "initial_scale_power=200"),
        ({"initial_scale_power": 2, "min_loss_scale": 8}, "above the initial scale"),
        ({"consecutive_hysteresis": 1}, "is not True or False"),
    ],
)
def test_bad_settings(scale, message):
    with pytest.raises(heddle.HeddleError, match=message):
        heddle.Plan(precision="fp16", loss_scale=scale)


def test_deepspeed_configuration():
    config = {"fp16": {"enabled": True, "initial_scale_power": 5, "loss_scale_window": 2, "hysteresis": 1}, "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}, "zero_optimization": {"stage": 2}, "data_parallel_size": 2}
    step, reference = heddle.compile(Small(), small_batch(0), plan=config), DeepSpeedScaler(5, 2, 1)
    for number in range(8):
        overflow, scale = number in (1, 5), reference.scale
        out = step(small_batch(number, [1.0, math.inf if overflow else 1.0], 2))
        assert (out.loss_scale, out.skipped) == (scale, overflow)
        reference.update(overflow)
