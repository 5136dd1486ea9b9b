"""Signals and checkpoints: whenever heddle-run ends, `latest` is a whole version, and going on from it gives the unbroken run."""

import json
import os
import pathlib
import random
import signal
import subprocess
import time
import zlib

import pytest
import token_model
from safetensors.torch import load_file
from token_model import model  # noqa: F401

KILLS = 100 if os.environ.get("HEDDLE_TEST_FULL") == "1" else 10


def command(model, out, steps, *more):
    return token_model.command(model, "--schedule", "constant", "--warmup", 0, "--checkpoint", out, *more, steps=steps)


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True)


def whole(version):
    """The step of a version whose files are what its manifest says."""
    manifest = json.loads((version / "manifest.json").read_text())
    files = {path.name for path in version.iterdir()} - {"manifest.json"}
    assert files == set(manifest["files"]) >= {"model.safetensors", "optimizer.safetensors", "trainer.json", "config.json"}
    for name, entry in manifest["files"].items():
        data = (version / name).read_bytes()
        assert (len(data), zlib.crc32(data)) == (entry["bytes"], entry["crc32"]), name
    load_file(version / "model.safetensors")
    return manifest["step"]


# A writer that moves `latest` first and then fills the version is found out within a few kills.
def test_kill_at_any_moment(model):
    out, chance, step, writing = model / "out", random.Random(1), 0, 0
    for kill in range(KILLS):
        process = subprocess.Popen(command(model, out, 10**6, "--checkpoint-every", 1, *(["--resume"] if kill else [])), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in process.stdout:
            if line.startswith("checkpoint"):
                break
        else:
            pytest.fail(process.stderr.read())
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate()
        writing += any(path.name.startswith(".") for path in out.iterdir())
        now = whole(out / "latest")
        assert now > step, "the run did not go on from where it was"
        step = now
        for path in out.glob("step-*"):
            whole(path)
    assert writing, "no kill fell into the writing of a version; the test has shown little"
    assert run(model, out, step + 2, "--resume").returncode == 0
    assert run(model, model / "unbroken", step + 2).returncode == 0
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (out / "latest" / name).read_bytes() == (model / "unbroken/latest" / name).read_bytes()
    # A number that a killed run had may be another process's by now, and what looks as if it were being written is left alone.
    left = [path.name for path in out.iterdir() if path.name.startswith(".") and not pathlib.Path("/proc", path.name.rpartition("-")[2]).exists()]
    assert left == [], "what killed runs left is still there"


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_a_checkpoint(model, number, code):
    process = subprocess.Popen(command(model, model / "out", 10**6), stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step 3/"):
            process.send_signal(number)
            break
    rest = process.stdout.read()
    assert process.wait() == code
    step = whole(model / "out/latest")
    assert step >= 3 and f"stopped after step {step} of 1000000; go on with --resume" in rest
    assert run(model, model / "out", step + 1, "--resume").returncode == 0


def test_old_versions_go(model):
    for keep, kept in ((3, [4, 5, 6]), (1, [6])):
        out = model / f"out{keep}"
        assert run(model, out, 6, "--checkpoint-every", 1, "--keep", keep).returncode == 0
        assert sorted(path.name for path in out.iterdir()) == ["latest", *(f"step-{n:08d}" for n in kept)]
        assert os.readlink(out / "latest") == "step-00000006"
    assert run(model, model / "out1", 2).returncode == 0  # starts anew in the same folder
    assert whole(model / "out1/latest") == 2


def test_a_version_that_was_there_is_never_written_into(model):
    out = model / "out"
    assert run(model, out, 2).returncode == 0
    before = {path.name: path.stat().st_ino for path in (out / "step-00000002").iterdir()}
    assert run(model, out, 2).returncode == 0
    assert os.readlink(out / "latest") == "step-00000002.1"
    assert {path.name: path.stat().st_ino for path in (out / "step-00000002").iterdir()} == before


def spoilt(path, change):
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data))


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("optimizer.safetensors", lambda d: d[:-1], "bytes and the manifest says"),
        ("model.safetensors", lambda d: d[:-3] + bytes([d[-3] ^ 1]) + d[-2:], "its CRC-32 is not the manifest's"),
        ("manifest.json", lambda d: d[:40], "not the manifest of a checkpoint"),
        ("manifest.json", lambda d: d.replace(b'"format_version": 1', b'"format_version": 9'), "manifest format version 9"),
        ("config.json", None, "the manifest lists it"),
    ],
)
def test_a_damaged_version_is_refused(model, name, change, message):
    assert run(model, model / "out", 2).returncode == 0
    path = model / "out/latest" / name
    path.unlink() if change is None else spoilt(path, change)
    result = run(model, model / "out", 4, "--resume")
    assert result.returncode == 1 and message in result.stderr and name in result.stderr, result.stderr
