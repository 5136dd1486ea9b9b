"""heddle.check on a GPU: every family, once for each attention backend; one line each, and at the end how many of each kind.

Run: PYTHONPATH=api/python HEDDLE_LIB_DIR=<folder of the shared libraries> python3 tests/gpu/check_families.py [--families llama,vit] [--backends math,flash] [--precision bf16] [--big] [--padded] [--checkpointed] [--deterministic] [--runs 25]

A line says `bit_identical`, or how far loss and gradients are from eager's, beside how far eager is from itself over --runs runs (a kernel with atomics repeats no bits).
"""

import argparse
import collections
import contextlib
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Read when --deterministic is given.

import families  # noqa: E402
import heddle  # noqa: E402
import torch  # noqa: E402
from heddle.checking import eager_step, generator_state, set_generator_state  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

BACKENDS = {"math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "default": None}


def eager_spread(model, batch, device, precision, runs):
    """The largest difference of any gradient between eager runs from one generator state."""
    state, first, largest = generator_state(device), None, 0.0
    for _ in range(runs):
        set_generator_state(device, state)
        gradients = eager_step(model, batch, None, precision, device)[2]
        first = first or gradients
        largest = max([largest, *(float((gradients[name].double() - first[name].double()).abs().max()) for name in first)])
    return largest


def break_silu():
    """The control of this script: replaces silu in eager only."""
    from heddle import checking

    honest = checking.eager_step

    def broken(*args):
        library = torch.library.Library("aten", "IMPL")
        library.impl("silu", lambda x: torch.ops.aten.mul(x, torch.ops.aten.sigmoid(x)) * (1 + 2**-8), "CUDA", allow_override=True)
        try:
            return honest(*args)
        finally:
            library._destroy()

    checking.eager_step = broken


def padded(batch):
    """Rows that begin with padding, so that attention is given a boolean mask."""
    batch["attention_mask"][0, :5] = 0
    batch["labels"][0, :5] = -100


def line(family, backend, args):
    device, precision = args.device, args.precision
    model, batch = families.FAMILIES[family](*map(int, args.shape.split("x")), big=args.big)
    if args.padded and "attention_mask" in batch:
        padded(batch)
    if args.checkpointed:
        model.gradient_checkpointing_enable()
    with sdpa_kernel(BACKENDS[backend]) if BACKENDS[backend] is not None else contextlib.nullcontext():
        try:
            eager_step(model, batch, None, precision, device)
        except RuntimeError as error:
            return f"eager_refuses: {str(error).splitlines()[0][:120]}"
        try:
            report = heddle.check(model, batch, device=device, precision=precision)
        except (heddle.HeddleError, RuntimeError) as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        counters = {name: report.stats["counters"][name] for name in ("escaped", "outside_workspace", "unplanned_copies") if report.stats["counters"][name]}
        if report.bit_identical:
            return f"bit_identical {counters or ''}"
        wrong = sum(difference != 0 for difference in report.gradients.values())
        return (f"max_abs_diff {report.max_abs_diff:.3e} in {wrong}/{len(report.gradients)} gradients, loss {report.loss} against {report.eager_loss}, "
                f"eager against itself {eager_spread(model, batch, device, precision, args.runs):.3e}, first {report.first_divergence} {counters or ''}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--families", default=",".join(families.FAMILIES))
    parser.add_argument("--backends", default="math,flash")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="2x64", help="batch x sequence")
    parser.add_argument("--big", action="store_true")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--padded", action="store_true", help="the first row begins with padding")
    parser.add_argument("--checkpointed", action="store_true", help="with gradient checkpointing")
    parser.add_argument("--deterministic", action="store_true", help="both sides under torch.use_deterministic_algorithms")
    parser.add_argument("--runs", type=int, default=5, help="of eager, for its distance from itself")
    parser.add_argument("--break-silu", action="store_true", help="eager's silu is off by one bit: a family that uses it must differ, and silu be named")
    args = parser.parse_args()
    if args.deterministic:
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    if args.break_silu:
        break_silu()
    kinds = collections.Counter()
    for family in args.families.split(","):
        for backend in args.backends.split(","):
            start = time.time()
            found = line(family, backend, args)
            kinds[(backend, found.split(" ", 1)[0].strip(":"))] += 1
            print(f"{family:24}{backend:10}{found} ({time.time() - start:.1f} s)", flush=True)
    print(*(f"{backend}: {count} {kind}" for (backend, kind), count in sorted(kinds.items())), sep="\n")


if __name__ == "__main__":
    main()
