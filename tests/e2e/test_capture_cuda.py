"""Capture for a GPU on a machine without one: what depends on the GPU is refused or chosen by the user, and the rest is what eager does there."""

import re

import families
import heddle
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there to be asked")


def test_refuses_to_guess_the_attention_kernel():
    model, batch = families.llama(2, 16)
    with pytest.raises(heddle.CaptureError, match="sdpa_kernel"):
        heddle.capture(model, batch, device="cuda", precision="bf16")


@pytest.mark.parametrize("backend, operator", [(SDPBackend.FLASH_ATTENTION, "_scaled_dot_product_flash_attention"), (SDPBackend.CUDNN_ATTENTION, "_scaled_dot_product_cudnn_attention")])
def test_the_only_enabled_backend_is_taken(backend, operator):
    model, batch = families.llama(2, 16)
    with sdpa_kernel(backend):
        text = heddle.capture(model, batch, device="cuda", precision="bf16").mlir
    assert text.count(f'"graph.{operator}"(') == text.count(f'"graph.{operator}_backward"(') == 2


def test_dropout_is_the_fused_operator():
    model, batch = families.gpt2_dropout(2, 16)
    with sdpa_kernel(SDPBackend.MATH):
        text = heddle.capture(model, batch, device="cuda", precision="bf16").mlir
    assert '"graph.native_dropout"(' in text and "bernoulli" not in text


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("backend, operator", [(SDPBackend.FLASH_ATTENTION, "flash"), (SDPBackend.EFFICIENT_ATTENTION, "efficient"), (SDPBackend.CUDNN_ATTENTION, "cudnn")])
def test_the_backward_of_dropout_inside_attention_knows_its_draw(backend, operator, checkpointed):
    """A checkpoint repeats the draw; what the backward makes of it is compared with eager on a GPU (test_dropout.py, tests/gpu/check_families.py)."""
    model, batch = families.gpt2_dropout(2, 16)
    if checkpointed:
        model.gradient_checkpointing_enable()
    with sdpa_kernel(backend):
        text = heddle.capture(model, batch, device="cuda", precision="bf16").mlir
    draws = re.findall(rf'"graph._scaled_dot_product_{operator}_attention(_backward|)".*graph.rng_id = (\d+)', text)
    first, second = (number for kind, number in draws[:2])
    again = [("", second)] * checkpointed, [("", first)] * checkpointed
    assert first != second and draws[2:] == [*again[0], ("_backward", second), *again[1], ("_backward", first)]


def test_a_boolean_mask_is_the_number_that_pytorch_gives_cudnn():
    model, batch = families.llama(2, 16)
    batch["attention_mask"][0, :5] = 0
    for backend, hidden in ((SDPBackend.CUDNN_ATTENTION, "-6.550400e+04"), (SDPBackend.MATH, "0xFFF0000000000000")):
        with sdpa_kernel(backend):
            text = heddle.capture(model, batch, device="cuda", precision="bf16").mlir
        assert f"s = {hidden} : f64" in text, backend


def test_check_needs_the_gpu():
    model, batch = families.llama(2, 16)
    with pytest.raises(heddle.HeddleError, match="this machine has none"):
        heddle.check(model, batch, device="cuda")
