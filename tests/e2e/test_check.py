"""heddle.check on every family: loss and all gradients bit for bit, from a plan written to disk and read back, in the run that keeps to the plan.

That the comparison bites: with a broken kernel it fails and names the operator (test_names_the_first_diverging_operator).
"""

import families
import heddle
import pytest
import torch


def _assert_identical(report):
    wrong = {name: difference for name, difference in report.gradients.items() if difference}
    assert report.bit_identical, f"loss {report.loss} against {report.eager_loss}, first divergence {report.first_divergence}, gradients {wrong}"
    counters = report.stats["counters"]
    assert counters["escaped"] == 0 and counters["outside_workspace"] == 0 and counters["unplanned_copies"] == 0, counters
    section = report.stats["sections"]["replay"]
    assert section["scratch_bytes"] <= 1.10 * section["live_lower_bound"], section

@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_small_and_odd_sizes(family, precision):
    model, batch = families.FAMILIES[family](3, 37)
    _assert_identical(heddle.check(model, batch, precision=precision))

@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "deepseek_v3", "gpt2_dropout", "vit", "qwen3_next"])
def test_fp16(family):
    model, batch = families.FAMILIES[family](3, 37)
    _assert_identical(heddle.check(model, batch, precision="fp16"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_hidden_512_sequence_512(family, precision):
    model, batch = families.FAMILIES[family](1, 512, big=True)
    _assert_identical(heddle.check(model, batch, precision=precision))

def test_padding_mask_is_kept_as_a_mask():
    model, batch = families.llama(2, 16)
    batch["attention_mask"][0, :5] = 0
    batch["labels"][0, :5] = -100
    _assert_identical(heddle.check(model, batch))

def test_names_the_first_diverging_operator(monkeypatch):
    """Eager's silu is replaced by one that is off by one bit; the report must name silu and the module it stands in."""
    model, batch = families.llama(1, 8)
    silu = torch.nn.functional.silu
    from heddle import checking

    eager_step = checking.eager_step

    def broken(*args):
        library = torch.library.Library("aten", "IMPL")
        library.impl("silu", lambda x: torch.ops.aten.mul(x, torch.ops.aten.sigmoid(x)) * (1 + 2**-20), "CPU", allow_override=True)
        try:
            return eager_step(*args)
        finally:
            library._destroy()

    monkeypatch.setattr(checking, "eager_step", broken)
    report = heddle.check(model, batch)
    assert not report.bit_identical
    operator, place = report.first_divergence
    assert "silu" in operator and "model.layers.0.mlp" in place, report.first_divergence
    assert torch.nn.functional.silu is silu
