"""Eager training on a GPU in one process with Heddle: the same bits before `import heddle`, after it, across a capture that comes between forward and backward, and after training a compiled step.

Run: PYTHONPATH=api/python HEDDLE_LIB_DIR=<folder of the shared libraries> python3 -m pytest tests/gpu/test_eager_beside.py

It bites: a device slot that PyTorch counts as an accelerator makes every CUDA backward fail.
"""

import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

SCRIPT = """
import torch, transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

config = transformers.LlamaConfig(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
ids = torch.randint(3, 320, (2, 32), generator=torch.Generator().manual_seed(1)).cuda()
batch = {"input_ids": ids, "labels": ids}

def train(between=lambda: None):
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).cuda().bfloat16().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    losses = []
    for _ in range(3):
        with sdpa_kernel(SDPBackend.MATH):
            loss = model(**batch).loss + torch.nn.functional.dropout(torch.ones(64, device="cuda"), 0.5).mean() * 1e-3
        between()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, [parameter.detach().clone() for parameter in model.parameters()]

def same(found):
    assert found[0] == first[0], (found[0], first[0])
    assert all(torch.equal(a, b) for a, b in zip(found[1], first[1]))
    assert torch.accelerator.current_accelerator().type == "cuda"

first = train()
import heddle
same(train())
other = transformers.LlamaForCausalLM(config).train()

def record():
    with sdpa_kernel(SDPBackend.MATH):
        heddle.capture(other, batch, device="cuda", precision="bf16")

same(train(record))
with sdpa_kernel(SDPBackend.MATH):
    assert heddle.check(other, batch, device="cuda", precision="bf16").bit_identical
    step = heddle.compile(other, batch, optimizer=heddle.AdamW(), plan=heddle.Plan(precision="bf16"), device="cuda")
same(train(lambda: step(batch)))
print("the same bits")
"""


def test_the_same_bits_beside_heddle():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert run.returncode == 0 and "the same bits" in run.stdout, run.stderr[-3000:]
