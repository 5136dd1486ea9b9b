"""DeepSpeed configurations through heddle.compile and heddle-opt. What becomes of every single key is tested in tests/unit/api."""

import json
import math
import os
import pathlib
import re
import subprocess

import pytest
import torch
from families import FAMILIES
from reference import micro_batch

import heddle

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])
CONFIG = {
    "train_batch_size": 4,
    "train_micro_batch_size_per_gpu": 2,
    "optimizer": {"type": "AdamW", "params": {"lr": 2e-3, "betas": [0.8, 0.95], "eps": 1e-7, "weight_decay": 0.3}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 1e-4, "warmup_max_lr": 1e-3, "warmup_num_steps": 3, "warmup_type": "linear"}},
    "gradient_clipping": 0.5,
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def twice(batch):
    return {name: torch.cat([tensor, tensor.flip(0)]) for name, tensor in batch.items()}


@pytest.mark.parametrize("form", ["dict", "path"])
def test_a_configuration_trains_like_torch(form, tmp_path):
    model, batch = FAMILIES["llama"](2, 16)
    config = CONFIG
    if form == "path":
        config = tmp_path / "ds_config.json"
        config.write_text("// as DeepSpeed reads it\n" + json.dumps(CONFIG))
    step = heddle.compile(model, batch, plan=config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.8, 0.95), eps=1e-7, weight_decay=0.3, foreach=False)
    whole = twice(batch)
    for number in range(1, 6):
        # Not started, then iterations 0, 1, 2 of 3, then the maximum.
        lr = [1e-4, 1e-4, 4e-4, 7e-4, 1e-3][number - 1]
        optimizer.param_groups[0]["lr"] = lr
        out = step(whole)
        optimizer.zero_grad()
        losses = [model(**{name: part for name, part in zip(whole, parts)}, use_cache=False).loss for parts in zip(*(tensor.split(2) for tensor in whole.values()))]
        for loss in losses:
            (loss / 2).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5, foreach=False)
        optimizer.step()
        assert out.lr == pytest.approx(lr, rel=1e-12)
        assert out.loss == pytest.approx(sum(float(loss.detach()) for loss in losses) / 2, rel=1e-5)
        assert out.grad_norm == pytest.approx(float(norm), rel=1e-4)


class Reference:
    """DeepSpeed's schedulers as loops: the rate of update 1, then one `advance` after every update."""

    def __init__(self, kind, lr, *, low=0.0, high=None, warmup=1000, total=None, shape="log", floor=1e-4):
        self.kind, self.lr, self.low, self.floor, self.total, self.shape = kind, lr, low, floor, total, shape
        self.high = high if high is not None else lr if kind == "WarmupLR" else 1e-3
        self.warmup, self.iteration = max(2, warmup), -1

    def advance(self):
        self.iteration += 1

    def rate(self):
        i, cosine = self.iteration, self.kind == "WarmupCosineLR"
        if i < 0:
            return 0.0 if cosine else self.low
        if i < self.warmup:
            rise = math.log(i + 1) / math.log(self.warmup) if self.shape == "log" else i / self.warmup
            return self.lr * (self.low + (1 - self.low) * rise) if cosine else self.low + (self.high - self.low) * rise
        if self.kind == "WarmupLR":
            return self.high
        left = max(1, self.total - self.warmup)
        if cosine:
            done = min(1.0, (i - self.warmup + 1) / left)
            return self.lr * max(0.0, self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2)
        return self.low + (self.high - self.low) * max(0.0, (self.total - i) / left)


@pytest.mark.parametrize(
    "kind, given, named",
    [
        ("WarmupLR", {}, {}),
        ("WarmupLR", {"low": 1e-5, "high": 2e-3, "warmup": 5}, {"warmup_min_lr": 1e-5, "warmup_max_lr": 2e-3, "warmup_num_steps": 5}),
        ("WarmupLR", {"warmup": 1, "shape": "linear"}, {"warmup_num_steps": 1, "warmup_type": "linear"}),
        ("WarmupDecayLR", {"warmup": 4, "total": 12}, {"warmup_num_steps": 4, "total_num_steps": 12}),
        ("WarmupDecayLR", {"low": 1e-4, "high": 3e-3, "warmup": 4, "total": 3, "shape": "linear"}, {"warmup_min_lr": 1e-4, "warmup_max_lr": 3e-3, "warmup_num_steps": 4, "total_num_steps": 3, "warmup_type": "linear"}),
        ("WarmupCosineLR", {"warmup": 4, "total": 12}, {"warmup_num_steps": 4, "total_num_steps": 12}),
        ("WarmupCosineLR", {"low": 0.1, "warmup": 3, "total": 9, "shape": "linear", "floor": 0.2}, {"warmup_min_ratio": 0.1, "warmup_num_steps": 3, "total_num_steps": 9, "warmup_type": "linear", "cos_min_ratio": 0.2}),
    ],
)
def test_schedulers_are_deepspeeds(kind, given, named):
    found = heddle.deepspeed.read({"optimizer": {"type": "Adam", "params": {"lr": 5e-3}}, "scheduler": {"type": kind, "params": named}})
    reference = Reference(kind, 5e-3, **given)
    for update in range(1, 21):
        assert 5e-3 * found.schedule(update) == pytest.approx(reference.rate(), rel=1e-12, abs=1e-18), update
        reference.advance()


def test_code_wins_with_a_warning():
    model, batch = FAMILIES["llama"](2, 16)
    with pytest.warns(heddle.HeddleWarning, match="optimizer= given in code"):
        step = heddle.compile(model, batch, optimizer=heddle.AdamW(lr=4e-3), plan={**CONFIG, "train_batch_size": 2})
    assert step.optimizer.lr == 4e-3
    # The scheduler's rates are absolute.
    assert [step(batch).lr for _ in range(5)][-1] == pytest.approx(1e-3)
    with pytest.warns(heddle.HeddleWarning, match="schedule= given in code"):
        step = heddle.compile(model, batch, schedule=heddle.schedules.constant(), plan={**CONFIG, "train_batch_size": 2})
    assert step(batch).lr == 2e-3


def test_what_has_no_effect_is_a_warning_by_name():
    with pytest.warns(heddle.HeddleWarning) as caught:
        heddle.deepspeed.read({"steps_per_print": 10, "zero_optimization": {"sub_group_size": 1e9}})
    assert [str(w.message).partition(" has no effect")[0] for w in caught] == ["the dict: steps_per_print", "the dict: zero_optimization.sub_group_size"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"gradient_cliping": 1.0}, "did you mean 'gradient_clipping'"),
        ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, "offload_optimizer.device"),
        ({"train_batch_size": 5}, "no multiple of 2"),
        ({"train_batch_size": 3, "train_micro_batch_size_per_gpu": 3}, "train_micro_batch_size_per_gpu is 3, and 'input_ids'"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}, 'is "auto"'),
        ({"optimizer": {"type": "SGD"}}, "use AdamW, Adam or Muon"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change, message):
    model, batch = FAMILIES["llama"](2, 16)
    with pytest.raises(heddle.HeddleError, match=message):
        heddle.compile(model, batch, plan={**CONFIG, **change})


def test_the_number_of_micro_batches_is_checked():
    model, batch = FAMILIES["llama"](2, 16)
    step = heddle.compile(model, batch, plan=CONFIG)
    with pytest.raises(heddle.HeddleError, match="holds 1 micro-batches, .* gradient_accumulation_steps is 2"):
        step(batch)
    with pytest.raises(heddle.HeddleError, match="no-such.json: No such file"):
        heddle.compile(model, batch, plan="no-such.json")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    model, batch = FAMILIES["llama"](2, 16)
    heddle.capture(model, batch).save(folder / "step.mlir")
    return folder / "step.mlir"


def opt(*arguments, **kwargs):
    return subprocess.run([LIBRARIES / "heddle-opt", *map(str, arguments)], capture_output=True, text=True, **kwargs)


def test_heddle_opt_makes_the_plan_that_python_makes(program, tmp_path):
    (tmp_path / "ds.json").write_text(json.dumps(CONFIG))
    run = opt(program, "--config", tmp_path / "ds.json", "-o", tmp_path / "step.plan")
    assert run.returncode == 0 and run.stderr == "", run.stderr
    executable = heddle.compiler.Executable((tmp_path / "step.plan").read_bytes())
    config = executable.stats()["config"]
    assert config["lr"] == 2e-3 and config["clip"] == 0.5 and config["loss_average"] == "batches"
    assert config["schedule"] == {"kind": "deepspeed", "type": "WarmupLR", "lr": 2e-3, **CONFIG["scheduler"]["params"]}
    model, batch = FAMILIES["llama"](2, 16)
    step = heddle.compile(model, batch, plan={key: value for key, value in CONFIG.items() if not key.startswith("train")})
    ours = step._executable.stats()["config"]
    assert ours["update"] == config["update"] and ours["schedule"] == config["schedule"]


@pytest.mark.parametrize(
    "change, more, code, message",
    [
        ({"bf16": {"enabled": True}}, [], 1, "was captured in fp32; capture it in bf16"),
        ({"zero_optimization": {"stage": 9}}, [], 1, "stages are 0 to 3"),
        ({"gradient_cliping": 1.0}, [], 1, "did you mean 'gradient_clipping'"),
        ({"steps_per_print": 5}, [], 0, "warning: .*steps_per_print has no effect"),
        ({}, ["--train-pipeline=zero=0"], 0, "warning: --train-pipeline's zero is taken instead"),
    ],
)
def test_heddle_opt_names_what_it_cannot_do(change, more, code, message, program, tmp_path):
    (tmp_path / "ds.json").write_text(json.dumps({**CONFIG, **change}))
    run = opt(program, "--config", tmp_path / "ds.json", *more, "-o", tmp_path / "step.plan")
    assert run.returncode == code
    assert re.search(message, run.stderr), run.stderr
    assert (tmp_path / "step.plan").exists() == (code == 0)


def test_heddle_opt_errors_as_json(program, tmp_path):
    run = opt(program, "--json-errors", "--train-pipeline=zerro=1")
    error = json.loads(run.stderr)["error"]
    assert run.returncode == error["exit_code"] == 1 and error["tool"] == "heddle-opt" and error["remedy"] == "did you mean 'zero'?"
    (tmp_path / "bad.mlir").write_text('module {\n  %0 = "graph.nonsense"() : () -> i32\n')
    error = json.loads(opt(tmp_path / "bad.mlir", "--json-errors").stderr)["error"]
    assert error["where"].startswith(f"{tmp_path}/bad.mlir:") and error["what"]
    assert json.loads(opt("--no-such-flag", "--json-errors", stdin=subprocess.DEVNULL).stderr)["error"]["message"]
    assert opt(program, "--json-errors", "--train-pipeline=", "-o", tmp_path / "step.plan").returncode == 0


# Without the check beforehand the parser overflows its stack: exit code -11 at 16384 brackets.
@pytest.mark.parametrize("through", ["deep.mlir", "deep.txt", "stdin"])
def test_deep_nesting_is_refused(through, tmp_path):
    text = "module attributes {a = " + "[" * 16384 + "]" * 16384 + "} {}"
    (tmp_path / through).write_text(text)
    run = opt(input=text) if through == "stdin" else opt("-o", tmp_path / "out.mlir", tmp_path / through)
    assert run.returncode == 1 and "brackets are open at once" in run.stderr, (run.returncode, run.stderr[-500:])
    fine = opt(input="module {}")
    assert fine.returncode == 0 and "module" in fine.stdout


def test_muon_and_a_stage_are_compiled():
    """DeepSpeed's Muon, its ZeRO stage and its clipping become those of the step."""
    model, _ = FAMILIES["llama"](1, 8)
    batch = micro_batch(0, 8, 1, 8)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 0.5,
        "zero_optimization": {"stage": 2},
        "optimizer": {"type": "Muon", "params": {"lr": 0.01, "momentum": 0.9}},
    }
    step = heddle.compile(model, batch, plan=config)
    assert (step.plan.zero, step.plan.clip, step.optimizer.momentum, step.optimizer.scale) == (2, 0.5, 0.9, "original")
    assert step.explain()["newton_schulz"]["matrices"] > 0
    first = step(batch).loss
    assert [step(batch).loss for _ in range(3)][-1] < first
