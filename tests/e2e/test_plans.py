"""Batches that the example's plan is not for: another plan on the same state, with the results of eager PyTorch, or an error where that is asked for."""

import logging

import pytest
import torch
from families import FAMILIES

import heddle


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Branching(torch.nn.Module):
    """Python reads `depth` and goes another way for it; dropout shows whether random operators keep their micro-batch's number."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head, self.norm, self.dropout = torch.nn.Linear(8, 8), torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(8), torch.nn.Dropout(dropout)

    def forward(self, x, y, depth):
        for _ in range(int(depth[0])):
            x = torch.tanh(self.layer(x))
        return torch.nn.functional.cross_entropy(self.head(self.dropout(self.norm(x))), y)


def branch_batch(index, depth, size=6):
    generator = torch.Generator().manual_seed(index)
    return {"x": torch.randn(size, 8, generator=generator), "y": torch.randint(0, 4, (size,), generator=generator), "depth": torch.full((size,), depth)}


def compiled(model, example, **plan):
    return heddle.compile(model, example, optimizer=heddle.AdamW(lr=1e-2), plan=heddle.Plan(loss_average="batches", **plan))


def twin_of(model):
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1, foreach=False)


def same_state(step, model):
    state = step.state_dict()
    return [name for name, tensor in model.state_dict().items() if not torch.equal(state[name], tensor)]


# Loading each plan with a state of its own (load_plan instead of load_sharing) makes the second step's loss differ.
def test_host_values_choose_the_plan(caplog):
    step, (twin, optimizer) = compiled(Branching(), branch_batch(0, 2)), twin_of(Branching())
    with caplog.at_level(logging.WARNING, logger="heddle"):
        for number, depth in enumerate([2, 3, 2, 1, 3, 1]):
            batch = branch_batch(number, depth)
            out = step(batch)
            optimizer.zero_grad()
            loss = twin(**batch)
            loss.backward()
            optimizer.step()
            assert out.loss == loss.item(), (number, depth)
    assert same_state(step, twin) == []
    assert step.explain()["plans"] == 3 and step.global_step == 6
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert "guard" in lines[0] and "test_plans.py:" in lines[0] and "gives [3] where the captured one gave [2]" in lines[0]


def test_micro_batches_of_one_update_may_need_different_plans():
    model, micros = Branching(), [branch_batch(0, 2), branch_batch(1, 4), branch_batch(2, 2), branch_batch(3, 4)]
    step, (twin, optimizer) = compiled(model, micros[0]), twin_of(Branching())
    for _ in range(2):
        out = step(micros)
        optimizer.zero_grad()
        losses = [twin(**micro) for micro in micros]
        for loss in losses:
            (loss / 4).backward()
        optimizer.step()
        assert out.loss == pytest.approx(sum(float(loss.detach()) for loss in losses) / 4, rel=1e-6)
    state = step.state_dict()
    for name, tensor in twin.state_dict().items():
        assert torch.allclose(state[name].double(), tensor.double(), rtol=1e-5, atol=1e-6), name


# Without the scalar "micro" the middle micro-batch draws the masks of the first.
def test_a_random_operator_does_not_see_which_plan_runs_it():
    """Three equal micro-batches in one plan, or the middle one in another plan of the same computation: the same masks."""
    micros = [branch_batch(0, 2), {**branch_batch(0, 2), "depth": torch.tensor([2, 9, 9, 9, 9, 9])}, branch_batch(0, 2)]

    class Twice(Branching):
        def forward(self, x, y, depth):
            int(depth[1])
            return super().forward(x, y, depth)

    one, other = compiled(Twice(0.5), micros[0], seed=3), compiled(Twice(0.5), micros[0], seed=3)
    assert one([micros[0]] * 3) == other(micros)
    assert (one.explain()["plans"], other.explain()["plans"]) == (1, 2)
    a, b = one.state_dict(), other.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_evaluation_and_gradients_choose_too():
    model = Branching()
    step = compiled(model, branch_batch(0, 2))
    batch = branch_batch(1, 3)
    twin = Branching()
    twin(**batch).backward()
    gradients = step.gradients(batch)
    assert all(torch.equal(gradients[name], parameter.grad) for name, parameter in twin.named_parameters())
    model.eval()
    assert step.evaluate(batch).loss == float(model(**batch).detach())
    assert step.explain()["plans"] == 2


def test_strict_makes_it_an_error():
    step = compiled(Branching(), branch_batch(0, 2), strict=True)
    with pytest.raises(heddle.HeddleError, match=r"guard at .*test_plans.py:\d+.*gives \[3\] where the captured one gave \[2\]"):
        step(branch_batch(0, 3))
    with pytest.raises(heddle.HeddleError, match="no multiple of the example's 6"):
        step(branch_batch(0, 2, size=5))
    assert step(branch_batch(0, 2)).loss and step.explain()["plans"] == 1


def test_there_is_a_limit():
    step = compiled(Branching(), branch_batch(0, 1), max_plans=2)
    step(branch_batch(0, 2))
    before = step.state_dict()
    with pytest.raises(heddle.HeddleError, match=r"gives \[3\].*has 2 plans already.*max_plans=2"):
        step(branch_batch(0, 3))
    after = step.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    step(branch_batch(0, 2))
    assert step.global_step == 2


def test_a_plan_that_would_need_another_state_is_refused():
    class Optional(Branching):
        def __init__(self):
            super().__init__()
            self.extra = torch.nn.Linear(8, 8)

        def forward(self, x, y, depth):
            return super().forward(self.extra(x) if int(depth[1]) else x, y, depth)

    example = branch_batch(0, 2)
    example["depth"][1] = 0
    step = compiled(Optional(), example)
    with pytest.raises(heddle.HeddleError, match="another set of trained parameters"):
        step(branch_batch(0, 2))
    assert step(example).loss


# Shapes: (rows, sequence length) of every batch of a run whose example is (4, 16).
def test_other_lengths_and_a_short_last_batch(caplog):
    make, example = FAMILIES["llama"], (4, 16)
    model, batch = make(*example)
    step = heddle.compile(model, batch, optimizer=heddle.AdamW(lr=1e-3), plan=heddle.Plan(loss_average="batches"))
    twin = make(*example)[0]
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, foreach=False)
    with caplog.at_level(logging.WARNING, logger="heddle"):
        for rows, length in [(4, 16), (4, 8), (3, 16), (4, 16), (4, 8)]:
            batch = make(rows, length)[1]
            out = step(batch)
            optimizer.zero_grad()
            loss = twin(**batch, use_cache=False).loss
            loss.backward()
            optimizer.step()
            assert out.loss == loss.item(), (rows, length)
    assert same_state(step, twin) == []
    assert [("(4, 8)" in r.getMessage(), "(3, 16)" in r.getMessage()) for r in caplog.records] == [(True, False), (False, True)]


def test_a_program_cannot_be_recorded_again(tmp_path):
    model, batch = FAMILIES["llama"](2, 16)
    step = heddle.compile(heddle.capture(model, batch), batch, optimizer=heddle.AdamW())
    step.load_state_dict(model.state_dict())
    with pytest.raises(heddle.HeddleError, match="cannot be recorded again for this batch: it was compiled from a program"):
        step(FAMILIES["llama"](2, 8)[1])


def test_a_failed_run_keeps_all_plans_on_one_state():
    make = FAMILIES["llama"]
    model, batch = make(2, 16)
    step, other = (heddle.compile(model, batch, optimizer=heddle.AdamW()) for _ in range(2))
    short = make(2, 8)[1]
    for one in (step, other):
        one(batch)
        one(short)
    with pytest.raises(heddle.HeddleError, match="model.embed_tokens"):
        step({**short, "input_ids": short["input_ids"] + 320})
    for again in (batch, short, batch):
        assert step(again) == other(again)
