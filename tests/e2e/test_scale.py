"""Whole-size shapes captured from the meta device: seconds, not minutes, and no memory for weights. Each runs in a process of its own, so that memory can be read off."""

import json
import subprocess
import sys
import textwrap

import pytest

SHAPES = {
    # Llama-3-8B at its full sequence; capture and print within 1 s each, here together.
    "llama-3-8b": (
        2.0,
        8192,
        "LlamaConfig",
        dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192),
    ),
    # Moonlight-16B-A3B; twice that.
    "moonlight-16b-a3b": (
        4.0,
        4096,
        "DeepseekV3Config",
        dict(
            vocab_size=163840,
            hidden_size=2048,
            intermediate_size=11264,
            moe_intermediate_size=1408,
            num_hidden_layers=27,
            num_attention_heads=16,
            num_key_value_heads=16,
            n_shared_experts=2,
            n_routed_experts=64,
            routed_scaling_factor=2.446,
            kv_lora_rank=512,
            q_lora_rank=None,
            qk_rope_head_dim=64,
            v_head_dim=128,
            qk_nope_head_dim=128,
            n_group=1,
            topk_group=1,
            num_experts_per_tok=6,
            first_k_dense_replace=1,
        ),
    ),
}

PROGRAM = """
import json, resource, sys, time
import torch, transformers as hf
import heddle
from heddle.compiler import compile_program
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
name, sequence, config = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
with torch.device("meta"):
    model = hf.AutoModelForCausalLM.from_config(getattr(hf, name)(**config), dtype=torch.bfloat16).train()
ids = torch.zeros(1, sequence, dtype=torch.long)
batch = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
seconds = []
for _ in range(3):
    begin = time.perf_counter()
    program = heddle.capture(model, batch)
    seconds.append(time.perf_counter() - begin)
memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 2**20
begin = time.perf_counter()
plan = compile_program(program, {"mode": "train", "optimizer": {"kind": "adamw"}})
print(json.dumps({"seconds": min(seconds), "gib": memory, "compile": time.perf_counter() - begin, "ops": program.mlir.count("graph.phase"), "plan": len(plan)}))
"""


@pytest.mark.parametrize("shape", SHAPES)
def test_captured_from_meta(shape):
    limit, sequence, config, sizes = SHAPES[shape]
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM), config, str(sequence), json.dumps(sizes)], capture_output=True, text=True, check=True)
    figures = json.loads(run.stdout.splitlines()[-1])
    print(shape, figures)
    assert figures["seconds"] <= limit, figures
    assert figures["gib"] < 1.0, figures
