"""The main job, `python -m heddle.demo`: a few steps, Ctrl-C and resume, and what bad input gets."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import transformers

SMALL = ["--batch", "2", "--seq", "32"]
# Tensors of this size gain nothing from a second thread, and lose much where the machine is busy.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model folder with nothing but a config.json."""
    folder = tmp_path_factory.mktemp("tiny")
    transformers.LlamaConfig(architectures=["LlamaForCausalLM"], vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                             max_position_embeddings=64).save_pretrained(folder)
    return folder


def demo(*arguments):
    return subprocess.run([sys.executable, "-m", "heddle.demo", *map(str, arguments)], capture_output=True, text=True, timeout=600, env=ONE_THREAD)


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_it_names(tmp_path):
    out = tmp_path / "out"
    run = demo("--ranks", 1, "--steps", 3, "--out", out, *SMALL)
    assert run.returncode == 0, run.stderr
    assert "0 of 39 tensors differ" in run.stdout
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3]
    assert all(line["loss"] == line["eager_loss"] for line in log)
    assert log[-1]["loss"] < log[0]["loss"]
    named = [line.split()[-1] for line in run.stdout.splitlines() if line.startswith(("inspection page", "plan", "log", "checkpoint"))]
    assert len(named) == 4 and all(pathlib.Path(path).exists() for path in named)
    assert "<html" in (out / "step.html").read_text().lower()
    assert transformers.AutoModelForCausalLM.from_pretrained(out / "checkpoint" / "latest").config.hidden_size == 192
    again = demo("--resume", "--out", out)
    assert again.returncode == 0 and "is complete" in again.stdout


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_ranks_learn_what_one_rank_does(optimizer, tiny, tmp_path):
    """By itself the demo runs four ranks with ZeRO-3, beside eager PyTorch on the whole batch: only the order of sums differs."""
    out = tmp_path / "out"
    run = demo("--model", tiny, "--optimizer", optimizer, "--steps", 4, "--out", out, "--device", "cpu", "--batch", "4", "--seq", "32")
    assert run.returncode == 0, run.stderr
    assert f"4 ranks with ZeRO-3 on cpu; {optimizer}" in run.stdout and "4 ranks add up gradients in another order" in run.stdout
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(log) == 4 and all(line["loss"] == pytest.approx(line["eager_loss"], rel=1e-5) for line in log)
    gap = float(run.stdout.partition("largest difference of a weight from eager PyTorch ")[2].split(";")[0])
    assert 0 < gap < 1e-4


@pytest.mark.parametrize("ranks", [1, 2])
def test_ctrl_c_and_resume_are_an_unbroken_run(ranks, tiny, tmp_path):
    common = ["--model", tiny, "--steps", 40, "--ranks", ranks, *SMALL]
    assert demo(*common, "--out", tmp_path / "whole").returncode == 0
    broken = tmp_path / "broken"
    process = subprocess.Popen([sys.executable, "-u", "-m", "heddle.demo", *map(str, common), "--out", str(broken)], stdout=subprocess.PIPE, text=True, env=ONE_THREAD)
    for line in process.stdout:
        if line.split()[:1] == ["2"]:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stdout.read()
    assert process.wait(600) == 130
    assert "go on with --resume" in rest
    done = len(losses(broken))
    assert 2 <= done < 40
    latest = broken / "checkpoint" / "latest"
    assert json.loads((latest / "trainer.json").read_text())["step"] == done
    assert transformers.AutoModelForCausalLM.from_pretrained(latest).config.hidden_size == 32

    resumed = demo("--resume", "--out", broken)
    assert resumed.returncode == 0, resumed.stderr
    assert f"resumed after step {done}" in resumed.stdout and (ranks > 1 or "0 of 21 tensors differ" in resumed.stdout)
    assert losses(broken) == losses(tmp_path / "whole")


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "arguments, message",
    [
        (lambda tmp, tiny: ["--data", tmp / "none.txt"], "none.txt: No such file"),
        (lambda tmp, tiny: ["--data", write(tmp / "short.txt", "abc")], "has 3 bytes and one sequence needs 128"),
        (lambda tmp, tiny: ["--model", tmp], "there is no config.json"),
        (lambda tmp, tiny: ["--model", write(tmp / "config.json", "{").parent], "config.json"),
        (lambda tmp, tiny: ["--model", write(tmp / "config.json", json.dumps({**json.loads((tiny / "config.json").read_text()), "vocab_size": 100})).parent], "vocab_size is 100"),
        (lambda tmp, tiny: ["--model", tiny], "max_position_embeddings is 64, less than --seq 128"),
        (lambda tmp, tiny: ["--resume"], "there is no run to resume"),
        (lambda tmp, tiny: ["--ranks", "3"], "--batch 8 is no multiple of --ranks 3"),
        (lambda tmp, tiny: ["--steps", "0"], "--steps 0 is less than 1"),
        (lambda tmp, tiny: ["--step", "3"], "did you mean '--steps'"),
        (lambda tmp, tiny: ["--steps", "many"], "invalid int value: 'many'"),
    ],
)
def test_bad_input_is_named(arguments, message, tiny, tmp_path):
    run = demo("--out", tmp_path / "out", *arguments(tmp_path, tiny))
    assert run.returncode == 1, run.stdout + run.stderr
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert not os.path.exists(tmp_path / "out")


def test_truncated_weights_are_named(tiny, tmp_path):
    transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(tiny)).save_pretrained(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    run = demo("--model", tmp_path / "model", "--ranks", 1, "--out", tmp_path / "out", *SMALL)
    assert run.returncode == 1 and str(tmp_path / "model") in run.stderr and "Traceback" not in run.stderr


def test_another_text_cannot_be_resumed(tiny, tmp_path):
    text = write(tmp_path / "text.txt", "to be or not to be, that is the question. " * 10)
    common = ["--out", tmp_path / "out"]
    assert demo("--model", tiny, "--ranks", 1, "--steps", 1, "--data", text, *SMALL, *common).returncode == 0
    text.write_text(text.read_text().upper())
    run = demo("--resume", *common)
    assert run.returncode == 1 and "has changed since the run began" in run.stderr
    run = demo("--resume", "--steps", 9, *common)
    assert run.returncode == 1 and "contradicts the run" in run.stderr
