"""Ranks that are processes, over gloo, against ranks that are threads: the same bits. And what the others do when one is killed, stalls or throws.

Fails if gloo sums in another order than loopback, if a process takes another rank's part of the batch or of the state, and if losses or label counts are not those of all ranks.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import process_worker as worker
import pytest
import torch

import heddle

WORKER = pathlib.Path(__file__).with_name("process_worker.py")
FULL = os.environ.get("HEDDLE_TEST_FULL") == "1"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    worker.planted = None


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(ranks, *arguments, worker=WORKER, **variables):
    """The processes of a run without torchrun's own, which would import torch once more."""
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, worker, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
                 "GLOO_SOCKET_IFNAME": "lo", **variables},
        )
        for rank in range(ranks)
    ]  # fmt: skip


def finished(processes, seconds=300):
    """(exit code, stderr) of each."""
    try:
        return [(process.returncode, error) for process in processes for _, error in [process.communicate(timeout=seconds)]]
    finally:
        for process in processes:
            process.kill()


def same(a, b):
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("ranks", [2, 4] if FULL else [2])
def test_processes_have_the_bits_of_threads(ranks, tmp_path):
    other = worker.compiled(2, 3)
    other(worker.batch(10, 3 * worker.ROWS))
    other.save_checkpoint(tmp_path / "of-threads", {"at": "threads"})
    running = start(ranks, "train", tmp_path)
    threads = {case: worker.trained(worker.compiled(case[0], ranks, case[1]), None, ranks) for case in worker.CASES}
    for code, error in finished(running):
        assert code == 0, error
    for rank in range(ranks):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        for case, expected in threads.items():
            assert found[case]["numbers"] == expected["numbers"], (rank, case)
            assert found[case]["plans"] == expected["plans"] == 2
            for what in ("state", "moments", "gradients"):
                assert same(found[case][what], expected[what]), (rank, case, what)
        # A checkpoint of three threads in stage 2, read by processes in stage 3.
        number, state, loss = found["resumed"]
        assert number == 1 and found["extra"] == {"at": "threads"} and same(state, other.state_dict())
        assert loss == pytest.approx(other(worker.batch(20, worker.ROWS * 3)).loss if ranks == 3 else loss)
        assert f"rank 1 would run something else than rank 0; the first difference is in line" in found["mismatch"] and '"lr": 0.02' in found["mismatch"]
        assert "has 3 along dimension 0" in found["bad batch"] and (rank == 1 or found["bad batch"].startswith("rank 1: "))
    # And the other way: the files of all processes, read under another world and stage.
    again = worker.compiled(1, 3)
    assert again.load_checkpoint(tmp_path / "of-processes") == {"at": 4}
    version = (tmp_path / "of-processes" / "latest").resolve()
    assert len(list(version.glob("optimizer-*.safetensors"))) == ranks
    assert set(json.loads((version / "manifest.json").read_text())["files"]) == {path.name for path in version.iterdir()} - {"manifest.json"}
    expected = threads[3, "adamw"]
    assert again.global_step == 4 and same(again.state_dict(), expected["state"])
    moments = {f"{name}.{kind}": tensor for name, kinds in again.optimizer_state_dict()["state"].items() for kind, tensor in kinds.items()}
    assert same(moments, expected["moments"])
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("injury", ["kill", "stall", "throw"] if FULL else ["kill", "stall"])
def test_a_process_that_fails_ends_the_others(injury, tmp_path):
    """Never ends if the watchdog does not see a collective without progress; exits with another code if the verdict is an exception of Python's."""
    ranks = 3 if FULL else 2
    results = finished(start(ranks, injury, tmp_path))
    ended = time.time()
    assert (tmp_path / "injured").exists(), results
    assert ended - float((tmp_path / "injured").read_text()) < 30
    messages = {error[error.index("heddle: error: ") :].strip() for rank, (_, error) in enumerate(results) if (rank, injury) != (1, "kill")}
    assert len(messages) == 1, messages
    message = messages.pop()
    for rank, (code, error) in enumerate(results):
        assert code == (-9 if (rank, injury) == (1, "kill") else 2), error
    expected = "rank 1 failed: " if injury == "throw" else "rank 1 is missing: "
    assert message.startswith(f"heddle: error: {expected}") and f"of group dp." in message and "process_worker.py:" in message
    assert ("the data is gone" in message) == (injury == "throw")
    inspect = subprocess.run([heddle._native.library_dir() / "heddle-inspect", tmp_path / "dumps"], capture_output=True, text=True)
    assert inspect.returncode == 0 and f"Verdict: {expected}" in inspect.stdout


@pytest.mark.parametrize("injury", ["stall", "throw"])
def test_a_thread_that_fails_ends_the_others(injury, tmp_path):
    """The same in one process: the caller gets the verdict, the process goes on."""
    over = []

    def planted(_):
        name = threading.get_ident()
        seen.setdefault(name, len(seen))
        if seen[name] != 1:
            return
        if injury == "throw":
            raise ValueError("the data is gone")
        while not over:
            time.sleep(0.01)

    seen = {}
    step = worker.compiled(3, 3, model=worker.Net(injured=True), deadline=3, dumps=str(tmp_path / "dumps"))
    step(worker.batch(0, 3 * worker.ROWS))
    before = step.state_dict()
    worker.planted = planted
    began = time.monotonic()
    with pytest.raises(heddle.HeddleError, match=r"rank \d (is missing: .* of group dp\.|failed: .*the data is gone)") as raised:
        step(worker.batch(1, 3 * worker.ROWS))
    assert time.monotonic() - began < 12
    assert "process_worker.py:" in str(raised.value) and "flight records are in" in str(raised.value)
    dumps = [json.loads(path.read_text()) for path in (tmp_path / "dumps").iterdir()]
    # A communicator of its own for each direction.
    assert len(dumps) == 3 and all({"dp.gather.0", "dp.reduce.0"} <= {group["name"] for group in dump["groups"]} for dump in dumps)
    worker.planted = None
    if injury == "stall":
        # A thread may still write: the state is for nobody any more.
        with pytest.raises(heddle.HeddleError, match="an earlier run failed"):
            step(worker.batch(1, 3 * worker.ROWS))
        over.append(True)
    else:
        assert same(step.state_dict(), before)
        step(worker.batch(1, 3 * worker.ROWS))
