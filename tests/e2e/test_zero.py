"""ZeRO stages on several ranks of one process: the numbers are those of one rank, in float64 those of PyTorch on the concatenated batch.

The bounds bite: a collective left out of the runtime (`return OkStatus` in CollectiveStep::Execute), a coordinate of 0 on every rank (Memory::Offset) or labels counted on one
rank only (`_begin`) each fail `test_free_run_in_fp64`.
"""

import itertools
import os
import random

import pytest
import torch
from families import FAMILIES
from reference import Fp64Inside, joined, micro_batch, one_thread  # noqa: F401
from small import Normed

import heddle

FULL = os.environ.get("HEDDLE_TEST_FULL") == "1"
CLIP = 0.3
MATRIX = {"family": ["llama", "qwen3", "gpt2", "deepseek_v3"], "zero": [0, 1, 2, 3], "ranks": [1, 2, 3, 4, 8], "micros": [1, 3, 4]}


def pairwise(matrix):
    """A few of all combinations, in which every two values of different columns meet."""
    rows, draw = list(itertools.product(*matrix.values())), random.Random(0)
    draw.shuffle(rows)
    pairs = lambda row: {(a, row[a], b, row[b]) for a, b in itertools.combinations(range(len(row)), 2)}  # noqa: E731
    missing, chosen = set().union(*map(pairs, rows)), []
    while missing:
        # Of the rows that meet most new pairs the cheapest one.
        chosen.append(max(rows, key=lambda row: (len(pairs(row) & missing), -row[2] * row[3])))
        missing -= pairs(chosen[-1])
    return sorted(chosen)


def model_of(family):
    model, _ = FAMILIES[family](1, 8)
    if family == "deepseek_v3":
        model.set_experts_implementation("batched_mm")  # ATen's grouped matmul has no fp64
    return model


def compiled(model, example, zero, ranks, optimizer=None, **plan):
    return heddle.compile(model, example, optimizer=optimizer or heddle.AdamW(lr=1e-3), plan=heddle.Plan(**{"zero": zero, "dp": ranks, "precision": "fp64", **plan}))


def micros_of(step, count):
    """Micro-batches of unequal label counts, one of them with none, no two alike."""
    valid = [8, 3, 5, 0, 7, 2, 8, 6] if count > 3 else [8, 0, 3] if count == 3 else [8, 3]
    micros = [micro_batch(100 * step + i, valid[i % len(valid)], 1, 8) for i in range(count)]
    assert len({tuple(micro["input_ids"].flatten().tolist()) for micro in micros}) == count
    return micros


def off(ours, theirs):
    """The largest deviation, relative to the tensor's largest element."""
    if not theirs.numel():
        return 0.0
    return float((ours - theirs.detach()).abs().max()) / max(float(theirs.detach().abs().max()), 1e-300)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)


@pytest.mark.parametrize("family, zero, ranks, micros", list(itertools.product(*MATRIX.values())) if FULL else pairwise(MATRIX))
def test_free_run_in_fp64(family, zero, ranks, micros):
    model = model_of(family)
    step = compiled(model, micro_batch(0, 8, 1, 8), zero, ranks, clip=CLIP)
    assert step.explain()["ranks"] == ranks
    reference = model.double()
    optimizer = adamw(reference.parameters())
    for number in range(10):
        batch = joined(micros_of(number, ranks * micros))
        gradients = step.gradients(batch) if FULL or number in (0, 4, 9) else {}
        out = step(batch)
        optimizer.zero_grad()
        with Fp64Inside():
            loss = reference(**batch, use_cache=False).loss
        loss.backward()
        for name, parameter in reference.named_parameters():
            if name in gradients:
                assert off(gradients[name], parameter.grad) <= 1e-9, (number, name)
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), CLIP, foreach=False)
        assert norm > CLIP
        optimizer.step()
        assert out.loss == pytest.approx(loss.item(), rel=1e-9)
        assert out.grad_norm == pytest.approx(norm.item(), rel=1e-9)
    state = step.state_dict()
    assert {name: off(state[name], parameter) for name, parameter in reference.named_parameters() if off(state[name], parameter) > 1e-9} == {}


class Odd(torch.nn.Module):
    """Parameters of every awkward size, first, in the middle and last: none, 1, 13, 4097 elements, a scalar; frozen, unused, tied."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        new = lambda *shape: torch.nn.Parameter(torch.randn(shape) / 4)  # noqa: E731
        self.scalar, self.thirteen, self.empty = new(), new(13), new(0, 5)
        self.frozen = torch.nn.Linear(13, 13)
        self.frozen.requires_grad_(False)
        self.long, self.unused, self.one = new(4097), new(7), new(1)
        self.first, self.second = torch.nn.Linear(13, 13), torch.nn.Linear(13, 13)
        self.second.weight = self.first.weight
        self.last = new(3, 13)

    def forward(self, x, y):
        h = self.frozen(x * self.thirteen) * self.scalar
        h = self.second(torch.tanh(self.first(h))) + self.empty.sum() + self.one
        return (h @ self.last.T + self.long.mean() - y).square().mean()


@pytest.mark.parametrize("zero, ranks", [(0, 3), (1, 2), (1, 8), (2, 4), (2, 8), (3, 2), (3, 3), (3, 8)])
def test_parameters_of_every_size(zero, ranks):
    """The mean over ranks and micro-batches, as DDP's; on 8 ranks most parameters have fewer elements than there are ranks, or than a shard."""
    model = Odd().double()
    batch = lambda seed, count: tuple(torch.randn(2 * count, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + n)) for n in (13, 3))  # noqa: E731
    step = compiled(model, batch(0, 1), zero, ranks, clip=0.05)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = adamw(trained)
    for number in range(4):
        whole = batch(number, 2 * ranks)
        gradients = step.gradients(whole)
        out = step(whole)
        optimizer.zero_grad()
        loss = model(*whole)
        loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert off(gradients[name], parameter.grad) <= 1e-9, name
        norm = torch.nn.utils.clip_grad_norm_(trained, 0.05, foreach=False)
        optimizer.step()
        assert norm > 0.05
        assert out.loss == pytest.approx(loss.item(), rel=1e-9)
        assert out.grad_norm == pytest.approx(norm.item(), rel=1e-9)
    state = step.state_dict()
    assert list(state) == list(model.state_dict())
    assert {name for name, tensor in model.state_dict().items() if off(state[name], tensor) > 1e-9} == set()


@pytest.mark.parametrize("zero, ranks, kind", [(0, 2, "adamw"), (0, 3, "muon"), (1, 4, "adamw"), (1, 3, "muon"), (2, 2, "adamw"), (2, 8, "muon"), (3, 4, "adamw"), (3, 3, "muon"), (3, 8, "adamw")])
def test_dropout_does_not_depend_on_ranks(zero, ranks, kind):
    """Two Heddle steps: no other program knows which masks Heddle draws. Where ranks numbered their micro-batches each from 0, this failed."""
    optimizer = heddle.Muon(lr=1e-2, adamw=heddle.AdamW(lr=1e-3)) if kind == "muon" else None
    one, many = (compiled(FAMILIES["gpt2_dropout"](1, 8)[0], micro_batch(0, 8, 1, 8), *how, optimizer, clip=CLIP, seed=3) for how in ((0, 1), (zero, ranks)))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for number in range(4):
        batch = joined(micros_of(number, 2 * ranks))
        a, b = one(batch), many(batch)
        assert a.loss == pytest.approx(b.loss, rel=1e-9) and a.grad_norm == pytest.approx(b.grad_norm, rel=1e-9)
    assert torch.equal(torch.get_rng_state(), before), "training moved the caller's random numbers"
    a, b = one.state_dict(), many.state_dict()
    assert {name for name in a if off(b[name], a[name]) > 1e-9} == set()


@pytest.mark.parametrize("family, zero, precision", [("llama", 1, "fp32"), ("gpt2_dropout", 2, "fp32"), ("llama", 3, "bf16")])
def test_the_same_command_twice_is_bitwise_equal(family, zero, precision):
    results = []
    for _ in range(2):
        step = compiled(FAMILIES[family](1, 8)[0], micro_batch(0, 8, 1, 8), zero, 3, clip=CLIP, precision=precision)
        outputs = [step(joined(micros_of(number, 6))) for number in range(4)]
        results.append(([(out.loss, out.grad_norm) for out in outputs], step.state_dict(), step.optimizer_state_dict()))
    (a, weights, moments), (b, others, other_moments) = results
    assert a == b
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert all(torch.equal(tensor, other_moments["state"][name][kind]) for name, kinds in moments["state"].items() for kind, tensor in kinds.items())


@pytest.mark.parametrize("saved, loaded", [((3, 2), (1, 4)), ((1, 3), (0, 1)), ((0, 1), (3, 8)), ((2, 4), (3, 3))])
def test_checkpoints_load_under_another_world_and_stage(saved, loaded, tmp_path):
    example = micro_batch(0, 8, 1, 8)
    step = compiled(model_of("llama_tied"), example, *saved, clip=CLIP)
    for number in range(2):
        step(joined(micros_of(number, 24)))
    step.save_checkpoint(tmp_path, {"epoch": 1})
    other = compiled(FAMILIES["llama_tied"](1, 8)[0], example, *loaded, clip=CLIP)
    assert other.load_checkpoint(tmp_path) == {"epoch": 1}
    third = compiled(FAMILIES["llama_tied"](1, 8)[0], example, *loaded, clip=CLIP)
    third.load_state_dict(step.state_dict())
    a, b, c = step.state_dict(), other.state_dict(), third.state_dict()
    assert all(torch.equal(a[name], b[name]) and torch.equal(a[name], c[name]) for name in a)
    a, b = step.optimizer_state_dict(), other.optimizer_state_dict()
    assert a["step"] == b["step"] == 2
    assert all(torch.equal(tensor, b["state"][name][kind]) for name, kinds in a["state"].items() for kind, tensor in kinds.items())
    for number in range(2, 5):
        batch = joined(micros_of(number, 24))
        assert step(batch).loss == pytest.approx(other(batch).loss, rel=1e-9)
    a, b = step.state_dict(), other.state_dict()
    assert {name for name in a if off(b[name], a[name]) > 1e-9} == set()


@pytest.mark.parametrize("zero", [0, 3])
def test_evaluate_is_that_of_one_rank(zero):
    model = model_of("gpt2")
    one, many = (compiled(model, micro_batch(0, 8, 1, 8), *how) for how in ((0, 1), (zero, 4)))
    batch = joined(micros_of(0, 8))
    a, b = one.evaluate(batch), many.evaluate(batch)
    assert a.loss == pytest.approx(b.loss, rel=1e-12)
    assert off(b.outputs["logits"], a.outputs["logits"]) <= 1e-12
    with torch.no_grad(), Fp64Inside():
        assert a.loss == pytest.approx(float(model.eval().double()(**batch, use_cache=False).loss), rel=1e-9)


@pytest.mark.parametrize("zero", [1, 3])
def test_a_rank_that_fails_ends_the_step_and_the_next_one_runs(zero):
    model = model_of("llama")
    step, twin = (compiled(model, micro_batch(0, 8, 1, 8), zero, 3) for _ in range(2))
    good = joined(micros_of(0, 3))
    assert step(good) == twin(good)
    bad = {name: tensor.clone() for name, tensor in joined(micros_of(1, 3)).items()}
    bad["input_ids"][1, 4] = 4000
    with pytest.raises(heddle.HeddleError, match="rank 1( failed)?: .*out of range"):
        step(bad)
    good = joined(micros_of(2, 3))
    assert step(good) == twin(good)


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_a_step_that_must_not_be_taken_changes_nothing_on_any_rank(zero):
    step = compiled(model_of("llama"), micro_batch(0, 8, 1, 8), zero, 2)
    good = joined(micros_of(0, 2))
    step(good)
    before, moments = step.state_dict(), step.optimizer_state_dict()
    assert step(joined([micro_batch(1, 0, 1, 8), micro_batch(2, 0, 1, 8)])).skipped
    broken = {**before, "model.norm.weight": torch.full_like(before["model.norm.weight"], float("inf"))}
    step.load_state_dict(broken)
    assert step(good).skipped and step.global_step == 1
    after, moments_after = step.state_dict(), step.optimizer_state_dict()
    assert all(torch.equal(broken[name], after[name]) for name in broken)
    assert all(torch.equal(tensor, moments_after["state"][name][kind]) for name, kinds in moments["state"].items() for kind, tensor in kinds.items())


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_buffers_are_those_of_rank_0(zero):
    """As DDP has it: every rank normalises by its own micro-batch, and the running averages of the first one are everyone's."""
    ranks = 3
    batch = lambda seed, rank: tuple(torch.randn(6, n, dtype=torch.float64, generator=torch.Generator().manual_seed(100 * seed + 10 * rank + n)) for n in (13, 3))  # noqa: E731
    whole = lambda seed: tuple(map(torch.cat, zip(*(batch(seed, rank) for rank in range(ranks)))))  # noqa: E731
    model = Normed(13).double()
    step = compiled(model, batch(0, 0), zero, ranks)
    optimizer = adamw(model.parameters())
    for number in range(3):
        out = step(whole(number))
        optimizer.zero_grad()
        total = 0.0
        for rank in reversed(range(ranks)):
            before = {name: buffer.clone() for name, buffer in model.named_buffers()}
            loss = model(*batch(number, rank)) / ranks
            loss.backward()
            total += loss.item()
            if rank > 0:
                for name, buffer in model.named_buffers():
                    buffer.copy_(before[name])
        optimizer.step()
        assert out.loss == pytest.approx(total, rel=1e-9)
    state = step.state_dict()
    assert {name for name, tensor in model.state_dict().items() if off(state[name].double(), tensor.double()) > 1e-9} == set()
    model.eval()
    assert step.evaluate(whole(9)).loss == pytest.approx(sum(model(*batch(9, rank)).item() for rank in range(ranks)) / ranks, rel=1e-9)


def test_sharded_state_takes_a_share_of_the_memory():
    memory = {zero: compiled(model_of("llama"), micro_batch(0, 8, 1, 8), zero, 4).explain()["memory"] for zero in (0, 1, 2, 3)}
    share = {zero: {kind: memory[zero][f"state: {kind}"] / memory[0][f"state: {kind}"] for kind in ("parameter", "accumulator", "exp_avg")} for zero in memory}
    quarter = pytest.approx(0.25, abs=0.01)
    assert [share[zero]["exp_avg"] for zero in (1, 2, 3)] == [quarter] * 3
    assert [share[zero]["accumulator"] for zero in (1, 2, 3)] == [1, quarter, quarter]
    assert [share[zero]["parameter"] for zero in (1, 2, 3)] == [1, 1, quarter]


def test_batches_of_other_shapes_share_the_state_of_all_ranks():
    """Three plans on one sharded state: each update's rounds run in the plan of their shape."""
    model = model_of("llama")
    step = compiled(model, micro_batch(0, 8, 1, 8), 3, 2, clip=CLIP)
    reference = model.double()
    optimizer = adamw(reference.parameters())
    for number in range(4):
        micros = [micro_batch(10 * number + i, 4 + i, 1, seq) for i, seq in enumerate((8, 12, 8, 12) if number else (8, 8, 8, 8))]
        out = step(micros)
        optimizer.zero_grad()
        labels = [int((micro["labels"][:, 1:] >= 0).sum()) for micro in micros]
        with Fp64Inside():
            loss = sum(reference(**micro, use_cache=False).loss * count for micro, count in zip(micros, labels)) / sum(labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), CLIP, foreach=False)
        optimizer.step()
        assert out.loss == pytest.approx(loss.item(), rel=1e-9)
    state = step.state_dict()
    assert {name for name, parameter in reference.named_parameters() if off(state[name], parameter) > 1e-9} == set()
    with pytest.raises(heddle.HeddleError, match=r"'attention_mask' has shape \(1, 8\) on rank 0 and \(1, 12\) on rank 1"):
        step([micro_batch(0, 8, 1, 8), micro_batch(1, 8, 1, 12)])


def test_a_batch_that_ranks_cannot_share_is_refused():
    step = compiled(model_of("llama"), micro_batch(0, 8, 1, 8), 1, 2)
    with pytest.raises(heddle.HeddleError, match="holds 3 micro-batches, which dp=2 ranks cannot share evenly: give a multiple of 2"):
        step(joined(micros_of(0, 3)))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_overlap_changes_no_bit(zero, optimizer):
    """Collectives on streams of their own, as far ahead as limits let them, and parameters gathered once against everything in one order. With the events of a section ignored (`waits` in
    Executable::RunOnStreams) all but stage 0 with AdamW, whose collectives all stand in one order anyway, fail."""
    optimizer = heddle.AdamW(lr=1e-3) if optimizer == "adamw" else heddle.Muon(lr=1e-2, adamw=heddle.AdamW(lr=1e-3))
    runs = []
    choices = [{"overlap": False}, {"overlap": True}]
    if zero == 3:
        choices += [{"prefetch": 0, "reducing": 1}, {"memory": "64MiB", "overlap": False}, {"memory": "64MiB", "prefetch": 20000, "max_live": 40000}]
    for choice in choices:
        step = heddle.compile(model_of("llama"), micro_batch(0, 8, 1, 8), optimizer=optimizer, plan=heddle.Plan(zero=zero, dp=3, precision="fp32", clip=CLIP, **choice))
        explained = step.explain()
        assert explained["overlap"] == (["compute", "gather", "reduce"] if choice.get("overlap", True) else ["compute"])
        if "memory" in choice and "overlap" in choice:
            kept = explained["kept_gathered"]
            assert kept["buckets"] == kept["of"] > 0 and explained["memory"]["scratch"] <= kept["scratch_budget"]
        runs.append(([step(joined(micros_of(number, 6))).loss for number in range(4)], step.state_dict()))
    for losses, state in runs[1:]:
        assert losses == runs[0][0]
        assert all(torch.equal(state[name], runs[0][1][name]) for name in state)
