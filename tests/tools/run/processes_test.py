"""heddle-run as several processes: the losses and files of its threads, and one exit code where a process is killed.

Fails if a process reads another rank's rows, if losses are summed over the ranks here only, and if the ranks do not tell each other that one was told to stop.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])
RANKS = 4


@pytest.fixture
def model(tmp_path):
    subprocess.run([LIBRARIES / "write_plans", tmp_path], check=True)
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)
    save_file({"embed.weight": torch.randn(16, 4)}, tmp_path / "weights/model.safetensors", metadata={"format": "pt"})
    (tmp_path / "weights/config.json").write_text(json.dumps({"vocab_size": 16}))
    save_file({"input_ids": torch.randint(0, 16, (24, 8), dtype=torch.int32)}, tmp_path / "data.safetensors")
    return tmp_path


def command(model, *more, steps=3):
    return [str(LIBRARIES / "heddle-run"), str(model / f"token_zero3_{RANKS}.plan"), "--weights", str(model / "weights"), "--data", str(model / "data.safetensors"), "--steps", str(steps),
            "--micro-batches", "2", *map(str, more)]  # fmt: skip


def start(model, *more, steps=3):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    return [
        subprocess.Popen(
            command(model, *more, steps=steps), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(RANKS)
    ]  # fmt: skip


def ended(processes):
    try:
        return [(process.returncode, out, error) for process in processes for out, error in [process.communicate(timeout=200)]]
    finally:
        for process in processes:
            process.kill()


def losses(path):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in map(json.loads, path.read_text().splitlines())]


def test_processes_have_the_losses_and_files_of_threads(model):
    threads = subprocess.run(command(model, "--log", model / "threads.jsonl", "--checkpoint", model / "threads"), env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert threads.returncode == 0, threads.stderr
    results = ended(start(model, "--log", model / "processes.jsonl", "--checkpoint", model / "processes"))
    assert [code for code, _, _ in results] == [0] * RANKS, results
    assert [bool(out) for _, out, _ in results] == [True] + [False] * (RANKS - 1)
    assert losses(model / "processes.jsonl") == losses(model / "threads.jsonl")
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(model / kind / "latest" / name) for kind in ("processes", "threads"))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    again = ended(start(model, "--checkpoint", model / "processes", "--resume", "--log", model / "more.jsonl", steps=5))
    assert [code for code, _, _ in again] == [0] * RANKS, again
    assert [step for step, _, _ in losses(model / "more.jsonl")] == [4, 5]


def test_a_killed_process_ends_the_others_and_a_signal_to_one_stops_all(model):
    log = model / "log.jsonl"
    for number, code in ((signal.SIGKILL, 2), (signal.SIGTERM, 128 + signal.SIGTERM)):
        running = start(model, "--log", log, "--dumps", model / "dumps", "--deadline", 30, "--checkpoint", model / "checkpoints", steps=10_000_000)
        began = time.monotonic()
        while not (log.exists() and log.read_text()) and time.monotonic() - began < 100:
            time.sleep(0.05)
        running[2].send_signal(number)
        results = ended(running)
        expected = [code] * RANKS if code != 2 else [2, 2, -9, 2]
        assert [code for code, _, _ in results] == expected, results
        if code == 2:
            messages = {error[error.index("heddle: error: ") :] for rank, (_, _, error) in enumerate(results) if rank != 2}
            assert len(messages) == 1 and "rank 2 is missing: " in messages.pop()
            assert len(list((model / "dumps").iterdir())) == RANKS - 1
        log.unlink()
