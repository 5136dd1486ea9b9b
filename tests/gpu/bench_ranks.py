"""Throughput, memory and communication of one training step on several GPUs, one process each; a line of JSON from rank 0.

Run: torchrun --nproc-per-node N tests/gpu/bench_ranks.py --size 1b --shape 4x4096 --zero 2 [--optimizer muon] [--steps 20] [--profile] [--losses 50] [--eager]
with PYTHONPATH=api/python and HEDDLE_LIB_DIR=<folder of the shared libraries>, or with the wheel installed. `--size tiny --device cpu` tries the script itself.

Random weights are drawn on the device, random tokens differ by rank; bf16 compute, fp32 masters and reduction, gradient norm clipped at 1. `--eager` is the other side of `--losses`: the same weights and data on one process in eager PyTorch,
all ranks' batches as micro-batches of one step. `exposed_ms` is read off one profiled step: time in which NCCL's kernels run and no other kernel does. `first_step_s` counts from the start of this process, and
`starting_s` says what it went into: imports, the model on the device, heddle.compile, the first step.
"""

import argparse
import json
import os
import statistics
import time

PROCESS_START = time.time()

import heddle  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

IMPORTED = time.time()
SIZES = {
    "8b": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, vocab_size=128256),
    "1b": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, head_dim=64, vocab_size=128256, tie_word_embeddings=True),
    "0.2b": dict(hidden_size=1024, intermediate_size=2816, num_hidden_layers=8, num_attention_heads=16, num_key_value_heads=8, vocab_size=32000),
    "tiny": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=256),
}
LR, BETAS, DECAY, CLIP = 1e-4, (0.9, 0.95), 0.1, 1.0


def model_of(size, device):
    config = transformers.LlamaConfig(**SIZES[size], max_position_embeddings=8192, rope_theta=500000.0, use_cache=False)
    torch.manual_seed(0)
    with torch.device(device):
        return transformers.LlamaForCausalLM(config).train()


def batch_of(size, shape, rank, step, device):
    ids = torch.randint(3, SIZES[size]["vocab_size"], shape, device=device, generator=torch.Generator(device).manual_seed(1000 * step + rank))
    return {"input_ids": ids, "labels": ids}


def optimizer_of(name, state_dtype):
    adamw = heddle.AdamW(lr=LR, betas=BETAS, weight_decay=DECAY, state_dtype=state_dtype)
    return heddle.Muon(lr=2e-3, weight_decay=DECAY, state_dtype=state_dtype, adamw=adamw) if name == "muon" else adamw


def union(intervals):
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def profiled(step, batch):
    """Milliseconds of one step in which only NCCL's kernels run, in which any of them does, and by kernel name."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step(batch)
        torch.cuda.synchronize()
    kernels = [(event.name, event.time_range.start / 1e3, event.time_range.end / 1e3) for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    wire = [(start, end) for name, start, end in kernels if "nccl" in name.lower()]
    work = [(start, end) for name, start, end in kernels if "nccl" not in name.lower()]
    by_name = {}
    for name, start, end in kernels:
        by_name[name[:80]] = by_name.get(name[:80], 0.0) + end - start
    top = dict(sorted(by_name.items(), key=lambda item: -item[1])[:25])
    return {"exposed_ms": union(wire + work) - union(work), "nccl_ms": union(wire), "busy_ms": union(wire + work), "kernels_ms": {name: round(ms, 3) for name, ms in top.items()}}


def eager_losses(args, world, shape):
    """Losses of `world` ranks' batches as micro-batches of one process, bf16 weights from fp32 masters."""
    model = model_of(args.size, args.device)
    parameters = list(model.parameters())
    masters = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    for parameter in parameters:
        parameter.data = parameter.data.bfloat16()
    optimizer = torch.optim.AdamW(masters, lr=LR, betas=BETAS, eps=1e-8, weight_decay=DECAY, fused=args.device == "cuda")
    losses = []
    for number in range(args.losses):
        total = 0.0
        for master in masters:
            master.grad = torch.zeros_like(master)
        for rank in range(world):
            loss = model(**batch_of(args.size, shape, rank, number, args.device)).loss / world
            loss.backward()
            total += float(loss.detach())
            for parameter, master in zip(parameters, masters):
                master.grad += parameter.grad
                parameter.grad = None
        torch.nn.utils.clip_grad_norm_(masters, CLIP)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(parameters, masters)
        losses.append(total)
    return losses


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--shape", default="1x2048", help="batch x sequence of a rank")
    parser.add_argument("--zero", type=int, default=2)
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--state-dtype", default="fp32", help="of the moments and the momentum")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--losses", type=int, default=0, help="train this many steps on fresh data and print every loss instead of timing")
    parser.add_argument("--eager", action="store_true", help="with --losses: eager PyTorch in one process, for --world ranks' data")
    parser.add_argument("--world", type=int, default=2, help="of --eager")
    parser.add_argument("--no-graph", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    shape = tuple(int(side) for side in args.shape.split("x"))
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = args.device == "cuda"
    if args.eager:
        print(json.dumps({"side": "eager", "losses": eager_losses(args, args.world, shape)}), flush=True)
        return
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    free_before = torch.cuda.mem_get_info()[0] if cuda else 0

    import_s = IMPORTED - PROCESS_START
    model_start = time.time()
    model = model_of(args.size, args.device)
    if cuda:
        torch.cuda.synchronize()
    start = time.time()
    model_s = start - model_start
    plan = heddle.Plan(zero=args.zero, dp=world, clip=CLIP, precision="bf16", cuda_graph=False if args.no_graph or not cuda else "auto")
    step = heddle.compile(model, batch_of(args.size, shape, rank, 0, args.device), optimizer=optimizer_of(args.optimizer, args.state_dtype), plan=plan, device=args.device)
    compile_s = time.time() - start
    parameters = sum(p.numel() for p in model.parameters())
    del model
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if args.losses:
        losses = [float(step(batch_of(args.size, shape, rank, number, args.device)).loss) for number in range(args.losses)]
        if rank == 0:
            print(json.dumps({"side": "heddle", "world": world, "losses": losses}), flush=True)
        return

    batch = batch_of(args.size, shape, rank, 0, args.device)
    synchronize = torch.cuda.synchronize if cuda else lambda: None
    start = time.time()
    first_loss = float(step(batch).loss)
    synchronize()
    first_s, first_step_s = time.time() - start, time.time() - PROCESS_START
    for _ in range(4):
        step(batch)
    times, enqueues = [], []
    for _ in range(args.steps):
        synchronize()
        start = time.perf_counter()
        out = step(batch)
        synchronize()
        times.append(1e3 * (time.perf_counter() - start))
        enqueues.append(out.enqueue_ms)
    used = (free_before - torch.cuda.mem_get_info()[0]) / 2**30 if cuda else 0.0
    # Read before the profiler, which takes memory of its own.
    profile = profiled(step, batch) if args.profile and cuda else {}
    times.sort()
    median = statistics.median(times)
    if rank == 0:
        enqueue = [ms for ms in enqueues if ms is not None]
        print(json.dumps({
            "side": "heddle", "world": world, "size": args.size, "parameters": parameters, "shape": args.shape, "zero": args.zero, "optimizer": args.optimizer, "graph": not args.no_graph,
            "median_ms": round(median, 2), "p10_ms": round(times[len(times) // 10], 2), "p90_ms": round(times[-1 - len(times) // 10], 2), "tokens_per_s_per_gpu": round(shape[0] * shape[1] / median * 1e3),
            "host_enqueue_ms": round(statistics.median(enqueue), 2) if enqueue else None, "device_used_gib": round(used, 2), "first_step_s": round(first_step_s, 2),
            "starting_s": {"import": round(import_s, 2), "model": round(model_s, 2), "compile": round(compile_s, 2), "step": round(first_s, 2)},
            "first_loss": first_loss, "last_loss": float(out.loss), **profile}), flush=True)


if __name__ == "__main__":
    main()
