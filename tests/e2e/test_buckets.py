"""Flat buckets: how parameters are grouped changes no bit, what collectives carry beside parameters is printed, and Muon puts no more on the wire than AdamW does."""

import json
import os
import re
import subprocess

import pytest
import torch
import transformers
from reference import one_thread  # noqa: F401

import heddle
from heddle._native import library_dir

FULL = os.environ.get("HEDDLE_TEST_FULL") == "1"
SIZES = [(5, 13), (13, 13), (13, 7), (7, 3)]


class Net(torch.nn.Module):
    """The same layers under names of their own: what is numbered is a layer, and a layer's parameters of one kind share a bucket."""

    def __init__(self, names):
        super().__init__()
        torch.manual_seed(0)
        self.names = names
        for name, size in zip(names, SIZES):
            parent, _, child = name.rpartition(".")
            if parent and not hasattr(self, parent):
                self.add_module(parent, torch.nn.Module())
            (getattr(self, parent) if parent else self).add_module(child, torch.nn.Linear(*size))

    def forward(self, x, y):
        for name in self.names:
            x = torch.tanh(self.get_submodule(name)(x))
        return (x - y).square().mean()


# Every layer by itself; two and two; all in one.
GROUPINGS = [["a", "b", "c", "d"], ["p.a", "p.b", "q.a", "q.b"], ["all.a", "all.b", "all.c", "all.d"]]


def rows(seed, count, dtype):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, n, generator=generator).to(dtype) for n in (5, 3))


def optimizer_of(kind):
    adamw = heddle.AdamW(lr=1e-3)
    return adamw if kind == "adamw" else heddle.Muon(lr=2e-2, adamw=adamw)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("zero, ranks", [(0, 3), (1, 2), (2, 3), (3, 4)])
def test_bucketing_changes_no_bit(zero, ranks, precision, kind):
    """Sums over ranks are taken in rank order and norms parameter by parameter, so buckets decide where bytes lie and nothing else. A norm is summed in f64, where its last bit depends on
    where a parameter is cut: in fp64 itself that is seen, and nothing is clipped here."""
    found, counts = [], []
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}[precision]
    for names in GROUPINGS:
        step = heddle.compile(Net(names), rows(0, 2, dtype), optimizer=optimizer_of(kind), plan=heddle.Plan(zero=zero, dp=ranks, precision=precision, clip=None if precision == "fp64" else 0.05))
        outputs = [step(rows(number, 4 * ranks, dtype)) for number in range(4)]
        state, moments = step.state_dict(), step.optimizer_state_dict()["state"]
        flat = [tensor for name, size in zip(names, SIZES) for kind in ("weight", "bias") for tensor in (state[f"{name}.{kind}"], *moments[f"{name}.{kind}"].values())]
        found.append(([(out.loss, pytest.approx(out.grad_norm, rel=1e-15) if precision == "fp64" else out.grad_norm) for out in outputs], flat))
        buckets = step.explain()["buckets"]
        assert buckets["elements"] - buckets["padding"] == sum(p.numel() for p in Net(names).parameters()) and buckets["padding"] > 0
        counts.append(buckets["count"])
    assert len(set(counts)) == 3, counts
    for numbers, tensors in found[1:]:
        assert numbers == found[0][0]
        assert len(tensors) == len(found[0][1]) and all(map(torch.equal, tensors, found[0][1]))


SHAPES = {
    "llama": (transformers.LlamaConfig, {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 3, "num_attention_heads": 32, "num_key_value_heads": 4}),
    # Experts' stacks of [64, 2816, 2048] and [64, 2048, 1408], low-rank projections and a dense first layer.
    "moonlight": (transformers.DeepseekV3Config, {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 11264, "moe_intermediate_size": 1408, "num_hidden_layers": 3, "num_attention_heads": 16,
                                                 "num_key_value_heads": 16, "n_shared_experts": 2, "n_routed_experts": 64, "kv_lora_rank": 512, "q_lora_rank": None, "qk_rope_head_dim": 64,
                                                 "v_head_dim": 128, "qk_nope_head_dim": 128, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 6, "first_k_dense_replace": 1}),
}  # fmt: skip
MUON = {"params": ["*"], "roles": ["matrix", "stack"], "muon": {}}


@pytest.fixture(scope="module", params=SHAPES)
def captured(request, tmp_path_factory):
    """The program of a model of real widths, which lies on meta, and the elements of its parameters."""
    kind, sizes = SHAPES[request.param]
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(kind(**sizes), dtype=torch.bfloat16).train()
    path = tmp_path_factory.mktemp(request.param) / "step.mlir"
    ids = torch.zeros(1, 64, dtype=torch.long)
    heddle.capture(model, {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}).save(path)
    return path, sum(p.numel() for p in model.parameters())


def compiled(path, zero, ranks, muon, stop):
    optimizer = json.dumps({"skip_nonfinite": True, "groups": [MUON] * muon + [{"params": ["*"]}]})
    output = ["-o", path.with_name("step.plan")] if stop == "plan" else ["--mlir-print-op-generic"]
    options = f"zero={zero} mesh=dp:{ranks} sidecar={path.with_suffix('.safetensors')} optimizer={optimizer}" + (" stop-after=dist" if stop == "dist" else "")
    run = subprocess.run([library_dir() / "heddle-opt", path, f"--train-pipeline={options}", *map(str, output)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-500:]
    return run.stdout


def wire(text, ranks):
    """Bytes that reach all ranks together in an update of one micro-batch: of what a collective carries, ranks - 1 times the whole for a gather or a scatter, both for a sum on all."""
    total = 0
    for name, given, element, taken in re.findall(r'"dist\.(all_reduce|reduce_scatter|all_gather)".* : \(tensor<(\d+)x(bf16|f32)[^>]*>\) -> tensor<(\d+)x', text):
        total += (2 if name == "all_reduce" else 1) * (ranks - 1) * max(int(given), int(taken)) * {"bf16": 2, "f32": 4}[element]
    return total


PLACES = [(0, 8), (1, 3), (2, 4), (3, 8), (3, 64)]


@pytest.mark.parametrize("zero, ranks", PLACES + [(0, 2), (1, 2), (1, 64), (2, 8), (3, 2)] * FULL)
def test_muon_moves_no_more_than_adamw(captured, zero, ranks):
    """At each stage Muon's bytes are AdamW's plus padding, of which heddle-inspect prints how much there is; at these widths it is next to none, a tenth is allowed. Gradients that all
    ranks would have whole, as where an owner cannot be told, are too many."""
    path, elements = captured
    texts = [compiled(path, zero, ranks, muon, "dist") for muon in (0, 1)]
    adamw, muon = (wire(text, ranks) for text in texts)
    compiled(path, zero, ranks, 1, "plan")
    shown = subprocess.run([library_dir() / "heddle-inspect", path.with_name("step.plan")], capture_output=True, text=True, check=True).stdout
    padding = float(re.search(r"Buckets: \d+ of .* elements in all, .* of them padding \((.*) %\)", shown)[1]) / 100
    assert padding <= 0.1
    # A rank has nothing of what it sends itself.
    assert 2 * (ranks - 1) * elements < muon <= adamw * (1 + padding)
    assert zero == 0 or wire(texts[1].replace("dist.reduce_scatter", "dist.all_reduce"), ranks) > 1.3 * adamw
