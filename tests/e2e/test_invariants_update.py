"""Invariants of the update and of the program around it, numbered as in docs/invariants.md. Each test runs the true program and mutants that break the property, and tells them
apart."""

import re
from unittest import mock

import pytest
import torch
from mutation import caught, compiled, in_section, mutant, section, without_op
from reference import one_thread  # noqa: F401
from small import Eager, Net, arguments, deviation, rows
from test_muon import orthogonal

import heddle
from heddle._plans import Plans

BOUND = 1e-9


def adamw(parameters, betas=(0.9, 0.95)):
    return torch.optim.AdamW(parameters, lr=1e-3, betas=betas, eps=1e-8, weight_decay=0.1, foreach=False)


def snapshot(step):
    return {(kind, name): tensor for kind, name, tensor in step._state()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def restore(step, state, number):
    for (kind, name), tensor in state.items():
        step._executable.set_state(kind, name, tensor)
    step.global_step = number


@pytest.mark.parametrize("zero, ranks", [(0, 1), (0, 2), (1, 3), (2, 2), (3, 4)])
def test_inv_4_bias_correction_depends_on_the_steps_number_alone(zero, ranks):
    """One logical step taken three times from one state, and taken after a jump by a step object that never ran the steps before it, gives the same bits each time. With a running
    count of calls in the number's place it does not."""

    def bits():
        batch = lambda number: rows(number, 2 * ranks)  # noqa: E731
        options = arguments(zero=zero, dp=ranks)
        step = heddle.compile(Net().double(), rows(0, 2), **options)
        for number in range(2):
            step(batch(number))
        before, found = snapshot(step), []
        for _ in range(3):
            restore(step, before, 2)
            step(batch(2))
            found.append(snapshot(step))
        fresh = heddle.compile(Net().double(), rows(0, 2), **options)
        restore(fresh, before, 2)
        fresh(batch(2))
        return all(same(found[0], other) for other in (*found[1:], snapshot(fresh)))

    assert bits()
    calls, set_scalars = [], Plans.set_scalars

    def counting(plans, scalars):
        if "step" in scalars:
            calls.append(plans)
            scalars = {**scalars, "step": calls.count(plans)}
        set_scalars(plans, scalars)

    with mock.patch.object(Plans, "set_scalars", counting):
        assert not bits()


@pytest.mark.parametrize("zero, ranks", [(0, 1), (1, 2), (3, 3)])
def test_inv_4_steps_jump_and_betas_change(zero, ranks, tmp_path):
    """Step 2, then 5 and 6, then other betas: torch.optim.AdamW whose step counter is set, whose betas are."""
    eager = Net().double()
    reference = adamw(eager.parameters())
    step = heddle.compile(Net().double(), rows(0, 2), **arguments(zero=zero, dp=ranks, clip=None))

    def both(step, number):
        batch = rows(number, 2 * ranks)
        reference.zero_grad()
        eager(*batch).backward()
        for state in reference.state.values():
            state["step"].fill_(number - 1)
        reference.step()
        step.global_step = number - 1
        step(batch)
        ours = step.state_dict()
        return max(float((ours[name] - p.detach()).abs().max() / p.detach().abs().max()) for name, p in eager.named_parameters())

    assert max(both(step, number) for number in (1, 2, 5, 6)) <= 1e-12
    step.save_checkpoint(tmp_path)
    other = heddle.compile(Net().double(), rows(0, 2), optimizer=heddle.AdamW(lr=1e-3, betas=(0.8, 0.99)), plan=heddle.Plan(zero=zero, dp=ranks, precision="fp64"))
    other.load_checkpoint(tmp_path)
    reference.param_groups[0]["betas"] = (0.8, 0.99)
    assert max(both(other, number) for number in (7, 8)) <= 1e-12
    # The old betas in the update after next: the bound would have seen it.
    reference.param_groups[0]["betas"] = (0.9, 0.95)
    assert both(other, 9) > 1e-6


@pytest.mark.parametrize("zero, ranks", [(0, 1), (0, 2), (1, 4), (2, 3), (3, 2)])
def test_inv_18_newton_schulz_sees_whole_sums_once(zero, ranks):
    """Muon on four micro-batches a rank is Muon on their rows as one, and each matrix is orthogonalised once in an update, whatever the number of micro-batches. The mutants: its
    matrices see the last micro-batch only; only their owner's gradients; an orthogonalised sum of what should be summed first."""
    batches = [rows(number, 8 * ranks) for number in range(3)]
    run = lambda step, eager: deviation(step, eager, batches)  # noqa: E731
    options = arguments("muon", zero=zero, dp=ranks)
    eager = lambda: Eager(Net().double(), "muon")  # noqa: E731
    four, one = (heddle.compile(Net().double(), rows(0, size), **options) for size in (2, 8))
    assert run(four, eager()) <= BOUND and run(one, eager()) <= BOUND
    text = compiled(Net().double(), rows(0, 2), **options)[1]["sched"]
    listed = {name: re.findall(r"newton_schulz|aten::baddbmm|aten::bmm", text[slice(*section(text, name))]) for name in ("micro_first", "micro_next", "boundary")}
    assert listed["boundary"] and not listed["micro_first"] and not listed["micro_next"]
    assert four.explain()["newton_schulz"]["matrices"] == sum(four.explain()["newton_schulz"]["by_rank"]) == 3

    last_only = mutant(in_section("micro_next", r'(sched\.kernel "accumulate".*#sched\.operand, )false\]', r"\g<1>true]"), "sched", Net().double(), rows(0, 2), **options)
    assert run(last_only, eager()) > 1e-3
    if ranks > 1:
        own = lambda text: text.replace('"dist.reduce_scatter"', '"dist.shard"')  # noqa: E731
        assert caught(lambda step: run(step, eager()) > 1e-3, own, "dist", Net().double(), rows(0, 2), **options)

    class EachMicroBatch(Eager):
        """Orthogonalises every micro-batch's gradient, then their sum."""

        def __call__(self, batch):
            total = {}
            for part in zip(*(part.split(2) for part in batch)):
                self.model.zero_grad()
                self.model(*part).backward()
                for name, p in self.update.muon.items():
                    total[name] = total.get(name, 0) + orthogonal(p.grad)
            with mock.patch.object(self.update, "step", lambda clip, step=self.update.step: ([p.grad.copy_(total[name]) for name, p in self.update.muon.items()], step(clip))[1]):
                return super().__call__(batch)

    assert run(heddle.compile(Net().double(), rows(0, 2), **options), EachMicroBatch(Net().double(), "muon")) > 1e-2


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("zero, ranks", [(0, 3), (1, 2), (2, 4), (3, 3)])
@pytest.mark.parametrize("value", [float("inf"), float("nan")], ids=["inf", "nan"])
def test_inv_21_one_rank_that_overflows_stops_them_all(zero, ranks, kind, value):
    """One number in one micro-batch of the last rank: every rank skips; weights, moments and step count keep their bits on every rank, and nothing of it is left in the next update.
    The mutants: an update that does not ask; a norm that stays a rank's own, so that ranks disagree."""
    good = [rows(number, 4 * ranks) for number in range(4)]
    bad = tuple(part.clone() for part in good[1])
    bad[0][-1, 2] = value

    def skips(step):
        step(good[0])
        whole = [(entry["kind"], entry["names"][0]) for entry in step._executable.state if entry["kind"] != "accumulator" and not entry["sharded"]]
        each = lambda: {key: step._executable._call("get_state_ranks", *key) for key in whole}  # noqa: E731
        before, ranks_before, number = snapshot(step), each(), step.global_step
        out = step(bad)
        after, ranks_after = snapshot(step), each()
        return out.skipped and step.global_step == number and same(before, after) and all(map(torch.equal, ranks_before[key], ranks_after[key]) for key in whole)

    options = arguments(kind, zero=zero, dp=ranks)
    step = heddle.compile(Net().double(), rows(0, 2), **options)
    assert skips(step)
    eager = Eager(Net().double(), kind)
    eager(good[0])
    assert deviation(step, eager, good[2:]) <= BOUND
    assert step.global_step == 3

    always = r'("optim\.(?:adamw|muon)"\([^)]*), %\w+\)(.*operandSegmentSizes = array<i32: [\d, ]*), 1>(.*), tensor<i1>\)'
    fails = lambda step: not skips(step)  # noqa: E731
    assert caught(fails, lambda text: re.sub(always, r"\1)\2, 0>\3)", text), "dist", Net().double(), rows(0, 2), **options)
    if zero and kind == "adamw" and ranks > 2:  # elsewhere every rank has gradients of its own that are not finite
        own = lambda text: without_op(text, re.findall(r'.*"dist\.all_reduce".*', text)[-1])  # noqa: E731
        assert caught(fails, own, "dist", Net().double(), rows(0, 2), **options)
