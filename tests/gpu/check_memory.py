"""What a training step takes of a GPU beside what its plan says, each step in a process of its own; a line each.

Run: PYTHONPATH=api/python HEDDLE_LIB_DIR=<folder of the shared libraries> python3 tests/gpu/check_memory.py [--cases tiny:2x16,1b:1x2048,1b:4x4096]

`device` is what the driver counts for the process (context, modules and libraries' buffers included), seen from another process; `planned` the arenas and workspaces of the plan. `context` is a process that only multiplies two
matrices. Fails if `planned + context` is more than 3 % from `device`.
"""

import argparse
import json
import os
import subprocess
import sys

import torch

ALLOWED = 0.03


def used():
    free, total = torch.cuda.mem_get_info()
    return total - free


def child(case):
    """Trains three steps and waits, so that the parent can look."""
    if case == "context":
        torch.set_grad_enabled(False)
        a = torch.zeros(256, 256, device="cuda", dtype=torch.bfloat16)
        (a @ a).sum().item()
        planned = {}
    else:
        import bench_ranks
        import heddle
        from torch.nn.attention import SDPBackend, sdpa_kernel

        size, shape = case.split(":")
        shape = tuple(int(side) for side in shape.split("x"))
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            model = bench_ranks.model_of(size, "cuda")
            batch = bench_ranks.batch_of(size, shape, 0, 0, "cuda")
            step = heddle.compile(model, batch, optimizer=heddle.AdamW(lr=1e-4), plan=heddle.Plan(clip=1.0, precision="bf16"), device="cuda")
            del model
            torch.cuda.empty_cache()
            for _ in range(3):
                step(batch)
        stats = step._executable.stats()
        planned = {name: stats[f"{name}_bytes"] for name in ("state", "constant", "input", "scratch", "vendor_workspace") if f"{name}_bytes" in stats}
        planned["workspace"] = stats["workspace_high_water"]
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    print(json.dumps({"planned": planned, "torch": torch.cuda.memory_reserved()}), flush=True)
    sys.stdin.readline()


def measured(case):
    before = used()
    process = subprocess.Popen([sys.executable, __file__, "--child", case], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        device = used() - before
    finally:
        process.communicate("\n")
    if not line:
        sys.exit(f"check_memory: the process for {case} ended with code {process.returncode}")
    return json.loads(line) | {"device": device}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="tiny:2x16,1b:1x2048,1b:4x4096")
    parser.add_argument("--child")
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    context = measured("context")["device"]
    print(json.dumps({"case": "context", "device_mib": context >> 20}), flush=True)
    far = 0
    for case in args.cases.split(","):
        result = measured(case)
        predicted = sum(result["planned"].values()) + context
        off = result["device"] / predicted - 1
        far += abs(off) > ALLOWED and not case.startswith("tiny")
        parts = {name: round(size / 2**20, 1) for name, size in result["planned"].items()}
        print(json.dumps({"case": case, "device_mib": result["device"] >> 20, "predicted_mib": predicted >> 20, "off": round(off, 4), "torch_mib": result["torch"] >> 20, "planned_mib": parts}), flush=True)
    sys.exit(far > 0)


if __name__ == "__main__":
    main()
