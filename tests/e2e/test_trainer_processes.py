"""heddle.hf.Trainer in two processes beside transformers.Trainer with DistributedDataParallel over gloo: the same arguments and data, the same losses; checkpoints that one process writes and all have a part in."""

import json
import pathlib

import pytest
from test_processes import finished, start

WORKER = pathlib.Path(__file__).with_name("trainer_worker.py")


def run(what, folder):
    results = finished(start(2, what, folder, worker=WORKER))
    assert [code for code, _ in results] == [0, 0], "\n".join(error for _, error in results)
    return [json.loads((folder / f"{what}-{rank}.json").read_text()) for rank in range(2)]


# Fails if a process trains on the other's rows, if the loss is the mean of the processes' means instead of that over all labels, and hangs if only the process that writes asks for the moments.
def test_two_processes_train_as_transformers_does(tmp_path):
    theirs, ours = run("theirs", tmp_path), run("ours", tmp_path)
    assert ours[0]["loss"] and ours[0]["weights"] == ours[1]["weights"]
    for key, bound in (("loss", 1e-5), ("grad_norm", 1e-4), ("eval_loss", 1e-5), ("learning_rate", 0), ("weights", 1e-4)):
        mine, others = ours[0][key], theirs[0][key]
        assert (list(mine) == list(others)) if key == "weights" else len(mine) == len(others) > 0
        pairs = [(mine[name], others[name]) for name in mine] if key == "weights" else zip(mine, others)
        assert all(a == pytest.approx(b, rel=bound, abs=1e-12) for a, b in pairs), (key, mine, others)
    resumed = run("resumed", tmp_path)
    assert resumed[0]["loss"][-3:] == ours[0]["loss"][3:] and resumed[0]["weights"] == ours[0]["weights"]
    assert not list((tmp_path / "ours").glob("checkpoint-*/*1.safetensors"))
