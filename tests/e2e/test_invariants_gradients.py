"""Invariants of accumulation and reduction, numbered as in docs/invariants.md. Each test runs the true program and mutants that break the property, and tells them apart."""

import re
from unittest import mock

import pytest
import torch
from families import FAMILIES
from mutation import compiled, mutant, without_op
from reference import joined, micro_batch, one_thread  # noqa: F401
from small import CLIP, Eager, Net, arguments, deviation, optimizer, rows

import heddle

BOUND = 1e-9
STAGES = [(0, 1), (0, 3), (1, 2), (2, 3), (3, 2)]


def first(text, old, new):
    """Every `accumulate` of a schedule writes (`first`) or adds, as said."""
    return re.sub(rf'(sched\.kernel "accumulate".*#sched\.operand, ){old}\]', rf"\g<1>{new}]", text)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("zero, ranks", STAGES)
def test_inv_1_the_update_sees_the_sum_over_any_number_of_backwards(zero, ranks, kind):
    """The number of micro-batches changes from update to update: nothing may be keyed on a configured one, and nothing of one update may leak into the next."""
    counts = (1, 4, 3, 1, 2)
    batches = [rows(number, 2 * ranks * count) for number, count in enumerate(counts)]
    run = lambda step: deviation(step, Eager(Net().double(), kind), batches)  # noqa: E731
    options = arguments(kind, zero=zero, dp=ranks)
    assert run(heddle.compile(Net().double(), rows(0, 2), **options)) <= BOUND
    overwrites = mutant(lambda text: first(text, "false", "true"), "sched", Net().double(), rows(0, 2), **options)
    assert run(overwrites) > 1e-3
    if zero < 2:  # where the first sum over ranks lands in the accumulator, nothing is added
        with pytest.raises(heddle.CompileError, match="reads value .* were not written before"):
            mutant(lambda text: first(text, "true", "false"), "sched", Net().double(), rows(0, 2), **options)


@pytest.mark.parametrize("zero, ranks, micros", [(0, 2, 2), (1, 3, 2), (2, 2, 4), (2, 4, 2), (3, 2, 3), (3, 4, 4)])
def test_inv_2_a_micro_batch_that_is_not_reduced_biases_the_norm(zero, ranks, micros):
    """All ranks have the same rows in all micro-batches, so the norm is that of one micro-batch. Where what the other ranks add to the last one is lost (here their targets are
    what the model gives, so that they add zero) it is too small by (W-1)/W/k: found to nine digits, so that a leak of any micro-batch of any thousand would be seen. A program
    that does not reduce is no plan at all."""
    one = rows(0, 2)
    model = Net().double()
    model(*one).backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
    x, y = (part.repeat(ranks * micros, 1) for part in one)
    options = {**arguments(zero=zero, dp=ranks), "optimizer": heddle.AdamW(lr=0.0)}
    step = heddle.compile(model, one, **options)
    assert step((x, y)).grad_norm == pytest.approx(norm, rel=1e-12)
    exact = model.outputs(one[0]).detach()
    lost = y.reshape(ranks, micros, 2, 3).clone()
    lost[1:, -1] = exact
    assert step((x, lost.reshape(y.shape))).grad_norm == pytest.approx(norm * (1 - (ranks - 1) / ranks / micros), rel=1e-9)
    unreduced = lambda text: re.sub(r'"dist\.reduce_scatter"', '"dist.shard"', text) if zero else without_op(text, re.search(r'.*"dist\.all_reduce".*', text)[0])  # noqa: E731
    with pytest.raises(heddle.CompileError, match="only one rank has|different from rank to rank"):
        mutant(unreduced, "dist", model, one, **options)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_inv_2_every_rank_updates_with_the_same_sums(zero, kind):
    """Before the update ranks hold sums of their own data, which differ; what they reduce them to is bitwise the same on all: the norm, and every tensor that each rank has whole.
    Where the sum of squares is not reduced the norms would differ, which the plan's reader sees."""
    ranks = 3

    def norms(step):
        found, run_ranks = [], step._executable.run_ranks

        def recording(section, inputs):
            results = run_ranks(section, inputs)
            if section == "boundary":
                found.append([rank["output:grad_norm"].item() for rank in results])
            return results

        with mock.patch.object(step._executable, "run_ranks", recording):
            for number in range(3):
                if zero < 2:
                    step.gradients(rows(number, 4 * ranks))
                    sums = step._executable._call("get_state_ranks", "accumulator", "layers.1.weight")
                    assert not torch.equal(sums[0], sums[1]) and not torch.equal(sums[1], sums[2])
                step(rows(number, 4 * ranks))
        return found

    options = arguments(kind, zero=zero, dp=ranks)
    step = heddle.compile(Net().double(), rows(0, 2), **options)
    assert all(len(set(each)) == 1 for each in norms(step))
    whole = [(entry["kind"], entry["names"][0]) for entry in step._executable.state if entry["kind"] != "accumulator" and not entry["sharded"]]
    assert bool(whole) == (zero < 3)
    for kind_of, name in whole:
        first, *others = step._executable._call("get_state_ranks", kind_of, name)
        assert all(torch.equal(first, other) for other in others), (kind_of, name)
    if zero or kind == "muon":  # stage 0 with AdamW sums the squares of whole gradients, the same on every rank
        with pytest.raises(heddle.CompileError, match="different from rank to rank"):
            mutant(lambda text: without_op(text, re.findall(r'.*"dist\.all_reduce".*', text)[-1]), "dist", Net().double(), rows(0, 2), **options)


@pytest.mark.parametrize("zero, kind", [(0, "muon"), (3, "adamw")])
def test_inv_3_how_rows_are_split_changes_nothing(zero, kind):
    """The same 16 rows a step, of unequal label counts, as 2 x 8, 4 x 4 and 16 x 1 rows on one and two ranks: the same losses and norms. Averaged over micro-batches instead of
    labels, as the mutant does, the splits part ways in the first step."""
    data = [joined([micro_batch(100 * number + i, (8, 3, 5, 0, 7, 2, 8, 6)[i % 8], 1, 8) for i in range(16)]) for number in range(4)]

    def run(rows_of_micro, ranks, **plan):
        example = {name: tensor[:rows_of_micro] for name, tensor in data[0].items()}
        model = FAMILIES["llama"](1, 8)[0]
        step = heddle.compile(model, example, optimizer=optimizer(kind), plan=heddle.Plan(precision="fp64", clip=0.3, zero=zero, dp=ranks, **plan))
        return torch.tensor([(out.loss, out.grad_norm) for out in map(step, data)], dtype=torch.float64)

    apart = lambda a, b: float(((a - b) / b).abs().max())  # noqa: E731
    reference = run(8, 1)
    assert max(apart(run(*split), reference) for split in ((8, 2), (4, 2), (1, 2), (1, 1))) <= BOUND
    assert apart(run(4, 2, loss_average="batches")[:1], reference[:1]) > 1e-3


def of_padding(ranks):
    """An edit by which the norm is that of everything but the parameters: `segments` lists, bucket by bucket, how many there are and where."""

    def edit(text):
        sums = re.search(r'"optim\.square_sums".*', text)[0]
        numbers = lambda name: [int(n) for n in re.search(rf"{name} = array<i64(?:: ([-\d, ]+))?>", sums)[1].split(",")]  # noqa: E731
        segments, shards, padding, count = numbers("segments"), numbers("shard"), [], 0
        bounds = numbers("bounds") if -1 in shards else []
        while segments:
            members = [segments[1 + 2 * i : 3 + 2 * i] for i in range(segments[0])]
            del segments[: 1 + 2 * len(members)]
            shard = shards.pop(0)
            end = shard * ranks if shard >= 0 else bounds[ranks]
            del bounds[: (ranks + 1) * (shard < 0)]
            gaps = [[a + n, b - a - n] for (a, n), b in zip(members, [m[0] for m in members[1:]] + [end]) if b > a + n]
            padding += [len(gaps), *(n for gap in gaps for n in gap)]
            count += len(gaps)
        changed = re.sub(r"segments = array<i64: [\d, ]+>", f"segments = array<i64: {', '.join(map(str, padding))}>", sums)
        was = re.search(r"-> tensor<(\d+)xf64>", sums)[1]
        edited = text.replace(sums, changed)
        # As many sums as there are gaps now, in every type that the sums and what follows of them have.
        return "\n".join(line.replace(f"tensor<{was}xf64>", f"tensor<{count}xf64>") if re.search(r'optim\.(square_sums|norm)"|dist\.all_reduce"', line) else line for line in edited.split("\n"))

    return edit


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("zero, ranks", [(1, 8), (2, 3), (3, 4)])
def test_inv_10_padding_is_zero(zero, ranks, kind):
    """65, 13, 91, 7, 21 and 3 elements in slots of 128. A program whose norm is taken over all but these finds exactly zero, the true one the norm of the unsharded gradients.
    Where gradients are packed between ones instead, as they can be in stages 2 and 3, the former finds those and the latter still does not."""
    batches = [rows(number, 4 * ranks) for number in range(3)]
    options = arguments(kind, zero=zero, dp=ranks)
    step, eager = heddle.compile(Net().double(), rows(0, 2), **options), Eager(Net().double(), kind)
    assert all(step(batch).grad_norm == pytest.approx(eager(batch)[1], rel=1e-12) for batch in batches)
    padding = mutant(of_padding(ranks), "dist", Net().double(), rows(0, 2), **options)
    assert [padding(batch).grad_norm for batch in batches] == [0.0] * 3
    if zero > 1:
        ones = lambda text: text.replace('"aten::zeros"', '"aten::ones"')  # noqa: E731
        assert mutant(of_padding(ranks), "dist", Net().double(), rows(0, 2), then=ones, **options)(batches[0]).grad_norm > 1
        true = mutant(ones, "sched", Net().double(), rows(0, 2), **options)
        assert true(batches[0]).grad_norm == pytest.approx(Eager(Net().double(), kind)(batches[0])[1], rel=1e-12)


NAMES = {"fp64": "f64", "fp32": "f32", "bf16": "bf16"}


@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize(
    "dtypes, sent",
    [({}, "f32"), ({"reduce_dtype": "bf16"}, "bf16"), ({"accumulate_dtype": "bf16"}, "f32"), ({"accumulate_dtype": "bf16", "reduce_dtype": "bf16"}, "bf16"), ({"accumulate_dtype": "fp64"}, "f64"),
     ({"accumulate_dtype": "fp64", "reduce_dtype": "fp32"}, "f32"), ({"reduce_dtype": "fp64"}, "f64")],
    ids=str,
)  # fmt: skip
def test_inv_15_what_is_sent_at_the_boundary(zero, dtypes, sent):
    """Stages 0 and 1 send accumulators: in the dtype that was asked for, else never in one that rounds their sum over ranks. What the update then sees is read off its first moments, against
    the sum in float64 of what every rank has accumulated. (Accumulators in bf16 were once sent as they are, with no reduce_dtype given: the case fails then.)
    Muon's matrices are updated where accumulators lie, so it refuses what would have to be converted."""
    ranks = 4
    plan = heddle.Plan(zero=zero, dp=ranks, precision="bf16", **dtypes)
    step, text = compiled(Net(), rows(0, 2, torch.bfloat16), optimizer=optimizer("adamw"), plan=plan)
    carried = re.findall(r'sched\.collective "(?:all_reduce|reduce_scatter)".*: \(!sched\.ref<tensor<(\d+)x(\w+)>', text["sched"])
    assert {dtype for size, dtype in carried if int(size) >= 128} == {sent}
    batch = rows(1, 2 * ranks * 6, torch.bfloat16)
    names, worst = step.gradients(batch), 0.0  # and accumulators as they are before anything is sent, in whose place it may be
    sums = {name: sum(part.double() for part in step._executable._call("get_state_ranks", "accumulator", name)) for name in names}
    step(batch)
    for name, kinds in step.optimizer_state_dict()["state"].items():
        exact = sums[name] / (6 * ranks)
        worst = max(worst, float((kinds["exp_avg"].double() / 0.1 - exact).abs().max() / exact.abs().max()))
    assert worst > 5e-4 if sent == "bf16" else worst <= 1e-6, worst
    muon = lambda: heddle.compile(Net(), rows(0, 2, torch.bfloat16), optimizer=optimizer("muon"), plan=plan)  # noqa: E731
    if sent == {"bf16": "bf16", "fp64": "f64"}.get(dtypes.get("accumulate_dtype"), "f32"):
        assert not muon()(batch).skipped
    else:
        with pytest.raises(heddle.CompileError, match=f"cannot reduce gradients of Muon's matrices in '{sent}': stage {zero} reduces the accumulators"):
            muon()


@pytest.mark.parametrize(
    "zero, dtypes",
    [(2, {}), (3, {"reduce_dtype": "bf16"}), (2, {"accumulate_dtype": "fp64"}), (3, {"accumulate_dtype": "bf16", "master_dtype": "fp64"}), (2, {"reduce_dtype": "fp64", "master_dtype": "fp32"})],
    ids=lambda value: "-".join(f"{key.partition('_')[0]}={v}" for key, v in value.items()) or "default" if isinstance(value, dict) else str(value),
)
def test_inv_15_each_dtype_is_the_one_asked_for(zero, dtypes):
    """bf16 forward and backward; what the collectives carry, what accumulates and what the update writes are three settings, fp32 where none was given. In the sums of four ranks
    and six micro-batches a bf16 reduction or accumulation shows: its error is a thousand times that of fp32."""
    model, ranks = Net(), 4
    wanted = {name: dtypes.get(f"{name}_dtype", "fp32") for name in ("reduce", "accumulate", "master")}
    options = {**arguments(zero=zero, dp=ranks, **dtypes), "plan": heddle.Plan(zero=zero, dp=ranks, precision="bf16", clip=CLIP, **dtypes)}
    step, text = compiled(model, rows(0, 2, torch.bfloat16), **options)
    reduced = re.findall(r'sched\.collective "reduce_scatter".*: \(!sched\.ref<tensor<\d+x(\w+)>', text["sched"])
    assert reduced and set(reduced) == {NAMES[wanted["reduce"]]}
    held = {kind: {entry["dtype"] for entry in step._executable.state if entry["kind"] == kind} for kind in ("accumulator", "master")}
    assert held == {"accumulator": {NAMES[wanted["accumulate"]]}, "master": {NAMES[wanted["master"]]}}

    batch = rows(1, 2 * ranks * 6, torch.bfloat16)
    eager, gradients = Net().bfloat16(), {}
    for x, y in zip(*(part.split(2) for part in batch)):
        eager.zero_grad()
        eager(x, y).backward()
        for name, p in eager.named_parameters():
            gradients[name] = gradients.get(name, 0) + p.grad.double() / (ranks * 6)
    ours = step.gradients(batch)
    error = max(float((ours[name].double() - exact).abs().max() / exact.abs().max()) for name, exact in gradients.items())
    assert (error > 1e-3) if "bf16" in (wanted["reduce"], wanted["accumulate"]) else (error <= 1e-6)
