"""After every graph pass a real program still gives eager's bits, and says what the pass promises: counts on captured models."""

import re
import subprocess

import families
import heddle
import pytest
import torch
from heddle._native import library_dir
from heddle.checking import eager_step, load_state
from heddle.compiler import Executable, compile_program, run_passes

PASSES = ["graph-functionalize", "graph-canonicalize-views", "graph-cse", "graph-dce", "graph-raise-composites", "graph-verify-functional", "graph-inline-composites"]


def pipeline(count):
    return "builtin.module(graph.step(" + ",".join(PASSES[:count]) + "))"


def count(text, op):
    return text.count(f'"graph.{op}"')


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "deepseek_v3", "gpt2_dropout", "vit"])
def test_bits_after_every_pass(family):
    model, batch = families.FAMILIES[family](2, 16)
    program = heddle.capture(model, batch)
    state = torch.get_rng_state()
    _, loss, gradients = eager_step(model, batch, None, "fp32")
    for passes in range(1, len(PASSES) + 1):
        after = heddle.Program(run_passes(program, pipeline(passes)), program.constants)
        executable = Executable(compile_program(after, {"mode": "replay"}))
        load_state(executable, model)
        torch.set_rng_state(state)
        results = executable.run("replay", batch)
        assert torch.equal(results["loss"], loss), PASSES[passes - 1]
        for name, gradient in gradients.items():
            assert torch.equal(results[f"gradient:{name}"], gradient), (PASSES[passes - 1], name)


@pytest.mark.parametrize("family", ["llama", "mixtral", "deepseek_v3", "llava", "gpt2"])
def test_nothing_mutates_after_functionalize(family):
    model, batch = families.FAMILIES[family](2, 20)
    program = heddle.capture(model, batch)
    text = run_passes(program, pipeline(1))
    assert not [line for line in text.splitlines() if "mutates" in line and "dps" not in line]
    # That the assertion can fail: the captured MoE programs do mutate.
    assert ("mutates" in program.mlir) == (family in ("mixtral", "deepseek_v3", "llava"))


@pytest.mark.parametrize("layers", [1, 3])
def test_llama_composites(layers):
    config = families._dense(families.hf.LlamaConfig, False, num_hidden_layers=layers)
    model, batch = families._causal(config, 2, 16)
    program = heddle.capture(model, batch)
    text = run_passes(program, pipeline(5))
    counts = {kind: text.count(f'kind = "{kind}"') for kind in ("rms_norm", "rms_norm_backward", "rotary", "rotary_backward", "swiglu", "swiglu_backward", "cross_entropy", "cross_entropy_backward")}
    assert counts["rms_norm"] == counts["rms_norm_backward"] == 2 * layers + 1, counts
    assert counts["swiglu"] == counts["swiglu_backward"] == layers, counts
    assert counts["cross_entropy"] == counts["cross_entropy_backward"] == 1, counts


@pytest.mark.parametrize("family", families.FAMILIES)
def test_round_trip_byte_for_byte(family):
    model, batch = families.FAMILIES[family](2, 20)
    text = heddle.capture(model, batch, sources=family == "llama").mlir
    again = run_passes(heddle.Program(text, {}), "builtin.module()")
    assert again.rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize("family", families.FAMILIES)
def test_share_of_ods_operators(family, tmp_path):
    """Once a program is functional, heddle-inspect counts at least 95 % of its operators and all of its FLOPs as ODS operators, and lists the rest."""
    model, batch = families.FAMILIES[family](2, 20)
    path = tmp_path / "step.mlir"
    path.write_text(run_passes(heddle.capture(model, batch), pipeline(4)))
    report = subprocess.run([library_dir() / "heddle-inspect", path], capture_output=True, text=True, check=True).stdout
    structured, total, share, flops = re.search(r"ODS ops: (\d+) of (\d+) \(([\d.]+) %\), ([\d.]+) % of FLOPs", report).groups()
    others = re.search(r"others: (.*)", report)
    print(f"{family}: {structured} of {total} operators ({share} %), {flops} % of FLOPs; others: {others[1] if others else 'none'}")
    assert float(share) >= 95 and float(flops) == 100
    text = path.read_text()
    assert int(total) - int(structured) == count(text, "call") == sum(int(n) for n in re.findall(r" x(\d+)", others[1] if others else ""))
