"""State that leaves a step and comes back: awkward parameters through checkpoints under other worlds and stages, adapters on a frozen model, and what Hugging Face loads.

With a part's place in its tensor forgotten (`PartOf` in runtime/torch/session.cc) every checkpoint of the awkward ones fails.
"""

import pytest
import torch
import transformers
from families import FAMILIES
from reference import Fp64Inside, joined, micro_batch, one_thread  # noqa: F401
from test_awkward_parameters import Placed, rows
from test_zero import Odd, micros_of, off

import heddle

CLIP = 0.05


def optimizer_of(kind):
    adamw = heddle.AdamW(lr=1e-3)
    return adamw if kind == "adamw" else heddle.Muon(lr=2e-2, adamw=adamw)


def bits(step):
    moments = step.optimizer_state_dict()["state"]
    return {**step.state_dict(), **{f"{kind}/{name}": tensor for name, kinds in moments.items() for kind, tensor in kinds.items()}}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].shape == b[name].shape and a[name].dtype == b[name].dtype for name in a)


MODELS = {"odd": Odd, **{place: lambda place=place: Placed(place) for place in ("leading", "middle", "trailing")}}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("model, saved, loaded", [("odd", (3, 8), (1, 2)), ("odd", (1, 2), (3, 3)), ("leading", (2, 3), (3, 8)), ("middle", (3, 2), (0, 1)), ("trailing", (0, 1), (2, 8)), ("trailing", (3, 3), (0, 2))])
def test_awkward_parameters_through_checkpoints(model, saved, loaded, kind, tmp_path):
    """Without elements, scalars, 13 and 4097 elements, frozen, tied, unused, stacks: the same bits in another world, and in a third one that reads what the second writes; then the
    same training."""
    compiled = lambda zero, ranks: heddle.compile(MODELS[model]().double(), rows(0, 2), optimizer=optimizer_of(kind), plan=heddle.Plan(zero=zero, dp=ranks, clip=CLIP, precision="fp64"))  # noqa: E731
    first, second, third = compiled(*saved), compiled(*loaded), compiled(*saved)
    for number in range(2):
        first(rows(number, 48))
    first.save_checkpoint(tmp_path / "first", {"next": 2})
    assert second.load_checkpoint(tmp_path / "first") == {"next": 2}
    assert same(bits(first), bits(second)) and second.global_step == 2
    second.save_checkpoint(tmp_path / "second")
    third.load_checkpoint(tmp_path / "second")
    assert same(bits(first), bits(third))
    for number in range(2, 4):
        a, b, c = (step(rows(number, 48)) for step in (first, second, third))
        assert a == c and a.loss == pytest.approx(b.loss, rel=1e-9)
    a, b = bits(first), bits(second)
    assert same(a, bits(third)) and {name for name in a if off(b[name], a[name]) > 1e-9} == set()


@pytest.mark.parametrize(
    "family, zero, ranks, kind", [("llama", 0, 2, "muon"), ("llama_tied", 1, 3, "adamw"), ("llama_tied", 3, 3, "muon"), ("deepseek_v3", 2, 2, "adamw"), ("deepseek_v3", 3, 4, "muon")]
)
def test_hugging_face_loads_what_ranks_save(family, zero, ranks, kind, tmp_path):
    """save_pretrained and every checkpoint are folders for from_pretrained, in the model's own dtype, and what it loads computes what `evaluate` does."""
    model, _ = FAMILIES[family](1, 8)
    model = model.bfloat16()
    batch = joined(micros_of(0, 2 * ranks))
    step = heddle.compile(model, {name: tensor[:1] for name, tensor in batch.items()}, optimizer=optimizer_of(kind), plan=heddle.Plan(zero=zero, dp=ranks, clip=1.0, loss_average="batches"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(batch)
    masters = step.state_dict()
    assert all(masters[name].dtype == torch.float32 for name, p in model.named_parameters()) and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    step.save_pretrained(tmp_path / "saved")
    step.save_checkpoint(tmp_path / "run")
    step.sync(model)
    for folder in (tmp_path / "saved", tmp_path / "run" / "latest"):
        loaded, report = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
        assert loaded.config.tie_word_embeddings == model.config.tie_word_embeddings
        for name, p in loaded.named_parameters():
            assert p.dtype == torch.bfloat16 and torch.equal(p, masters[name].bfloat16()) and torch.equal(p, model.get_parameter(name)), name
        loaded.eval()
        rows = [micro_batch(50 + i, 8, 1, 8) for i in range(ranks)]
        with torch.no_grad():
            losses = [float(loaded(**row, use_cache=False).loss) for row in rows]
        assert step.evaluate(joined(rows)).loss == pytest.approx(sum(losses) / ranks, rel=1e-2)


class Adapter(torch.nn.Module):
    """A frozen projection and a trained correction of low rank (Hu et al., 2021)."""

    def __init__(self, base, rank=3, scale=2.0):
        super().__init__()
        self.base, self.scale = base, scale
        self.down = torch.nn.Parameter(torch.randn(rank, base.in_features) / 8)
        self.up = torch.nn.Parameter(torch.randn(base.out_features, rank) / 8)

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.down.T) @ self.up.T


def adapted():
    model, _ = FAMILIES["llama"](1, 8)
    model.requires_grad_(False)
    torch.manual_seed(7)
    for layer in model.model.layers:
        for name in ("q_proj", "v_proj"):
            setattr(layer.self_attn, name, Adapter(getattr(layer.self_attn, name)))
    return model


@pytest.mark.parametrize("zero, ranks", [(0, 2), (1, 3), (2, 4), (3, 2), (3, 8)])
def test_adapters_of_a_frozen_model(zero, ranks, tmp_path):
    """LoRA on a Llama in float64: eager PyTorch's losses, norms and adapters; the frozen weights keep their bits and have no state but, in stage 3, their shards."""
    model, reference = adapted(), adapted().double()
    example = {name: tensor[:1] for name, tensor in joined(micros_of(0, 1)).items()}
    step = heddle.compile(model, example, optimizer=heddle.AdamW(lr=1e-3), plan=heddle.Plan(zero=zero, dp=ranks, clip=CLIP, precision="fp64"))
    trained = {name: p for name, p in reference.named_parameters() if p.requires_grad}
    assert set(step.optimizer_state_dict()["state"]) == set(trained) and len(trained) == 8
    adamw = torch.optim.AdamW(trained.values(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    for number in range(4):
        batch = joined(micros_of(number, 2 * ranks))
        out = step(batch)
        reference.zero_grad()
        with Fp64Inside():
            loss = reference(**batch, use_cache=False).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), CLIP, foreach=False)
        assert norm > CLIP
        adamw.step()
        assert out.loss == pytest.approx(loss.item(), rel=1e-9) and out.grad_norm == pytest.approx(norm.item(), rel=1e-9)
    state = step.state_dict()
    assert {name for name, p in trained.items() if off(state[name], p) > 1e-9} == set()
    assert all(torch.equal(state[name], p) for name, p in reference.named_parameters() if name not in trained)
    memory = step.explain()["memory"]
    assert memory["state: exp_avg"] < 0.05 * sum(p.numel() * 8 for p in reference.parameters())
    if zero == 3:
        assert memory["state: parameter"] < 1.2 / ranks * sum(p.numel() * 8 for p in reference.parameters())
