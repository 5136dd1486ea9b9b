"""Where one training step's GPU time goes, by kind of kernel, Heddle without and with CUDA graphs beside eager PyTorch.

Run: PYTHONPATH=api/python HEDDLE_LIB_DIR=<folder of the shared libraries> python3 tests/gpu/profile_step.py [--shape 1x2048] [--steps 5] [--top 12]

`busy` is the sum of all kernels and copies; what is missing to the wall time is the GPU waiting for the host. The profiler itself slows the host down.
"""

import argparse
import collections
import gc
import re
import time

import torch
from bench_step import Eager, Heddle, HeddleGraph, batch_of
from torch.nn.attention import SDPBackend, sdpa_kernel

# The first pattern that matches a kernel's name decides its kind.
KINDS = [
    ("attention", r"flash|fmha|attention|mha_"),
    ("matmul", r"gemm|cutlass|nvjet|sm90_xmma|cublas"),
    ("optimizer", r"(?i)adam|multi_tensor|foreach"),
    ("softmax and loss", r"softmax|nll_loss|SoftMax"),
    ("copy and cast", r"copy|Memcpy|memcpy|CatArray|direct_copy"),
    ("fill", r"Memset|fill|FillFunctor"),
    ("reduction", r"reduce|norm"),
    ("embedding and indexing", r"embedding|index|gather|scatter|sort"),
    ("pointwise", r"elementwise|vectorized"),
]


def kind_of(name):
    return next((kind for kind, pattern in KINDS if re.search(pattern, name)), "other")


def profile(side, shape, steps, top):
    batch = batch_of(shape, "cuda")
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        step = side(16, batch, "cuda")
        for _ in range(4):
            step(batch)
        torch.cuda.synchronize()
        begin = time.perf_counter()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
            for _ in range(steps):
                step(batch)
            torch.cuda.synchronize()
        wall = 1e3 * (time.perf_counter() - begin) / steps
    kinds, names = collections.Counter(), collections.Counter()
    launches = collections.Counter()
    for event in recorded.events():
        if event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        milliseconds = event.device_time_total / 1e3 / steps
        kinds[kind_of(event.name)] += milliseconds
        names[event.name[:110]] += milliseconds
        launches[kind_of(event.name)] += 1 / steps
    print(f"{side.__name__} {shape[0]}x{shape[1]}: wall {wall:.1f} ms under the profiler, busy {sum(kinds.values()):.1f} ms, {sum(launches.values()):.0f} launches a step")
    for kind, milliseconds in kinds.most_common():
        print(f"  {kind:24} {milliseconds:8.2f} ms {launches[kind]:8.0f} launches")
    for name, milliseconds in names.most_common(top):
        print(f"    {milliseconds:7.2f} ms  {name}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="1x2048", help="batch x sequence")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--top", type=int, default=12)
    args = parser.parse_args()
    print(torch.cuda.get_device_name(), torch.__version__)
    for side in (Eager, Heddle, HeddleGraph):
        profile(side, tuple(map(int, args.shape.split("x"))), args.steps, args.top)
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
