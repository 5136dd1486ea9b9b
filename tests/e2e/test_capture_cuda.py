"""Capture for a GPU on a machine without one: what depends on the GPU is refused or chosen by the user, and the rest is what eager does there."""

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


def test_refuses_dropout_inside_a_fused_kernel():
    model, batch = families.gpt2_dropout(2, 16)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), pytest.raises(heddle.CaptureError, match="dropout inside a fused attention kernel"):
        heddle.capture(model, batch, device="cuda", precision="bf16")


def test_check_needs_the_gpu():
    model, batch = families.llama(2, 16)
    with pytest.raises(heddle.HeddleError, match="this machine has none"):
        heddle.check(model, batch, device="cuda")
