"""Checkpoints: what damages them is named, Python and heddle-run read each other's, the writer in the background writes what was there when it was called."""

import json
import os
import pathlib
import subprocess
import sys
import time
import zlib

import pytest
import torch
from families import FAMILIES
from safetensors.torch import save_file

import heddle

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def compiled(model, batch, **plan):
    return heddle.compile(model, batch, optimizer=heddle.AdamW(lr=1e-3), plan=heddle.Plan(**plan))


@pytest.fixture
def saved(tmp_path):
    model, batch = FAMILIES["llama_tied"](2, 16)
    step = compiled(model, batch)
    step(batch)
    step.save_checkpoint(tmp_path / "run", {"epoch": 1})
    return step, batch, tmp_path / "run"


def test_the_manifest_lists_every_file(saved):
    _, _, folder = saved
    manifest = json.loads((folder / "latest/manifest.json").read_text())
    assert manifest["step"] == 1
    assert set(manifest["files"]) == {path.name for path in (folder / "latest").iterdir()} - {"manifest.json"}
    for name, entry in manifest["files"].items():
        data = (folder / "latest" / name).read_bytes()
        assert entry == {"bytes": len(data), "crc32": zlib.crc32(data)}


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name, spoil, message",
    [
        ("model.safetensors", flip, "its CRC-32 is"),
        ("optimizer.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-1]), "its size in bytes is"),
        ("config.json", lambda p: p.unlink(), "No such file"),
        ("manifest.json", lambda p: p.unlink(), "was not written whole"),
        ("manifest.json", lambda p: p.write_text("[]"), "not the manifest of a checkpoint"),
        ("manifest.json", lambda p: p.write_text(p.read_text().replace('"format_version": 1', '"format_version": 4')), "manifest format version 4"),
    ],
)
def test_damage_is_named_and_changes_nothing(saved, name, spoil, message):
    step, batch, folder = saved
    step(batch)
    before = step.state_dict()
    spoil(folder / "latest" / name)
    with pytest.raises(heddle.HeddleError, match=message) as error:
        step.load_checkpoint(folder)
    assert name in str(error.value)
    after = step.state_dict()
    assert step.global_step == 2 and all(torch.equal(before[key], after[key]) for key in before)


def test_the_background_writer_writes_what_was_there(saved):
    step, batch, folder = saved
    before = step.state_dict()
    version = step.save_checkpoint(folder / "later", {"place": [1, "two"]}, wait=False)
    for _ in range(3):
        step(batch)
    step.wait_for_checkpoint()
    assert version.is_dir()
    assert step.load_checkpoint(folder / "later") == {"place": [1, "two"]} and step.global_step == 1
    after = step.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_one_version_at_a_time_and_errors_come_back(saved, monkeypatch):
    """A second save waits for the first; what went wrong with one is raised by whatever comes next, once, and nothing of it is left."""
    step, batch, folder = saved
    running, most, write = [], [], heddle.checkpoint._write_manifest

    def slow(version, number):
        running.append(number)
        most.append(len(running))
        time.sleep(0.05)
        write(version, number)
        running.remove(number)

    monkeypatch.setattr("heddle.checkpoint._write_manifest", slow)
    for _ in range(3):
        step(batch)
        step.save_checkpoint(folder, keep=4, wait=False)
    step.wait_for_checkpoint()
    assert most == [1, 1, 1] and os.readlink(folder / "latest") == "step-00000004"

    def full(*_):
        raise OSError(28, "No space left on device")

    for asked in (lambda: step(batch), lambda: step.save_checkpoint(folder), lambda: step.wait_for_checkpoint()):
        monkeypatch.setattr("heddle.checkpoint._sync", full)
        step.save_checkpoint(folder, wait=False)
        step._writer.thread.join()
        monkeypatch.undo()
        with pytest.raises(heddle.HeddleError, match="in the background was not written: .*free some space"):
            asked()
    step.wait_for_checkpoint()
    assert os.readlink(folder / "latest") == "step-00000004" and not list(folder.glob(".*"))


# One process imports, and forks a run for every kill: two ranks with ZeRO-3 in fp16, whose losses depend on the data's order, the masters, the moments and the loss scale.
KILLED = """
import math, os, pathlib, random, signal, sys, time
import torch, heddle

folder, kills = pathlib.Path(sys.argv[1]), int(sys.argv[2])

class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = torch.nn.Linear(8, 64), torch.nn.Linear(64, 4)
    def forward(self, x, y, gain):
        return ((self.second(torch.tanh(self.first(x))).float() - y).square() * gain).mean()

def batch(number, ranks=2):
    draw = torch.Generator().manual_seed(number)
    gain = torch.full((2 * ranks, 1), 1.0)
    if number % 7 == 3:
        gain[-1] = math.inf
    return {"x": torch.randn(2 * ranks, 8, generator=draw).half(), "y": torch.randn(2 * ranks, 4, generator=draw), "gain": gain}

def train(out, log, last=None):
    torch.set_num_threads(1)
    step = heddle.compile(Small(), batch(0, 1), optimizer=heddle.AdamW(lr=1e-2),
                          plan=heddle.Plan(precision="fp16", dp=2, zero=3, loss_scale={"initial_scale_power": 6, "loss_scale_window": 3, "hysteresis": 1}))
    number = step.load_checkpoint(out)["next"] if (out / "latest").exists() else 0
    with open(log, "a") as file:
        while number != last:
            result = step(batch(number))
            file.write(f"{number} {result.loss.hex()} {result.loss_scale} {result.skipped}\\n")
            file.flush()
            number += 1
            step.save_checkpoint(out, {"next": number}, wait=False)
    step.wait_for_checkpoint()

def child(*arguments):
    pid = os.fork()
    if not pid:
        try:
            train(*arguments)
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid

chance, out, at, writing = random.Random(2), folder / "out", None, 0
for kill in range(kills):
    pid = child(out, folder / "log")
    while not (out / "latest").exists() or os.readlink(out / "latest") == at:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the run ended by itself"
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    writing += any(path.name.startswith(".writing") for path in out.iterdir())
    at = os.readlink(out / "latest")
    for version in out.glob("step-*"):
        heddle.checkpoint.check_manifest(version)
next_ = __import__("json").loads((out / "latest" / "trainer.json").read_text())["extra"]["next"]
for arguments in ((out, folder / "log", next_ + 3), (folder / "whole", folder / "unbroken", next_ + 3)):
    assert os.waitpid(child(*arguments), 0)[1] == 0
print(writing, next_)
"""


def test_kill_at_any_moment(tmp_path):
    """`latest` is always whole, and what goes on from it has the unbroken run's losses and scales bit for bit. A version that is renamed before it is written is found out."""
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(100 if os.environ.get("HEDDLE_TEST_FULL") == "1" else 10)], capture_output=True, text=True, timeout=1200)
    assert run.returncode == 0, run.stderr
    writing, steps = map(int, run.stdout.split())
    assert writing, "no kill fell into the writing of a version; the test has shown little"
    unbroken = (tmp_path / "unbroken").read_text().splitlines()
    assert [line.split()[0] for line in unbroken] == [str(number) for number in range(steps + 3)]
    # A killed run may have cut its last line short.
    seen = {line for line in (tmp_path / "log").read_text().splitlines() if line.endswith(("True", "False"))}
    assert seen == set(unbroken)


def test_what_killed_writers_left_goes(saved):
    step, _, folder = saved
    dead = subprocess.Popen(["true"])
    dead.wait()
    for name in (f".writing-step-00000009-{dead.pid}", f".writing-step-00000009-{os.getpid()}", ".removing-step-00000000"):
        (folder / name).mkdir()
    step.save_checkpoint(folder, keep=1)
    assert {path.name for path in folder.iterdir()} == {"latest", "step-00000001.1", f".writing-step-00000009-{os.getpid()}"}


def test_save_pretrained_replaces_whole_files(saved, monkeypatch):
    step, batch, folder = saved
    step.save_pretrained(folder / "model")
    before = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    step(batch)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("heddle.checkpoint._sync", full)
    with pytest.raises(heddle.HeddleError, match="free some space"):
        step.save_pretrained(folder / "model")
    assert {path.name: path.read_bytes() for path in (folder / "model").iterdir()} == before


def heddle_run(*arguments):
    return subprocess.run([LIBRARIES / "heddle-run", *map(str, arguments)], capture_output=True, text=True, env={"PATH": "/nonexistent", "OMP_NUM_THREADS": "1"})


# Counting micro_next once too often makes three micro-batches four.
def test_mfu_is_the_plans_work_over_time_over_the_peak(tmp_path):
    model, batch = FAMILIES["llama_tied"](2, 16)
    step = compiled(model, batch)
    step.save_pretrained(tmp_path / "weights")
    step.save(tmp_path / "step.plan")
    save_file({"input_ids": batch["input_ids"].int(), "attention_mask": batch["attention_mask"].int()}, tmp_path / "data.safetensors")
    flops = step.explain()["flops"]
    for micro in (1, 3):
        save_file({name: batch[name].int().repeat(micro, 1) for name in ("input_ids", "attention_mask")}, tmp_path / "data.safetensors")
        run = heddle_run(tmp_path / "step.plan", "--weights", tmp_path / "weights", "--data", tmp_path / "data.safetensors", "--steps", 2, "--micro-batches", micro, "--peak-tflops", 0.5, "--log", tmp_path / "log")
        assert run.returncode == 0, run.stderr
        for entry in map(json.loads, (tmp_path / "log").read_text().splitlines()):
            seconds = micro * batch["input_ids"].numel() / entry["tokens_per_second"]
            assert entry["mfu"] * 0.5e12 * seconds == pytest.approx(flops["micro_first"] + (micro - 1) * flops["micro_next"] + micro * flops["prologue"] + flops["boundary"], rel=1e-9)


def test_python_and_heddle_run_go_on_from_each_other(tmp_path):
    """Four updates: two in Python and two in heddle-run, or the other way round, are four in Python, bit for bit."""
    model, batch = FAMILIES["llama_tied"](2, 16)
    ids = torch.randint(3, 320, (8, 16), generator=torch.Generator().manual_seed(2))
    batches = [{"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part} for part in ids.split(2)]
    save_file({"input_ids": ids.int(), "attention_mask": torch.ones_like(ids).int()}, tmp_path / "data.safetensors")
    whole, first, second = (compiled(model, batch) for _ in range(3))
    whole.save_pretrained(tmp_path / "weights")
    losses = [whole(batch).loss for batch in batches]
    first.save(tmp_path / "step.plan")
    common = [tmp_path / "step.plan", "--weights", tmp_path / "weights", "--data", tmp_path / "data.safetensors", "--log", tmp_path / "log"]

    for batch in batches[:2]:
        first(batch)
    first.save_checkpoint(tmp_path / "python")
    run = heddle_run(*common, "--steps", 4, "--checkpoint", tmp_path / "python", "--resume")
    assert run.returncode == 0, run.stderr
    assert [json.loads(line)["loss"] for line in (tmp_path / "log").read_text().splitlines()] == losses[2:]
    first.load_checkpoint(tmp_path / "python")

    run = heddle_run(*common, "--steps", 2, "--checkpoint", tmp_path / "run")
    assert run.returncode == 0, run.stderr
    second.load_checkpoint(tmp_path / "run")
    assert second.global_step == 2 and [second(batch).loss for batch in batches[2:]] == losses[2:]
    for step in (first, second):
        assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), step.state_dict().values()))


@pytest.mark.parametrize("zero, ranks, optimizer", [(1, 2, "adamw"), (3, 3, "muon")])
def test_ranks_go_on_with_the_bits_and_the_data_of_an_unbroken_run(zero, ranks, optimizer, tmp_path):
    """Ten updates in one go, or in three runs of heddle-run, the middle one from what Python saved, over data that ends within the sixth update and begins anew: the same losses and
    weights, bit for bit. (With one rounding less in the sum of the losses that heddle-run reports it fails.)"""
    model, batch = FAMILIES["llama_tied"](1, 16)
    adamw = heddle.AdamW(lr=1e-3)
    make = lambda: heddle.compile(model, batch, optimizer=adamw if optimizer == "adamw" else heddle.Muon(lr=1e-2, adamw=adamw), schedule=heddle.schedules.cosine(warmup=3, total=12), plan=heddle.Plan(zero=zero, dp=ranks, clip=0.5))  # noqa: E731
    ids = torch.randint(3, 320, (11 * ranks, 16), generator=torch.Generator().manual_seed(2))
    save_file({"input_ids": ids.int(), "attention_mask": torch.ones_like(ids).int()}, tmp_path / "data.safetensors")
    part = lambda number: ids[torch.arange(2 * ranks * number, 2 * ranks * (number + 1)) % len(ids)]  # noqa: E731
    assert not torch.equal(part(5)[-ranks:], part(5)[:ranks]) and torch.equal(part(5)[-ranks:], ids[:ranks])
    first, second = make(), make()
    first.save_pretrained(tmp_path / "weights")
    first.save(tmp_path / "step.plan")
    rows = lambda number: {"input_ids": part(number), "attention_mask": torch.ones_like(part(number)), "labels": part(number)}  # noqa: E731
    losses = [first(rows(number)).loss for number in range(10)]

    def run(until, folder, *more):
        done = heddle_run(tmp_path / "step.plan", "--weights", tmp_path / "weights", "--data", tmp_path / "data.safetensors", "--micro-batches", 2, "--steps", until,
                          "--checkpoint", tmp_path / folder, "--log", tmp_path / f"{folder}{until}", *more)  # fmt: skip
        assert done.returncode == 0, done.stderr
        # Each of the 7 matrices of 2 layers on one of the ranks.
        assert ("Newton-Schulz: 14 matrices an update, 4 + 5 + 5 on the ranks" in done.stdout) == (optimizer == "muon"), done.stdout
        return [json.loads(line)["loss"] for line in (tmp_path / f"{folder}{until}").read_text().splitlines()]

    assert run(10, "whole") == losses
    assert run(4, "parts") == losses[:4]
    second.load_checkpoint(tmp_path / "parts")
    assert second(rows(4)).loss == losses[4]
    second.save_checkpoint(tmp_path / "parts", {"steps_run": 5})
    assert run(7, "parts", "--resume") == losses[5:7] and run(10, "parts", "--resume") == losses[7:]
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "whole/latest" / name).read_bytes() == (tmp_path / "parts/latest" / name).read_bytes()


def test_heddle_run_scales_the_loss_as_python_does(tmp_path):
    """fp16 from a scale that overflows at first: skipped steps take their data and are no updates, in both; a run that is resumed has the unbroken one's losses bit for bit."""
    model, batch = FAMILIES["llama_tied"](2, 16)
    ids = torch.randint(3, 320, (20, 16), generator=torch.Generator().manual_seed(2))
    batches = [{"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part} for part in ids.split(2)]
    save_file({"input_ids": ids.int(), "attention_mask": torch.ones_like(ids).int()}, tmp_path / "data.safetensors")
    step = compiled(model, batch, precision="fp16", loss_scale={"initial_scale_power": 21, "hysteresis": 1, "loss_scale_window": 3})
    step.save_pretrained(tmp_path / "weights")
    step.save(tmp_path / "step.plan")
    outs = [step(batch) for batch in batches]
    expected = [(out.loss, out.skipped) for out in outs]
    assert 1 <= sum(out.skipped for out in outs) <= 8
    common = [tmp_path / "step.plan", "--weights", tmp_path / "weights", "--data", tmp_path / "data.safetensors", "--checkpoint", tmp_path / "run", "--checkpoint-every", 1]
    for until, more in ((3, ()), (10, ("--resume",))):
        run = heddle_run(*common, "--steps", until, "--log", tmp_path / f"log{until}", *more)
        assert run.returncode == 0, run.stderr
    logged = [json.loads(line) for name in ("log3", "log10") for line in (tmp_path / name).read_text().splitlines()]
    assert [(line["loss"], line["skipped"]) for line in logged] == expected
    trainer = json.loads((tmp_path / "run/latest/trainer.json").read_text())
    assert trainer["step"] == step.global_step and trainer["extra"] == {"steps_run": 10}
    second = compiled(model, batch, precision="fp16", loss_scale={"initial_scale_power": 21, "hysteresis": 1, "loss_scale_window": 3})
    second.load_checkpoint(tmp_path / "run")
    for kind in ("loss_scale", "good_steps", "hysteresis"):
        assert torch.equal(second._executable.get_state("scaler", kind), step._executable.get_state("scaler", kind))
    assert all(torch.equal(a, b) for a, b in zip(step.state_dict().values(), second.state_dict().values()))
