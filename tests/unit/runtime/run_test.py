"""heddle-run on a tiny plan: it trains, writes what loads again, and names what is wrong."""

import json
import os
import pathlib
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "fixtures"))

import full_disk  # noqa: E402

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])


@pytest.fixture
def model(tmp_path):
    subprocess.run([LIBRARIES / "write_plans", tmp_path], check=True)
    weights = tmp_path / "weights"
    weights.mkdir()
    torch.manual_seed(0)
    save_file({"embed.weight": torch.randn(16, 4)}, weights / "model.safetensors", metadata={"format": "pt"})
    (weights / "config.json").write_text(json.dumps({"vocab_size": 16}))
    save_file({"input_ids": torch.randint(0, 16, (12, 8), dtype=torch.int32)}, tmp_path / "data.safetensors")
    save_file({"input_ids": torch.randint(0, 16, (40, 8), dtype=torch.int32)}, tmp_path / "long.safetensors")
    return tmp_path


def run(model, *more, plan="token.plan", weights="weights", data="data.safetensors", steps=4, env=None):
    command = [LIBRARIES / "heddle-run", model / plan, "--weights", model / weights, "--data", model / data, "--steps", str(steps), *map(str, more)]
    # No Python anywhere near it.
    return subprocess.run(command, capture_output=True, text=True, env=env or {"PATH": "/nonexistent"})


def refused(result, *words):
    assert result.returncode == 1, result
    for word in words:
        assert word in result.stderr, result.stderr


def eager(weight, rows, steps, micro=1):
    weight = torch.nn.Parameter(weight.clone())
    optimizer = torch.optim.AdamW([weight], betas=(0.9, 0.95), weight_decay=0.1, foreach=False)
    losses = []
    for step in range(1, steps + 1):
        factor = step / 2 if step <= 2 else 0.5 * (1 + torch.cos(torch.tensor((step - 2) / (steps - 2) * torch.pi, dtype=torch.float64)).item())
        optimizer.param_groups[0]["lr"] = 0.01 * factor
        optimizer.zero_grad()
        total = 0
        for m in range(micro):
            first = ((step - 1) * micro + m) * 2 % len(rows)
            loss = torch.nn.functional.embedding(rows[first : first + 2].long(), weight).sum()
            (loss / micro).backward()
            total += loss.item() / micro
        optimizer.step()
        losses.append(total)
    return weight.detach(), losses


@pytest.mark.parametrize("micro", [1, 3])
def test_trains_like_eager(model, micro):
    result = run(model, "--log", model / "log", "--checkpoint", model / "out", "--micro-batches", micro, steps=6)
    assert result.returncode == 0, result.stderr
    weight, losses = eager(load_file(model / "weights/model.safetensors")["embed.weight"], load_file(model / "data.safetensors")["input_ids"], 6, micro)
    logged = [json.loads(line)["loss"] for line in (model / "log").read_text().splitlines()]
    assert logged == pytest.approx(losses, rel=1e-6)
    saved = load_file(model / "out/latest/model.safetensors")["embed.weight"]
    assert torch.allclose(saved, weight, rtol=1e-6, atol=1e-7)
    assert json.loads((model / "out/latest/config.json").read_text())["vocab_size"] == 16


@pytest.mark.parametrize("stage", [1, 3])
def test_ranks_train_like_one(model, stage):
    """Four ranks with 3 micro-batches each take the rows that one rank with 12 takes, and give the same weights."""
    plans = {1: f"token_zero{stage}_1.plan", 4: f"token_zero{stage}_4.plan"}
    for ranks, micro in ((1, 12), (4, 3)):
        result = run(model, "--log", model / f"log{ranks}", "--checkpoint", model / f"out{ranks}", "--micro-batches", micro, "--ranks", ranks, plan=plans[ranks], data="long.safetensors", steps=3)
        assert result.returncode == 0, result.stderr
    logs = [[json.loads(line) for line in (model / f"log{ranks}").read_text().splitlines()] for ranks in (1, 4)]
    assert [line["loss"] for line in logs[1]] == pytest.approx([line["loss"] for line in logs[0]], rel=1e-6)
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, four = (load_file(model / f"out{ranks}/latest" / name) for ranks in (1, 4))
        assert one.keys() == four.keys()
        assert all(torch.allclose(one[key], four[key], rtol=1e-5, atol=1e-7) for key in one)
    # A checkpoint of four ranks is one of one rank.
    assert run(model, "--checkpoint", model / "out4", "--resume", "--micro-batches", 12, plan=plans[1], data="long.safetensors", steps=4).returncode == 0


def test_resume_goes_on_to_the_same_bits(model):
    assert run(model, "--checkpoint", model / "whole", "--schedule", "constant", steps=6).returncode == 0
    assert run(model, "--checkpoint", model / "parts", "--schedule", "constant", steps=3).returncode == 0
    assert run(model, "--checkpoint", model / "parts", "--schedule", "constant", "--resume", steps=6).returncode == 0
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (model / "whole/latest" / name).read_bytes() == (model / "parts/latest" / name).read_bytes()


def test_flat_tokens(model):
    rows = load_file(model / "data.safetensors")["input_ids"]
    (model / "data.bin").write_bytes(struct.pack(f"<{rows.numel()}H", *rows.flatten().tolist()))
    a = run(model, "--log", model / "a")
    b = run(model, "--log", model / "b", "--seq", 8, data="data.bin")
    assert a.returncode == b.returncode == 0, b.stderr
    losses = lambda name: [json.loads(line)["loss"] for line in (model / name).read_text().splitlines()]
    assert losses("a") == losses("b")
    refused(run(model, data="data.bin"), "--seq")
    refused(run(model, "--seq", 9, data="data.bin"), "[10, 9]", "[2, 8]")
    refused(run(model, "--seq", 1000, data="data.bin"), "too short")


def test_wrong_inputs_are_named(model):
    refused(run(model, weights="nowhere"), "config.json")
    (model / "weights/config.json").rename(model / "weights/x.json")
    refused(run(model), "config.json")
    (model / "weights/x.json").rename(model / "weights/config.json")
    refused(run(model, plan="missing.plan"), "missing.plan", "No such file")
    refused(run(model, plan="linear.plan"), "no section micro_first")
    (model / "cut.plan").write_bytes((model / "token.plan").read_bytes()[:500])
    refused(run(model, plan="cut.plan"), "corrupt or cut short")
    refused(run(model, data="nothing.safetensors"), "nothing.safetensors")
    save_file({"input_ids": torch.full((4, 8), 16, dtype=torch.int32)}, model / "bad.safetensors")
    refused(run(model, data="bad.safetensors"), "row 0 position 0", "token 16", "vocabulary of 16")
    save_file({"input_ids": torch.zeros(1, 8, dtype=torch.int32)}, model / "short.safetensors")
    refused(run(model, data="short.safetensors"), "too short", "takes 2 rows and the file has 1")
    refused(run(model, "--device", "cuda"), "compiled for cpu")
    refused(run(model, "--ranks", "2"), "compiled for 1 ranks and --ranks is 2", "dp=2")
    refused(run(model, "--stepz", "2"), "did you mean --steps?")
    refused(run(model, "--lr", "fast"), "not a number")


def test_wrong_weights_are_named(model):
    path = model / "weights/model.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-4])
    refused(run(model), "embed.weight", "cut short")
    save_file({"embed.weight": torch.zeros(4, 16)}, path)
    refused(run(model), "[4, 16]", "[16, 4]")
    save_file({"other.weight": torch.zeros(4, 16)}, path)
    refused(run(model), "there is no tensor embed.weight")
    path.unlink()
    refused(run(model), "neither model.safetensors nor")


def test_sharded_weights(model):
    weights = model / "weights"
    (weights / "model.safetensors").rename(weights / "model-00001-of-00001.safetensors")
    (weights / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"embed.weight": "model-00001-of-00001.safetensors"}}))
    assert run(model).returncode == 0
    (weights / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"gone.weight": "model-00001-of-00001.safetensors"}}))
    refused(run(model), "promises tensor 'gone.weight'")


def test_errors_as_json(model):
    result = run(model, "--json-errors", plan="missing.plan")
    error = json.loads(result.stderr)["error"]
    assert result.returncode == error["exit_code"] == 1
    assert error["kind"] == "NOT_FOUND"


def test_a_full_disk_leaves_the_last_checkpoint(model):
    out = model / "small"
    out.mkdir()
    assert run(model, "--checkpoint", out, steps=2).returncode == 0
    before = (out / "latest/model.safetensors").read_bytes()
    full = full_disk.environment(out, 512, model)
    refused(run(model, "--checkpoint", out, "--resume", steps=4, env=full), "No space left on device")
    assert (out / "latest/model.safetensors").read_bytes() == before
