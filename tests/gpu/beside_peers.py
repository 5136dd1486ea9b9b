"""Heddle's steps beside those of FSDP2 and DeepSpeed, in one call on the same GPUs, as a Markdown table.

Run: python3 tests/gpu/beside_peers.py --peers FOLDER [--nproc 2] [--rows 1b:1x2048,1b:4x4096] [--sides adamw-2,adamw-3,muon-2,fsdp2,fsdp2-compile,ds-2,ds-3,ds-muon-2] [--steps 25] [--timeout 150] [--out FILE]
with PYTHONPATH=api/python and HEDDLE_LIB_DIR as bench_ranks.py wants them; FOLDER holds peer_dense.py and peer_ds.py.

Each side is a torchrun of its own, one after the other, with random weights and tokens made on the device. A side that fails or outlasts --timeout is a row that says so; the exit code is 1 if one of ours did. Ours
counts as memory all that the device lost to the process (context, modules, NCCL), peers what PyTorch's allocator held at most.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
PEER_LINE = re.compile(r"step ([\d.]+) ms tok/s/GPU (\d+) .*?peak ([\d.]+) GiB")
FIRST_STEP = re.compile(r"first step ([\d.]+)")


def command(side, size, shape, args):
    """The program and its arguments for one side; FSDP2 without and with resharding after forward are ZeRO-2 and ZeRO-3."""
    batch, length = shape.split("x")
    kind, *rest = side.split("-")
    if kind in ("adamw", "muon"):
        return [str(HERE / "bench_ranks.py"), "--size", size, "--shape", shape, "--optimizer", kind, "--zero", rest[0], "--steps", str(args.steps), *(["--profile"] if args.profile else [])]
    if kind == "fsdp2":
        options = (["--compile"] if "compile" in rest else []) + ["--reshard", "0" if "2" in rest else "1"]
        return [str(args.peers / "peer_dense.py"), "--size", size, "--seq", length, "--bs", batch, "--steps", str(args.steps + 3), *options]
    if kind == "ds":
        options = ["--stage", rest[-1], *(["--opt", "muon"] if "muon" in rest else []), *(["--compile"] if "compile" in rest else []), *(["--deepcompile"] if "deepcompile" in rest else [])]
        return [str(args.peers / "peer_ds.py"), "--model", size, "--seq", length, "--bs", batch, "--steps", str(args.steps), *options]
    raise SystemExit(f"--sides: '{side}' is none of adamw-STAGE, muon-STAGE, fsdp2[-compile][-2], ds[-muon][-compile]-STAGE")


def measured(side, size, shape, args):
    """One side's figures, or {"failed": why}."""
    start = time.time()
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(args.nproc), *command(side, size, shape, args)]
    try:
        done = subprocess.run(launch, capture_output=True, text=True, timeout=args.timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {args.timeout} s"}
    if done.returncode != 0:
        reasons = [line for line in (done.stderr + done.stdout).splitlines() if re.search(r"Error|error:", line) and "ChildFailed" not in line]
        return {"failed": (reasons or [f"exit code {done.returncode}"])[0].strip()[:200], "log": done.stderr[-3000:]}
    seconds = time.time() - start
    if side.startswith(("adamw", "muon")):
        line = json.loads([text for text in done.stdout.splitlines() if text.startswith("{")][-1])
        return {"step_ms": line["median_ms"], "p10_ms": line["p10_ms"], "p90_ms": line["p90_ms"], "tokens": line["tokens_per_s_per_gpu"], "peak_gib": line["device_used_gib"], "first_step_s": line["first_step_s"],
                "enqueue_ms": line["host_enqueue_ms"], "exposed_ms": line.get("exposed_ms"), "kernels_ms": line.get("kernels_ms"), "starting_s": line["starting_s"], "seconds": seconds}
    found = PEER_LINE.search(done.stdout)
    first = FIRST_STEP.search(done.stdout)
    if not found:
        return {"failed": "no line of figures", "log": done.stdout[-2000:]}
    return {"step_ms": float(found[1]), "tokens": int(found[2]), "peak_gib": float(found[3]), "first_step_s": float(first[1]) if first else None, "seconds": seconds}


def cell(value, spec="{}"):
    return "–" if value is None else spec.format(value)


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--peers", type=pathlib.Path, required=True)
    parser.add_argument("--nproc", type=int, default=2)
    parser.add_argument("--rows", default="1b:1x2048,1b:4x4096", help="size:batchxsequence of a rank")
    parser.add_argument("--sides", default="adamw-2,adamw-3,muon-2,muon-3,fsdp2-2,fsdp2,fsdp2-compile-2,fsdp2-compile,ds-2,ds-3,ds-muon-2")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--timeout", type=int, default=150, help="seconds for one side")
    parser.add_argument("--profile", action="store_true", help="exposed communication and milliseconds by kernel, of ours")
    parser.add_argument("--out", type=pathlib.Path, help="all figures as JSON, written anew after every side")
    args = parser.parse_args()
    figures, failed = {}, False
    print("| row | side | step ms (p10 to p90) | tok/s/GPU | peak GiB | first step s | host ms | exposed ms |\n|---|---|---|---|---|---|---|---|", flush=True)
    for row in args.rows.split(","):
        size, shape = row.split(":")
        for side in args.sides.split(","):
            found = figures[f"{row} {side}"] = measured(side, size, shape, args)
            if args.out:
                args.out.write_text(json.dumps(figures, indent=1))
            if "failed" in found:
                failed = failed or side.startswith(("adamw", "muon"))
                print(f"| {row} | {side} | {found['failed']} | – | – | – | – | – |", flush=True)
                continue
            spread = f" ({found['p10_ms']} to {found['p90_ms']})" if "p10_ms" in found else ""
            print(f"| {row} | {side} | {found['step_ms']}{spread} | {found['tokens']} | {found['peak_gib']} | {cell(found['first_step_s'])} | {cell(found.get('enqueue_ms'))} | {cell(found.get('exposed_ms'), '{:.2f}')} |", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
