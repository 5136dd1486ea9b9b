"""heddle-run as several processes: the losses and files of its threads, and one exit code where a process is killed.

Fails if a process reads another rank's rows, if losses are summed over the ranks here only, and if the ranks do not tell each other that one was told to stop.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time

import token_model
import torch
from safetensors.torch import load_file
from token_model import inspect, logged, model  # noqa: F401

RANKS = 4


def command(model, *more, steps=3):
    return token_model.command(model, "--micro-batches", 2, *more, steps=steps, plan=f"token_zero3_{RANKS}.plan")


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
    return [(line["step"], line["loss"], line["grad_norm"]) for line in logged(path)]


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


def test_measured_collectives_price_the_plan(model):
    """Processes over gloo and threads in memory: one file, the first rank's, with every kind of collective; the losses are those of a run that is not measured. Without the prices of
    collectives in heddle-inspect fewer operators are as measured."""
    plan = model / f"token_zero3_{RANKS}.plan"

    def threads(*more):
        done = subprocess.run(command(model, *more), env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        return [(done.returncode, done.stdout, done.stderr)]

    threads("--log", model / "plain.jsonl")
    for run in (threads, lambda *more: ended(start(model, *more))):
        results = run("--measure", "--log", model / "log.jsonl")
        assert {code for code, _, _ in results} == {0}, results
        assert losses(model / "log.jsonl") == losses(model / "plain.jsonl")
        file = model / f"{plan.name}.costs.json"
        costs = json.loads(file.read_text())
        file.unlink()
        found = {entry["collective"]: entry for entry in costs["collectives"]}
        assert sorted(found) == ["all_gather", "all_reduce", "broadcast", "reduce_scatter"]
        assert all((entry["axis"], entry["ranks"]) == ("dp", RANKS) and entry["microseconds"] >= 0 and entry["bytes_per_second"] > 0 for entry in found.values())
        assert costs["operators"] and not any(entry["operator"].split()[0] in found for entry in costs["operators"])
        (model / "costs.json").write_text(json.dumps(costs))
        told = inspect(plan, "--costs", model / "costs.json")
        assert told.returncode == 0
        shares = re.findall(r"(\d+) of (\d+) ops as measured", told.stdout)
        assert shares and all(some == every for some, every in shares), told.stdout
