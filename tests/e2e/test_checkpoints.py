"""Checkpoints: what damages them is named, Python and heddle-run read each other's, the writer in the background writes what was there when it was called."""

import json
import os
import pathlib
import subprocess
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
