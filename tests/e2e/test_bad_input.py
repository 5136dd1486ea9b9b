"""What bad input gets, where it comes in through Python or the command line: a named error with place and remedy, exit code 1, nothing partly written."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
import torch
from families import FAMILIES

import heddle

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "fixtures"))

import full_disk  # noqa: E402

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])
NO_GPU = not torch.cuda.is_available()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    model, batch = FAMILIES["llama"](2, 16)
    heddle.capture(model, batch).save(folder / "step.mlir")
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        heddle.capture(model, batch, device="cuda").save(folder / "cuda.mlir")
    return folder


def tool(name, *arguments, **kwargs):
    return subprocess.run([LIBRARIES / name, *map(str, arguments)], capture_output=True, text=True, **kwargs)


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_a_cuda_plan_without_a_gpu(program, tmp_path):
    run = tool("heddle-opt", program / "cuda.mlir", "--train-pipeline=config={\"lr\":0.1}", "-o", tmp_path / "step.plan")
    assert run.returncode == 0, run.stderr
    with pytest.raises(heddle.HeddleError, match="GPU|CUDA|cuda"):
        heddle.compiler.Executable((tmp_path / "step.plan").read_bytes())
    model, batch = FAMILIES["llama"](2, 16)
    with pytest.raises(heddle.HeddleError, match="GPU|CUDA|cuda"):
        heddle.compile(model, batch, optimizer=heddle.AdamW(), device="cuda")
    model.save_pretrained(tmp_path / "weights")
    from safetensors.torch import save_file

    save_file({name: tensor.int() for name, tensor in batch.items()}, tmp_path / "data.safetensors")
    run = tool("heddle-run", tmp_path / "step.plan", "--weights", tmp_path / "weights", "--data", tmp_path / "data.safetensors", "--steps", 1, "--checkpoint", tmp_path / "out")
    assert run.returncode == 1 and "step.plan: " in run.stderr and "GPU" in run.stderr, run.stderr
    assert not (tmp_path / "out").exists()
    run = tool("heddle-run", tmp_path / "step.plan", "--device", "cpu", "--weights", tmp_path / "weights", "--data", tmp_path / "data.safetensors", "--steps", 1)
    assert run.returncode == 1 and "compiled for cuda and --device is cpu" in run.stderr


def test_a_program_of_another_target_or_precision(program):
    _, batch = FAMILIES["llama"](2, 16)
    captured = heddle.load_program(program / "cuda.mlir")
    with pytest.raises(heddle.HeddleError, match="captured for target 'cuda' and 'cpu' is asked for; capture it for 'cpu'"):
        heddle.compile(captured, batch, optimizer=heddle.AdamW(), device="cpu")
    captured = heddle.load_program(program / "step.mlir")
    with pytest.raises(heddle.HeddleError, match="captured for precision 'fp32' and 'bf16' is asked for"):
        heddle.compile(captured, batch, optimizer=heddle.AdamW(), plan=heddle.Plan(precision="bf16"))


def test_another_torch_is_named():
    script = "import torch; torch.__version__ = '2.9.1+cpu'; import heddle"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 1 and "ImportError: heddle is built for torch 2.11.0, this is torch 2.9.1+cpu; install torch==2.11.0" in run.stderr


def test_a_plan_of_another_torch_or_version(program, tmp_path):
    assert tool("heddle-opt", program / "step.mlir", "--train-pipeline=", "-o", tmp_path / "step.plan").returncode == 0
    plan = (tmp_path / "step.plan").read_bytes()
    assert plan.count(b"2.11.0") == 1
    with pytest.raises(heddle.HeddleError, match="the plan needs torch 2.12.0 and this Heddle runs with torch 2.11"):
        heddle.compiler.Executable(plan.replace(b"2.11.0", b"2.12.0"))
    for bad in (plan[:1000], b"", b"HDPL" * 50, plan[:4] + b"HDPX" + plan[8:]):
        with pytest.raises(heddle.HeddleError, match="plan"):
            heddle.compiler.Executable(bad)


@pytest.mark.parametrize(
    "text, message",
    [
        (lambda t: t[: len(t) // 2], "error:"),
        (lambda t: t.replace('"graph.step"', '"graph.stpe"'), "expects parent op 'graph.step'"),
        (lambda t: t.replace("format_version = 1 : i64", "format_version = 2 : i64"), "format"),
        (lambda t: t.replace("#graph.loss, ", "", 1), "error:"),
    ],
)
def test_a_bad_program_leaves_no_plan(program, tmp_path, text, message):
    (tmp_path / "step.mlir").write_text(text((program / "step.mlir").read_text()))
    run = tool("heddle-opt", tmp_path / "step.mlir", "--train-pipeline=", "-o", tmp_path / "step.plan")
    assert run.returncode == 1 and message in run.stderr and "step.mlir" in run.stderr, run.stderr[-600:]
    assert [path.name for path in tmp_path.iterdir()] == ["step.mlir"]


def test_a_failed_pass_can_be_run_again(tmp_path):
    """The one command that the error prints gives the same error: it needs nothing that was there only while the step compiled. (It lacked the constants of the program once.)"""
    model, batch = FAMILIES["llama"](2, 16)
    with pytest.raises(heddle.CompileError, match="memory allows 1024") as raised:
        heddle.compile(model, batch, optimizer=heddle.AdamW(), plan=heddle.Plan(zero=3, dp=2, memory=1024))
    message, _, command = str(raised.value).rpartition("\nreproduce with: ")
    run = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PATH": f"{LIBRARIES}:{os.environ['PATH']}"})
    assert run.returncode == 1 and message in run.stderr, run.stderr
    # The error, and which file it is about: no program behind it.
    assert len(run.stderr.splitlines()) == 2
    files = set(re.findall(r"/\S+/heddle-reproducer-[\w.-]+", command))
    assert {path.rpartition(".")[2] for path in files} == {"mlir", "safetensors"}
    for path in files:
        os.unlink(path)


def test_batches_that_hold_nothing():
    model, batch = FAMILIES["llama"](2, 16)
    step = heddle.compile(model, batch, optimizer=heddle.AdamW())
    for nothing in (None, 3, {}, "text"):
        with pytest.raises(heddle.HeddleError, match=f"the batch is {type(nothing).__name__} and holds no tensors; the example batch had input_ids"):
            step(nothing)
    with pytest.raises(heddle.HeddleError, match="the list of micro-batches is empty"):
        step([])


def test_a_callable_schedule_stays_in_python(tmp_path):
    model, batch = FAMILIES["llama"](2, 16)
    step = heddle.compile(model, batch, optimizer=heddle.AdamW(), schedule=lambda number: 1 / number)
    with pytest.raises(heddle.HeddleError, match="a callable schedule cannot be saved into a plan; use one of heddle.schedules"):
        step.save(tmp_path / "step.plan")
    assert not (tmp_path / "step.plan").exists()


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -1.0, "fast", None])
def test_a_schedule_gives_numbers(factor):
    """A negative factor would climb the loss."""
    model, batch = FAMILIES["llama"](2, 16)
    given = [1.0]
    step = heddle.compile(model, batch, optimizer=heddle.AdamW(), schedule=lambda number: given[0])
    assert step(batch).lr == 1e-4
    before, given[0] = step.state_dict(), factor
    with pytest.raises(heddle.HeddleError, match=f"the schedule's factor for update 2 is {factor!r}; it must be a number of at least 0"):
        step(batch)
    given[0] = torch.tensor(0.5)
    assert all(torch.equal(before[name], tensor) for name, tensor in step.state_dict().items()) and step(batch).lr == 5e-5


def test_nothing_to_train_is_named():
    model, batch = FAMILIES["llama"](2, 16)
    with pytest.raises(heddle.CaptureError, match="every parameter of the model is frozen, so there is nothing to train"):
        heddle.compile(model.requires_grad_(False), batch, optimizer=heddle.AdamW())


SAVERS = """
import heddle, sys
sys.path.insert(0, sys.argv[1])
from families import FAMILIES
model, batch = FAMILIES["llama"](2, 16)
step = heddle.compile(model, batch, optimizer=heddle.AdamW())
for save, name in ((step.save, "step.plan"), (step.save_pretrained, "model"), (step.save_checkpoint, "run")):
    try:
        save(sys.argv[2] + "/" + name)
    except heddle.HeddleError as error:
        print("refused:", error)
"""


def test_no_space_left(program, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    full = {"env": full_disk.environment(folder, 8192, tmp_path)}
    run = tool("heddle-opt", program / "step.mlir", "--train-pipeline=", "-o", folder / "step.plan", **full)
    assert run.returncode == 1 and "No space left on device" in run.stderr, run.stderr
    run = tool("heddle-inspect", program / "step.mlir", "--html", folder / "page.html", **full)
    assert run.returncode == 1 and "No space left on device" in run.stderr, run.stderr
    run = subprocess.run([sys.executable, "-c", SAVERS, pathlib.Path(__file__).parent, folder], capture_output=True, text=True, **full)
    refused = [line for line in run.stdout.splitlines() if line.startswith("refused: ")]
    assert len(refused) == 3 and all(re.search("[Nn]o space left on device.*free some space", line) for line in refused), run.stdout + run.stderr
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert left == []
