"""Invariants of the compiled program itself, numbered as in docs/invariants.md: what must be ordered, what must not be left out, what all ranks must agree on. Each test runs
mutants of the program and sees them refused or wrong."""

import collections
import os
import re
import subprocess
import sys

import pytest
import torch
from mutation import caught, compiled, finish, mutant, without_op
from reference import one_thread  # noqa: F401
from small import Eager, Net, Normed, arguments, deviation, hashes, rows
from test_plans import Branching, branch_batch

import heddle
from heddle.compiler import run_passes

BOUND = 1e-9
STAGES = [(0, 2), (1, 3), (2, 2), (3, 3)]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("zero, ranks", STAGES)
def test_inv_13_a_bucket_is_sent_when_all_that_is_in_it_is_written(zero, ranks, kind):
    """Collectives run on streams of their own. Each wait of the schedule is taken out in turn: `sched-verify` proves that the schedule without it is a race. (On a real clock the
    same is test_zero.py's test_overlap_changes_no_bit.)"""
    text = compiled(Net().double(), rows(0, 2), **arguments(kind, zero=zero, dp=ranks))[1]["sched"]
    finish("sched", text, True, "{}", verify=True)
    waits = list(re.finditer(r" wait \[[\d, ]+\]", text))
    assert len(waits) >= 2 or (zero, kind) == (0, "adamw"), "nothing overlaps"
    for wait in waits:
        with pytest.raises(heddle.CompileError, match="sched_verify_r4"):
            finish("sched", text[: wait.start()] + text[wait.end() :], True, "{}", verify=True)


def collectives(text, phase):
    return re.findall(r'.*"dist\.(?:all_reduce|reduce_scatter|all_gather)".*' if phase == "dist" else r'.*sched\.collective "\w+".*', text)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("zero, ranks", STAGES)
def test_inv_16_no_collective_can_be_left_out(zero, ranks, kind):
    """Each collective in turn: a reduction that gives a rank its own contribution, a gather that does not take place. What comes out is refused, or its losses, norms or weights
    are wrong."""
    options = arguments(kind, zero=zero, dp=ranks, overlap=False)
    batches = [rows(number, 4 * ranks) for number in range(3)]
    _, text = compiled(Net().double(), rows(0, 2), **options)
    edits = []
    for line in collectives(text["dist"], "dist"):
        if "all_gather" not in line:
            own = (lambda text, line=line: text.replace(line, line.replace("dist.reduce_scatter", "dist.shard"))) if "reduce_scatter" in line else (lambda text, line=line: without_op(text, line))
            edits.append((line, "dist", own))
    for line in collectives(text["sched"], "sched"):
        if '"all_gather"' in line:
            edits.append((line, "sched", lambda text, line=line: text.replace(line + "\n", "", 1)))
    assert len(edits) >= 4
    for line, phase, edit in edits:
        fails = lambda step: deviation(step, Eager(Net().double(), kind), batches) > 1e-6  # noqa: E731
        assert caught(fails, edit, phase, Net().double(), rows(0, 2), **options), line


@pytest.mark.parametrize("zero, ranks", [(0, 3), (1, 2), (2, 3), (3, 3)])
def test_inv_16_nor_one_of_buffers_or_of_evaluation(zero, ranks):
    """Each collective of the schedule in turn, those that share buffers and those that gather for `evaluate` among them, is not there: the plan is refused, or updates, buffers on any
    rank or the evaluation differ."""
    options = {"optimizer": heddle.AdamW(lr=1e-3), "plan": heddle.Plan(clip=0.05, precision="fp64", zero=zero, dp=ranks, overlap=False)}
    example = rows(0, 4)
    step, text = compiled(Normed().double(), example, evaluates=True, **options)
    text = text["sched"]

    def readings(step):
        outs = [step(rows(number, 8 * ranks)) for number in range(2)]
        buffers = [tensor for entry in step._executable.state if entry["kind"] == "buffer" for tensor in step._executable._call("get_state_ranks", "buffer", entry["names"][0])]
        return [number for out in outs for number in (out.loss, out.grad_norm)] + [step.evaluate(rows(9, 4 * ranks)).loss], list(step.state_dict().values()) + buffers

    def same(a, b):
        return a[0] == b[0] and all(map(torch.equal, a[1], b[1]))

    expected = readings(step)
    assert same(readings(mutant(lambda text: text + "\n", "sched", Normed().double(), example, evaluates=True, **options)), expected)
    lines = list(re.finditer(r'.*sched\.collective "(\w+)".*\n', text))
    kinds = collections.Counter((line[1], line.start() > text.index('sched.section "evaluate"')) for line in lines)
    assert kinds["broadcast", False] == 6 and kinds["all_gather", True] == (5 if zero == 3 else 0), kinds
    for line in lines:
        if "tensor<i64>" in line[0]:
            continue  # the number of batches, which every rank counts alike
        fails = lambda step: not same(readings(step), expected)  # noqa: E731
        assert caught(fails, lambda text: text[: line.start()] + text[line.end() :], "sched", Normed().double(), example, evaluates=True, **options), line[0]


@pytest.mark.parametrize("zero, ranks", STAGES)
def test_inv_16_passes_that_clean_up_keep_every_collective(zero, ranks):
    """Dead code, equal subexpressions and canonical views, run again on the distributed program, leave its collectives in their number and order."""
    text = compiled(Net().double(), rows(0, 2), **arguments("muon", zero=zero, dp=ranks))[1]["dist"]
    kinds = lambda text: [re.search(r"dist\.(\w+)", line)[1] for line in collectives(text, "dist")]  # noqa: E731
    again = run_passes(heddle.Program(text, {}), "builtin.module(graph.step(graph-canonicalize-views,graph-cse,graph-dce))")
    assert kinds(again) == kinds(text) and len(kinds(text)) >= 7
    # One whose result nobody reads is no effect and may go, so the count does say something.
    loss = re.search(r'"graph\.return"\((%\w+)', text)[1]
    unread = text.replace('"graph.return"', f'%unread = "dist.all_reduce"({loss}) <{{axis = "dp"}}> : (tensor<f64>) -> tensor<f64> loc(#loc)\n    "graph.return"')
    assert len(kinds(unread)) == len(kinds(text)) + 1
    assert kinds(run_passes(heddle.Program(unread, {}), "builtin.module(graph.step(graph-dce))")) == kinds(text)


class Adapted(torch.nn.Module):
    """Low-rank adapters beside frozen matrices, a frozen module without any, and a trained head that shares nothing."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        linear = lambda *sizes, **how: torch.nn.Linear(*sizes, **how)  # noqa: E731
        self.base, self.down, self.up = linear(5, 13), linear(5, 2, bias=False), linear(2, 13, bias=False)
        self.fixed, self.last = linear(13, 13), linear(13, 3)
        self.last.bias.requires_grad_(False)
        self.base.requires_grad_(False)
        self.fixed.requires_grad_(False)

    def forward(self, x, y):
        h = torch.tanh(self.base(x) + self.up(self.down(x)))
        return (self.last(torch.tanh(self.fixed(h))) - y).square().mean()


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("zero, ranks", [(0, 2), (1, 3), (2, 4), (3, 2), (3, 3)])
def test_inv_17_frozen_parameters_cost_no_gradient(zero, ranks, kind):
    """Adapters train on every stage; frozen weights keep their bits, have no accumulator, moment or reduction, and are gathered in stage 3. A model that trains them all has what
    this one must not have, and moves what must not move."""
    frozen = {"base.weight", "base.bias", "fixed.weight", "fixed.bias", "last.bias"}
    batches = [rows(number, 4 * ranks) for number in range(3)]

    def look(model):
        step, text = compiled(model, rows(0, 2), **arguments(kind, zero=zero, dp=ranks))
        held = {name for entry in step._executable.state if entry["kind"] != "parameter" for name in entry["names"]}
        reductions = [line for line in collectives(text["dist"], "dist") if "all_gather" not in line]
        gathered = len(collectives(text["dist"], "dist")) - len(reductions)
        worst = deviation(step, Eager(model, kind), batches)
        after = step.state_dict()
        kept = {name for name, tensor in Adapted().double().state_dict().items() if torch.equal(after[name], tensor)}
        return worst, held & frozen, len(reductions), gathered, kept

    worst, held, reductions, gathered, kept = look(Adapted().double())
    assert worst <= BOUND and not held and kept == frozen
    everything = Adapted().double().requires_grad_(True)
    worst, held, more, more_gathered, kept = look(everything)
    assert worst <= BOUND and held == frozen and more > reductions and not kept
    if zero == 3:
        # Weights of frozen modules too: forward, and again in backward where it reads them.
        assert gathered >= 5


def test_inv_19_processes_that_compile_for_themselves_compile_the_same():
    """Plans of two processes whose hash seeds and thread counts differ: byte for byte. Another clipping norm gives others, so that a comparison of hashes sees it (that its message
    names the rank and the first line that differs is Handshake in tests/conformance/loopback_failures_test.cc)."""
    program = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import small; print(small.hashes(0.05))"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "2"}
    other = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
    assert str(hashes(0.05)) == other.strip()
    assert not set(hashes(0.05)) & set(hashes(0.25))


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_inv_19_ranks_take_another_plan_together(zero):
    """A value that Python read is another one on both ranks: both take the other plan. On one rank only: neither plan is for all, which is an error, and the step goes on after
    it as if nothing had happened."""
    double = lambda batch: {**batch, "x": batch["x"].double()}  # noqa: E731
    whole = lambda number, *depths: {name: torch.cat(parts) for name, *parts in zip("xy", *([part["x"], part["y"]] for part in [double(branch_batch(10 * number + i, d)) for i, d in enumerate(depths)]))}  # noqa: E731
    batch = lambda number, *depths: {**whole(number, *depths), "depth": torch.cat([torch.full((6,), d) for d in depths])}  # noqa: E731
    build = lambda: Branching().double()  # noqa: E731
    plan = heddle.Plan(precision="fp64", loss_average="batches", zero=zero, dp=2)
    step, twin = (heddle.compile(build(), double(branch_batch(0, 2)), optimizer=heddle.AdamW(lr=1e-2), plan=plan) for _ in range(2))
    for number, depth in enumerate((2, 3, 2)):
        assert step(batch(number, depth, depth)).loss == twin(batch(number, depth, depth)).loss
    assert step.explain()["plans"] == 2
    with pytest.raises(heddle.HeddleError, match=r"rank \d: .*guard: this batch gives \[\d\] where the captured one gave \[\d\]"):
        step(batch(3, 2, 3))
    assert step.global_step == 3
    for number, depth in enumerate((3, 2), 4):
        assert step(batch(number, depth, depth)).loss == twin(batch(number, depth, depth)).loss
    ours, theirs = step.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
