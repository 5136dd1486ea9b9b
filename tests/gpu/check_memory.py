"""What a training step takes of a GPU beside what its plan says, each step in a process of its own; two lines of JSON a case, predicted and measured by category.

Run: PYTHONPATH=api/python HEDDLE_LIB_DIR=<folder of the shared libraries> python3 tests/gpu/check_memory.py [--cases 1b:1x2048,1b:4x4096,1b:1x2048:muon] [--device cpu --cases tiny:2x16]

Measured is what the driver (cudaMemGetInfo) counts more than before the process began: nothing else may use the GPU meanwhile. Predicted are the plan's arenas, the workspaces that it reserves, and what the first process, which
compiles nothing, takes for the CUDA context, for the modules of the libraries it calls, and for cuBLAS. Fails if a prediction is more than 3 % off (tiny cases, in which the context is nearly all, are only printed), if a process
fails, or if one takes longer than --seconds. `--device cpu` tries the script: there is nothing to measure.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import torch

ALLOWED = 0.03
MIB = 2**20


class Usage:
    """Bytes by what brought them, of this process: the driver's count less what it was when it began, less PyTorch's pool, which is counted by itself."""

    def __init__(self, before, device):
        self.before, self.device, self.parts, self.last = before, device, {}, 0

    def total(self):
        if self.device != "cuda":
            return 0
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        return total - free - self.before

    def pool(self):
        return torch.cuda.memory_reserved() if self.device == "cuda" else 0

    def note(self, what):
        now = self.total() - self.pool()
        self.parts[what], self.last = now - self.last, now


def overheads(usage):
    """What a process takes that compiles nothing: the context, then the modules of the libraries that a step calls, as each is first called."""
    usage.note("context")
    if usage.device != "cuda":
        return {"pool": 0}
    a = torch.zeros(256, 256, device="cuda", dtype=torch.bfloat16)
    a.add_(1).float().sum()
    usage.note("modules: pointwise and reductions")
    a @ a
    usage.note("cuBLAS")
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        heads = torch.zeros(1, 4, 64, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True).sum().backward()
    usage.note("modules: attention")
    weight = torch.zeros(128, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    torch.nn.functional.embedding(torch.zeros(16, dtype=torch.long, device="cuda"), weight).sum().backward()
    usage.note("modules: embedding")
    del a, heads, weight
    usage.total()
    return {"pool": usage.pool()}  # cuBLAS's workspace, which PyTorch holds


def trained(usage, case):
    """Trains four steps, with which a section has become a graph; what the plan reserves."""
    import bench_ranks
    import heddle
    from torch.nn.attention import SDPBackend, sdpa_kernel

    size, shape, *optimizer = case.split(":")
    shape = tuple(int(side) for side in shape.split("x"))
    usage.note("context")
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH] if usage.device == "cuda" else SDPBackend.MATH):
        model = bench_ranks.model_of(size, usage.device)
        batch = bench_ranks.batch_of(size, shape, 0, 0, usage.device)
        usage.note("modules: the model's weights")
        step = heddle.compile(model, batch, optimizer=bench_ranks.optimizer_of(*optimizer or ["adamw"], state_dtype=None), plan=heddle.Plan(clip=1.0, precision="bf16"), device=usage.device)
        del model
        usage.note("load")
        for number in range(4):
            step(batch)
            usage.note(f"step {number + 1}")
    stats = step._executable.stats()
    planned = {entry: size for entry, size in step.explain()["memory"].items() if size}
    planned["alignment of state"] = stats["state_bytes"] - sum(size for entry, size in planned.items() if entry.startswith("state: "))
    planned["workspace of products"] = stats["vendor_workspace_bytes"]
    planned["workspace of operators"] = stats.get("workspace_bytes", stats["workspace_high_water"])
    return {"planned": planned, "workspace_high_water": stats["workspace_high_water"], "pool": usage.pool(), "graphs": step.explain()["cuda_graph"]}


def child(case, before, device):
    started = time.time()
    usage = Usage(before, device)
    if device == "cuda":
        torch.cuda.init()
        torch.cuda.synchronize()
    found = overheads(usage) if case == "overheads" else trained(usage, case)
    found |= {"used": usage.total(), "parts": usage.parts, "seconds": round(time.time() - started, 1)}
    print("RESULT " + json.dumps(found), flush=True)


def measured(case, args):
    """The child's result, or None with the reason on standard error."""
    before = 0
    if args.device == "cuda":
        free, total = torch.cuda.mem_get_info()
        before = total - free
    command = [sys.executable, __file__, "--child", case, "--before", str(before), "--device", args.device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.seconds)
    except subprocess.TimeoutExpired:
        print(f"check_memory: {case} took longer than {args.seconds} s", file=sys.stderr, flush=True)
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        print(f"check_memory: the process for {case} ended with code {done.returncode}\n{done.stderr[-2000:]}", file=sys.stderr, flush=True)
        return None
    return json.loads(lines[-1].removeprefix("RESULT "))


def mib(parts):
    return {name: round(size / MIB, 1) for name, size in parts.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="1b:1x2048,1b:4x4096,1b:1x2048:muon")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--child")
    parser.add_argument("--before", type=int, default=0)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.before, args.device)
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if args.device == "cuda":
        print(torch.cuda.get_device_name(), torch.__version__, "CUDA", torch.version.cuda, flush=True)
    small = measured("overheads", args)
    if small is None:
        sys.exit(1)
    beside = small["parts"] | {"cuBLAS's workspace in PyTorch's pool": small["pool"]}
    print(json.dumps({"overheads_mib": mib(beside), "seconds": small["seconds"]}), flush=True)
    failed = 0
    for case in args.cases.split(","):
        found = measured(case, args)
        if found is None:
            failed += 1
            continue
        predicted = sum(found["planned"].values()) + sum(beside.values())
        off = found["used"] / predicted - 1
        wrong = args.device == "cuda" and abs(off) > ALLOWED and not case.startswith("tiny")
        failed += wrong
        print(json.dumps({"case": case, "predicted_mib": mib(found["planned"]), "beside_mib": round(sum(beside.values()) / MIB, 1)}), flush=True)
        print(json.dumps({"case": case, "predicted": predicted, "measured": found["used"], "off": round(off, 4), "verdict": "FAILED" if wrong else "ok", "measured_mib": mib(found["parts"]), "pool_mib": found["pool"] >> 20,
                          "high_water_mib": found["workspace_high_water"] >> 20, "graphs": found["graphs"], "seconds": found["seconds"]}), flush=True)
    print(f"check_memory: {'FAILED' if failed else 'all within 3 %' if args.device == 'cuda' else 'ran; there was nothing to measure'}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
