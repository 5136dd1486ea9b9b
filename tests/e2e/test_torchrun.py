"""`torchrun --no-python heddle-run` as it is typed, two processes over gloo, beside the same plan as two threads of one heddle-run: the same numbers and files, bit for bit.

Fails if every process takes the first one's rows (`roundOf` of heddle-run with 0 in place of the rank).
"""

import json
import math
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_processes import free_port

import heddle

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])
ROWS, MICROS, RANKS, SEQ, TOKENS = 2, 2, 2, 6, 16
# Of the data of ten steps: in step 4 an overflow of rank 1's second micro-batch, in step 8 of rank 0's first.
OVERFLOWS = {4: (1, 1), 8: (0, 0)}
SCALING = {"initial_scale_power": 7, "loss_scale_window": 3, "hysteresis": 1}


class Tokens(torch.nn.Module):
    """Each token says itself; `gain` is what a row's loss is multiplied by."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.first, self.last = torch.nn.Embedding(TOKENS, 8), torch.nn.Linear(8, 13), torch.nn.Linear(13, TOKENS)

    def forward(self, input_ids, gain):
        found = self.last(torch.tanh(self.first(self.embed(input_ids)))).float()
        each = torch.nn.functional.cross_entropy(found.flatten(0, 1), input_ids.flatten(), reduction="none")
        return (each.view_as(input_ids) * gain).mean()


def batch(rows):
    draw = torch.Generator().manual_seed(2)
    return {"input_ids": torch.randint(0, TOKENS, (rows, SEQ), generator=draw), "gain": torch.ones(rows, 1)}


def written(folder, optimizer, overflows=OVERFLOWS, steps=10, **scaling):
    """A plan of two ranks in fp16, weights and data; the arguments of heddle-run."""
    step = heddle.compile(Tokens(), batch(ROWS), optimizer=optimizer, plan=heddle.Plan(zero=3, dp=RANKS, clip=0.2, precision="fp16", loss_scale={**SCALING, **scaling}))
    step.save(folder / "step.plan")
    (folder / "weights").mkdir()
    save_file({name: tensor.contiguous() for name, tensor in step.state_dict().items()}, folder / "weights/model.safetensors", metadata={"format": "pt"})
    (folder / "weights/config.json").write_text(json.dumps({"vocab_size": TOKENS}))
    data = batch(steps * RANKS * MICROS * ROWS)
    for number, (rank, micro) in overflows.items():
        data["gain"][(((number - 1) * RANKS + rank) * MICROS + micro) * ROWS] = math.inf
    save_file({"input_ids": data["input_ids"].int(), "gain": data["gain"]}, folder / "data.safetensors")
    return [LIBRARIES / "heddle-run", folder / "step.plan", "--weights", folder / "weights", "--data", folder / "data.safetensors", "--micro-batches", MICROS, "--steps", steps]


def run(command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"})


def torchrun(command):
    # torchrun takes --log for one of its own, wherever it stands, unless -- ends them.
    end = ["--"] if "--log" in command else []
    return run([pathlib.Path(sys.executable).with_name("torchrun"), "--no-python", "--nproc-per-node", RANKS, "--master-port", free_port(), *end, *command])


def said(path):
    """Every step's numbers, as text: NaN is itself."""
    return [{key: repr(line[key]) for key in ("step", "loss", "grad_norm", "lr", "skipped")} for line in map(json.loads, path.read_text().splitlines())]


@pytest.mark.parametrize("optimizer", [heddle.AdamW(lr=1e-2), heddle.Muon(lr=1e-2, adamw=heddle.AdamW(lr=1e-2))], ids=["adamw", "muon"])
def test_torchrun_is_the_threads(optimizer, tmp_path):
    command = written(tmp_path, optimizer)
    for how, kind in ((run, "threads"), (torchrun, "processes")):
        done = how([*command, "--log", tmp_path / f"{kind}.jsonl", "--checkpoint", tmp_path / kind])
        assert done.returncode == 0, done.stderr
    assert said(tmp_path / "processes.jsonl") == said(tmp_path / "threads.jsonl")
    assert [number for number, line in enumerate(said(tmp_path / "threads.jsonl"), 1) if line["skipped"] == "True"] == sorted(OVERFLOWS)
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(tmp_path / kind / "latest" / name) for kind in ("processes", "threads"))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours), name
    # Halved by two overflows, doubled after three good steps in a row: steps 1-3, 5-7; two are left.
    kept = load_file(tmp_path / "processes/latest/optimizer.safetensors")
    assert kept["scaler/loss_scale"].item() == 2.0**7 and kept["scaler/good_steps"].item() == 2


def test_torchrun_ends_where_the_loss_scale_would_fall_below_its_least(tmp_path):
    """As one process does: the message of DeepSpeed's end, exit code 2, nothing written."""
    command = [*written(tmp_path, heddle.AdamW(lr=1e-2), {3: (1, 0), 4: (0, 1), 5: (1, 1)}, initial_scale_power=1, loss_scale_window=1000), "--checkpoint", tmp_path / "out"]
    for how in (run, torchrun):
        done = how(command)
        assert "step 4: gradients are not finite and the loss scale is 1 already, the least that the plan allows; the run has diverged" in done.stderr, done.stderr
        assert done.returncode == (2 if how is run else 1), done.returncode
        assert how is run or "exitcode  : 2 " in done.stderr
        assert len(done.stdout.splitlines()) == 3 and not (tmp_path / "out" / "latest").exists()
