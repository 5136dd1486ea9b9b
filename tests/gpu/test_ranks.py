"""Ranks on GPUs, one process each, over NCCL: losses and weights against one rank of eager PyTorch, CUDA graphs on and off bit for bit, checkpoints. Needs GPUs.

Run: torchrun --nproc-per-node N tests/gpu/test_ranks.py, with PYTHONPATH=api/python and HEDDLE_LIB_DIR=<folder of the shared libraries>. With N=1 a plan
has no collectives, and what is tested is a launcher's only process; the last line is "passed" from rank 0, and the exit code says the same.

It bites: with the launches of graphs not counted (`BeginLaunch`), a graph's collectives missing from the flight record, or a rank's share of the batch taken twice, an assertion fails.
"""

import copy
import os
import sys
import tempfile

import heddle
import torch
import transformers

RANK, RANKS = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
MICROS, ROWS, LENGTH, STEPS, CLIP = 2, 2, 64, 7, 0.5


def model_of():
    config = transformers.LlamaConfig(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, use_cache=False)
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).cuda().train()


def batch(number, rows):
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(3, 512, (rows, LENGTH), generator=generator)
    labels = ids.clone()
    for row in labels:
        row[: int(torch.randint(0, LENGTH // 2, (), generator=generator))] = -100
    return {"input_ids": ids, "labels": labels}


def own(number):
    return {name: tensor.chunk(RANKS)[RANK] for name, tensor in batch(number, ROWS * MICROS * RANKS).items()}


def optimizer_of(name):
    adamw = heddle.AdamW(lr=1e-3)
    return adamw if name == "adamw" else heddle.Muon(lr=1e-2, ns="standard", adamw=adamw)


def compiled(zero, optimizer, graph, precision="fp32"):
    example = {name: tensor[:ROWS].cuda() for name, tensor in batch(0, ROWS).items()}
    plan = heddle.Plan(zero=zero, clip=CLIP, precision=precision, cuda_graph=graph)
    return heddle.compile(model_of(), example, optimizer=optimizer_of(optimizer), schedule=heddle.schedules.cosine(total=20, warmup=3), plan=plan, device="cuda")


def eager_losses():
    """AdamW in stage 0's meaning: all ranks' micro-batches as one batch."""
    model, schedule = model_of(), heddle.schedules.cosine(total=20, warmup=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    for number in range(STEPS):
        whole = {name: tensor.cuda() for name, tensor in batch(number, ROWS * MICROS * RANKS).items()}
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * schedule(number + 1)
        optimizer.zero_grad()
        loss = model(**whole).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def trajectory(step):
    outs = [step({name: tensor.cuda() for name, tensor in own(number).items()}) for number in range(STEPS)]
    return [(out.loss, out.grad_norm) for out in outs], copy.deepcopy(step.state_dict())


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def main():
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.backends.cuda.matmul.allow_tf32 = False
    expected, weights = eager_losses()
    first = {}
    for zero in (0, 1, 2, 3):
        for optimizer in ("adamw", "muon"):
            runs = {}
            for graph in (False, "auto"):
                step = compiled(zero, optimizer, graph)
                runs[graph] = trajectory(step)
                stats = step._executable.stats()
                calls = {kind: entry["calls"] for kind, entry in stats["collectives"].items()}
                if graph == "auto":
                    state = {name: section["cuda_graph"].split(":")[0].split()[0] for name, section in stats["sections"].items() if name != "prologue"}
                    assert state["micro_next"] == state["boundary"] == "yes", step.explain()["cuda_graph"]
                    assert calls == seen, (calls, seen)
                seen = calls
            assert runs[False][0] == runs["auto"][0] and same(runs[False][1], runs["auto"][1]), (zero, optimizer, runs[False][0], runs["auto"][0])
            losses = [loss for loss, _ in runs[False][0]]
            first.setdefault(optimizer, runs[False])
            assert max(abs(a - b) / a for a, b in zip(losses, [loss for loss, _ in first[optimizer][0]])) < 2e-5, (zero, optimizer, losses)
            if optimizer == "adamw":
                assert max(abs(a - b) / b for a, b in zip(losses, expected)) < 5e-5, (zero, losses, expected)
                off = max(float((runs[False][1][name] - weight).abs().max()) for name, weight in weights.items())
                assert off < 2e-4, (zero, off)
            if RANK == 0:
                print(f"zero={zero} {optimizer}: losses {losses[0]:.6f} ... {losses[-1]:.6f}, graph on and off equal, {sum(calls.values())} collectives {calls}", flush=True)
    step = compiled(3, "adamw", "auto", "bf16")
    low, _ = trajectory(step)
    assert max(abs(a - b) / b for (a, _), b in zip(low, expected)) < 0.02, (low, expected)
    with tempfile.TemporaryDirectory() as folder:
        folder = os.environ.get("HEDDLE_TEST_FOLDER", folder)
        step.save_checkpoint(folder, {"at": STEPS})
        again = compiled(1, "adamw", "auto", "bf16")
        assert again.load_checkpoint(folder) == {"at": STEPS} and same(again.state_dict(), step.state_dict())
    evaluated = step.evaluate({name: tensor.cuda() for name, tensor in own(99).items()})
    assert abs(evaluated.loss - low[-1][0]) < 1.0
    if RANK == 0:
        print("passed", flush=True)


if __name__ == "__main__":
    sys.exit(main())
