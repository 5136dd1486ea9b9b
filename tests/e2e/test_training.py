"""heddle.compile: micro-batches, averages, evaluation, state, checkpoints, and what is refused."""

import json
import math
import os
import pathlib

import pytest
import torch
import transformers
from families import FAMILIES
from reference import Fp64Inside, joined, micro_batch, one_thread  # noqa: F401

import heddle

def compiled(model, example, **plan):
    return heddle.compile(model, example, optimizer=heddle.AdamW(lr=1e-3), plan=heddle.Plan(**plan))


# The last entry of each is the number of valid labels in each micro-batch's rows; 0 is a micro-batch without any.
@pytest.mark.parametrize("valid", [[16], [16, 5, 9], [7, 0, 16, 2]], ids=["one", "three", "four_one_ignored"])
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_free_run_in_fp64(family, valid):
    model, _ = FAMILIES[family](2, 16)
    if family == "mixtral":
        model.set_experts_implementation("batched_mm")  # ATen's grouped matmul has no fp64
    step = compiled(model, micro_batch(0, 16), precision="fp64", clip=1.0)
    assert step.explain()["loss_average"] == "tokens"
    assert set(step.explain()["cuda_graph"].values()) == {"no: device cpu has no graphs"}
    reference = model.double()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    for number in range(10):
        batch = joined([micro_batch(100 * number + i, v) for i, v in enumerate(valid)])
        out = step(batch)
        optimizer.zero_grad()
        with Fp64Inside():
            loss = reference(**batch, use_cache=False).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0, foreach=False)
        optimizer.step()
        assert out.loss == pytest.approx(loss.item(), rel=1e-11)
        assert out.grad_norm == pytest.approx(norm.item(), rel=1e-9)
    state = step.state_dict()
    for name, parameter in reference.named_parameters():
        assert float((state[name] - parameter).detach().abs().max()) <= 1e-10 * float(parameter.detach().abs().max()), name


@pytest.mark.parametrize("valid", [[16], [16, 5, 9], [7, 0, 16, 2]], ids=["one", "three", "four_one_ignored"])
def test_fp32_gradients_stay_within_the_noise(valid):
    """Against fp64 on the whole batch the compiled fp32 gradients are no further off than a small multiple of eager fp32's own error on that batch."""
    model, _ = FAMILIES["llama"](2, 16)
    batch = joined([micro_batch(i, v) for i, v in enumerate(valid)])
    ours = compiled(model, micro_batch(0, 16)).gradients(batch)
    model(**batch, use_cache=False).loss.backward()
    eager = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.double()
    with Fp64Inside():
        loss = model(**batch, use_cache=False).loss
    loss.backward()
    for name, parameter in model.named_parameters():
        noise = float((eager[name] - parameter.grad).abs().max())
        assert float((ours[name] - parameter.grad).abs().max()) <= 4 * noise + 1e-7 * float(parameter.grad.abs().max()), name


def test_average_over_batches_is_the_mean_of_losses():
    model, _ = FAMILIES["llama"](2, 16)
    micros = [micro_batch(1, 16), micro_batch(2, 5)]
    step = compiled(model, micros[0], loss_average="batches")
    assert step.explain()["loss_average"] == "batches"
    expected = [float(model(**micro).loss.detach()) for micro in micros]
    assert step(micros).loss == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_a_step_without_labels_is_skipped():
    model, _ = FAMILIES["llama"](2, 16)
    step = compiled(model, micro_batch(0, 16))
    step(micro_batch(0, 16))
    before, moments = step.state_dict(), step.optimizer_state_dict()
    out = step(joined([micro_batch(1, 0), micro_batch(2, 0)]))
    assert out.skipped and math.isnan(out.loss) and math.isnan(out.grad_norm)
    assert step.global_step == 1
    after, moments_after = step.state_dict(), step.optimizer_state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(a, moments_after["state"][name][kind]) for name, kinds in moments["state"].items() for kind, a in kinds.items())


def test_a_gradient_that_is_not_finite_skips_the_update():
    model, batch = FAMILIES["llama"](2, 16)
    step = compiled(model, batch)
    weights = step.state_dict()
    broken = {**weights, "model.norm.weight": torch.full_like(weights["model.norm.weight"], float("inf"))}
    step.load_state_dict(broken)
    assert step(batch).skipped and step.global_step == 0
    after = step.state_dict()
    assert all(torch.equal(broken[name], after[name]) for name in broken)
    step.load_state_dict(weights)
    assert not step(batch).skipped and step.global_step == 1


def test_a_list_is_the_same_as_one_batch():
    model, _ = FAMILIES["llama"](2, 16)
    micros = [micro_batch(i, v) for i, v in enumerate((16, 3, 9))]
    one, other = compiled(model, micros[0]), compiled(model, micros[0])
    assert one(micros) == other(joined(micros))
    a, b = one.state_dict(), other.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_evaluate_runs_in_eval_and_changes_nothing():
    model, batch = FAMILIES["gpt2_dropout"](2, 16)
    step = heddle.compile(model, batch, optimizer=heddle.AdamW())
    assert model.training and all(module.training for module in model.modules())
    before = step.state_dict()
    first, second = step.evaluate(batch), step.evaluate(batch)
    model.eval()
    with torch.no_grad():
        expected = model(**batch, use_cache=False)
    assert first.loss == second.loss == float(expected.loss)
    assert torch.equal(first.outputs["logits"], expected.logits)
    after = step.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert step.global_step == 0


def test_gradients_update_nothing():
    model, batch = FAMILIES["llama_tied"](2, 16)
    step = compiled(model, batch, loss_average="batches")
    gradients = step.gradients(batch)
    model(**batch, use_cache=False).loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(gradients[name], parameter.grad), name
    assert torch.equal(gradients["lm_head.weight"], gradients["model.embed_tokens.weight"])
    assert all(torch.equal(p, step.state_dict()[name]) for name, p in model.named_parameters())


def test_sync_and_the_state_dict():
    model, batch = FAMILIES["llama_tied"](2, 16)
    step = compiled(model, batch)
    step(batch)
    state = step.state_dict()
    assert list(state) == list(model.state_dict())
    assert not torch.equal(state["model.norm.weight"], model.model.norm.weight)
    step.sync(model)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    other = compiled(FAMILIES["llama_tied"](2, 16)[0], batch)
    other.load_state_dict(model.state_dict())
    assert other.evaluate(batch).loss == step.evaluate(batch).loss


@pytest.mark.parametrize("change, message", [("rename", "did you mean 'model.norm.weight'"), ("shape", r"has shape \(3,\)"), ("lack", "lacks 1 tensors")])
def test_a_bad_state_dict_changes_nothing(change, message):
    model, batch = FAMILIES["llama"](2, 16)
    step = compiled(model, batch)
    before = step.state_dict()
    bad = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    norm = bad.pop("model.norm.weight")
    bad.update({"rename": {"model.norm.wieght": norm}, "shape": {"model.norm.weight": torch.zeros(3)}, "lack": {}}[change])
    with pytest.raises(heddle.HeddleError, match=message):
        step.load_state_dict(bad)
    after = step.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Classifier(torch.nn.Module):
    """No Hugging Face model: a frozen layer, an unused one, buffers that the step writes and one that it does not."""

    def __init__(self, norm=torch.nn.BatchNorm1d):
        super().__init__()
        torch.manual_seed(0)
        self.frozen, self.norm, self.head, self.unused = torch.nn.Linear(8, 16), norm(16), torch.nn.Linear(16, 4), torch.nn.Linear(3, 3)
        self.frozen.requires_grad_(False)
        self.register_buffer("spare", torch.ones(2))
        self.register_buffer("scale", torch.full((1,), 2.0), persistent=False)

    def forward(self, x, y):
        return torch.nn.functional.cross_entropy(self.head(torch.relu(self.norm(self.frozen(x)))) * self.scale, y)


def test_a_plain_module_with_buffers(tmp_path):
    model, batch = Classifier(), (torch.randn(6, 8), torch.randint(0, 4, (6,)))
    step = compiled(model, batch, loss_average="batches")
    twin = Classifier()
    optimizer = torch.optim.AdamW([p for p in twin.parameters() if p.requires_grad], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, foreach=False)
    for _ in range(3):
        out = step(batch)
        optimizer.zero_grad()
        loss = twin(*batch)
        loss.backward()
        optimizer.step()
        assert out.loss == loss.item()
    state = step.state_dict()
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in twin.state_dict().items())
    step.gradients(batch)
    assert all(torch.equal(tensor, step.state_dict()[name]) for name, tensor in state.items()), "gradients() changed the state"
    step.save_checkpoint(tmp_path)
    expected = step(batch)
    step.load_checkpoint(tmp_path)
    assert step(batch) == expected


def test_what_no_step_changes_is_not_rounded(tmp_path):
    model, batch = Classifier(torch.nn.LayerNorm), (torch.randn(6, 8).bfloat16(), torch.randint(0, 4, (6,)))
    step = compiled(model, batch, precision="bf16")
    fixed = ["frozen.weight", "frozen.bias", "unused.weight", "unused.bias", "spare"]
    step(batch)
    step.save_checkpoint(tmp_path)
    empty = Classifier(torch.nn.LayerNorm)
    with torch.no_grad():
        for tensor in empty.state_dict().values():
            tensor.zero_()
    other = compiled(empty, batch, precision="bf16")
    other.load_checkpoint(tmp_path)
    for state in (step.state_dict(), other.state_dict()):
        assert {name for name in fixed if not torch.equal(state[name], model.state_dict()[name])} == set()
    assert step(batch) == other(batch)


@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2_dropout", "mixtral"])
def test_resume_is_bitwise(family, tmp_path):
    model, batch = FAMILIES[family](2, 16)
    step = compiled(model, batch, seed=5)
    for _ in range(2):
        step(batch)
    version = step.save_checkpoint(tmp_path, {"epoch": 3})
    assert version.name == "step-00000002" and os.readlink(tmp_path / "latest") == version.name
    expected = [step(batch) for _ in range(3)]

    torch.manual_seed(99)
    fresh = compiled(type(model)(model.config).train(), batch, seed=5)
    assert fresh.load_checkpoint(tmp_path) == {"epoch": 3}
    assert fresh.global_step == 2
    assert [fresh(batch) for _ in range(3)] == expected
    a, b = step.state_dict(), fresh.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_resume_in_bf16_keeps_the_master(tmp_path):
    model, batch = FAMILIES["llama"](2, 16)
    model.bfloat16()
    step = compiled(model, batch)
    assert step.plan.precision == "bf16"
    step(batch)
    step.save_checkpoint(tmp_path)
    expected = [step(batch).loss for _ in range(2)]
    fresh = compiled(FAMILIES["llama"](2, 16)[0].bfloat16(), batch)
    fresh.load_checkpoint(tmp_path)
    assert [fresh(batch).loss for _ in range(2)] == expected
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "latest")
    assert loaded.dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["llama", "llama_tied", "mixtral"])
def test_transformers_loads_what_was_saved(family, tmp_path):
    model, batch = FAMILIES[family](2, 16)
    step = compiled(model, batch)
    step(batch)
    step.save_pretrained(tmp_path / "model")
    version = step.save_checkpoint(tmp_path / "checkpoint")
    state = step.state_dict()
    for folder in (tmp_path / "model", version, tmp_path / "checkpoint" / "latest"):
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
        assert {name for name, tensor in loaded.state_dict().items() if not torch.equal(tensor, state[name])} == set()


def test_versions_are_kept_and_replaced(tmp_path):
    model, batch = FAMILIES["llama"](2, 16)
    step = compiled(model, batch)
    for _ in range(3):
        step(batch)
        step.save_checkpoint(tmp_path, keep=2, wait=False)
    step.wait_for_checkpoint()
    again = step.save_checkpoint(tmp_path, keep=2)
    assert again.name == "step-00000003.1"
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "step-00000003", "step-00000003.1"}
    assert os.readlink(tmp_path / "latest") == again.name


def test_a_failed_write_leaves_the_old_version(tmp_path, monkeypatch):
    model, batch = FAMILIES["llama"](2, 16)
    step = compiled(model, batch)
    old = step.save_checkpoint(tmp_path)
    step(batch)

    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("heddle.checkpoint._sync", full)
    with pytest.raises(heddle.HeddleError, match="No space left on device; free some space"):
        step.save_checkpoint(tmp_path)
    step.save_checkpoint(tmp_path, wait=False)
    with pytest.raises(heddle.HeddleError, match="was not written: .*No space"):
        step.wait_for_checkpoint()
    assert {path.name for path in tmp_path.iterdir()} == {"latest", old.name}
    step.load_checkpoint(tmp_path)
    assert step.global_step == 0


def _truncate(version):
    path = version / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _newer(version):
    path = version / "trainer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 7}))


def _other_model(version):
    (version / "optimizer.safetensors").unlink()
    (version / "manifest.json").unlink()
    heddle.checkpoint._write_manifest(version, 1)


@pytest.mark.parametrize("spoil, message", [(_truncate, "latest"), (_newer, "format version 7 cannot be read"), (_other_model, "there is no exp_avg of"), (lambda v: (v / "trainer.json").write_text("{"), "trainer.json")])
def test_a_bad_checkpoint_changes_nothing(spoil, message, tmp_path):
    model, batch = FAMILIES["llama"](2, 16)
    step = compiled(model, batch)
    step(batch)
    spoil(step.save_checkpoint(tmp_path))
    step(batch)
    before = step.state_dict()
    with pytest.raises(heddle.HeddleError, match=message):
        step.load_checkpoint(tmp_path)
    after = step.state_dict()
    assert step.global_step == 2 and all(torch.equal(before[name], after[name]) for name in before)


def test_a_meta_model_waits_for_its_weights():
    model, batch = FAMILIES["llama"](2, 16)
    with torch.device("meta"):
        empty = type(model)(model.config).train()
    step = compiled(empty, batch)
    with pytest.raises(heddle.HeddleError, match="has no weights yet"):
        step(batch)
    step.load_state_dict(model.state_dict())
    assert step(batch) == compiled(model, batch)(batch)


def test_a_program_can_be_compiled(tmp_path):
    model, batch = FAMILIES["llama"](2, 16)
    heddle.capture(model, batch).save(tmp_path / "step.mlir")
    step = compiled(heddle.load_program(tmp_path / "step.mlir"), batch)
    step.load_state_dict(model.state_dict())
    assert step(batch) == compiled(model, batch)(batch)
    with pytest.raises(heddle.HeddleError, match="compiled from a program"):
        step.evaluate(batch)


def test_a_token_out_of_range_can_be_followed_by_a_step():
    model, batch = FAMILIES["llama"](2, 16)
    step, other = compiled(model, batch), compiled(model, batch)
    step(batch)
    other(batch)
    with pytest.raises(heddle.HeddleError, match="model.embed_tokens"):
        step({**batch, "input_ids": batch["input_ids"] + 320})
    assert step.global_step == 1
    assert step(batch) == other(batch)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: joined([b, {name: tensor[:1] for name, tensor in b.items()}]), "no multiple of the example's 2"),
        (lambda b: {name: tensor[:0] for name, tensor in b.items()}, r"has shape \(0, 16\): there is nothing in it"),
        (lambda b: {**b, "input_ids": b["input_ids"][:1]}, "must agree"),
        (lambda b: {**b, "input_ids": b["input_ids"][0]}, r"has shape \(16,\)"),
        (lambda b: {**b, "input_ids": b["input_ids"].float()}, "is torch.float32 and was torch.int64"),
        (lambda b: {**b, "labels": torch.cat([b["labels"]] * 2)}, "must agree"),
        (lambda b: {**b, "lables": b["labels"]}, "did you mean 'labels'"),
        (lambda b: {"input_ids": b["input_ids"]}, "the batch lacks 'attention_mask'"),
        (lambda b: {**b, "use_cache": True}, "'use_cache' is True"),
        (lambda b: [], "list of micro-batches is empty"),
    ],
)
def test_a_wrong_batch_is_refused(change, message):
    model, batch = FAMILIES["llama"](2, 16)
    step = compiled(model, batch)
    with pytest.raises(heddle.HeddleError, match=message):
        step(change(batch))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: {name: tensor[:1] for name, tensor in b.items()}, "no multiple of the example's 2"),
        (lambda b: {name: tensor[:, :8] for name, tensor in b.items()}, r"has shape \(2, 8\)"),
        (lambda b: [b, joined([b, b])], "micro-batch 1 of the list"),
    ],
)
def test_strict_wants_the_examples_shapes(change, message):
    model, batch = FAMILIES["llama"](2, 16)
    step = compiled(model, batch, strict=True)
    with pytest.raises(heddle.HeddleError, match=message):
        step(change(batch))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_plans": 0}, "max_plans=0"),
        ({"dp": 0}, "dp=0"),
        ({"ep": 2}, "ep=2"),
        ({"sp": 2}, "sp=2"),
        ({"loss_scale": 128.0}, "loss_scale=128.0 is for precision='fp16'"),
        ({"cuda_graph": True}, "cuda_graph=True"),
        ({"precison": "bf16"}, "did you mean 'precision'"),
        ({"precision": "fp23"}, "precision='fp23'"),
        ({"zero": 4}, "no ZeRO stage"),
        ({"clip": 0}, "clip=0"),
        ({"memory": "70 gigs"}, "memory='70 gigs'"),
        ({"memory": "1KiB"}, "allows 1024"),
        ({"loss_average": "token"}, "did you mean 'tokens'"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_plan_that_cannot_be_honoured_is_refused(options, message):
    model, batch = FAMILIES["llama"](2, 16)
    with pytest.raises(heddle.HeddleError, match=message):
        heddle.compile(model, batch, optimizer=heddle.AdamW(), plan=heddle.Plan(**options))


def test_deterministic_on_cuda_needs_pytorchs_switch():
    plan = heddle.Plan(deterministic=True, dp=1)
    plan.refuse_unsupported("cpu")
    with pytest.raises(heddle.HeddleError, match="use_deterministic_algorithms"):
        plan.refuse_unsupported("cuda")
    torch.use_deterministic_algorithms(True)
    try:
        plan.refuse_unsupported("cuda")
    finally:
        torch.use_deterministic_algorithms(False)


def test_other_optimizers_schedules_and_plans_are_refused(tmp_path):
    model, batch = FAMILIES["llama"](2, 16)
    for arguments, message in (
        ({}, "no optimizer was given"),
        ({"optimizer": torch.optim.SGD(model.parameters())}, "SGD is no optimizer of Heddle's"),
        ({"optimizer": heddle.AdamW(), "schedule": 3}, "schedule=3"),
        ({"optimizer": heddle.AdamW(), "plan": 3}, "plan is a int; pass a heddle.Plan"),
        ({"optimizer": heddle.AdamW(), "device": "gpu"}, "unknown device 'gpu'"),
    ):
        with pytest.raises(heddle.HeddleError, match=message):
            heddle.compile(model, batch, **arguments)
    with pytest.raises(AttributeError, match="no attribute 'Lion'"):
        heddle.Lion
    step = heddle.compile(model, batch, optimizer=heddle.AdamW(lr=1e-3), schedule=lambda number: 1 / number)
    assert [step(batch).lr for _ in range(2)] == [1e-3, 5e-4]
    with pytest.raises(heddle.HeddleError, match="callable schedule cannot be saved"):
        step.save(tmp_path / "step.plan")
    assert list(pathlib.Path(tmp_path).iterdir()) == []


def test_schedules():
    cosine = heddle.schedules.cosine(warmup=2, total=4)
    assert [cosine(i) for i in range(1, 6)] == pytest.approx([0.5, 1.0, 0.5, 0.0, 0.0])
    linear = heddle.schedules.linear(total=4)
    assert [linear(i) for i in (1, 4, 9)] == pytest.approx([0.75, 0.0, 0.0])
    assert [heddle.schedules.constant(warmup=4)(i) for i in (1, 4, 9)] == [0.25, 1.0, 1.0]
    with pytest.raises(heddle.HeddleError, match="did you mean 'warmup'"):
        heddle.schedules.cosine(warmpu=2, total=4)
    with pytest.raises(heddle.HeddleError, match="longer than total"):
        heddle.schedules.linear(warmup=5, total=4)
