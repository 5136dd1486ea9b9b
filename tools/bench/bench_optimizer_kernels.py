"""The update's kernels on one GPU: GB/s, and the share of a device copy that moves as many bytes.

Llama-1B's matrices by default. Kernel and copy take turns, round by round, so a change of clocks meets both; the tensors are far larger
than the L2 cache. Kernels are replayed from a CUDA graph, so the host's time does not count; copies are not, as a graph copies slower. Several builds of the library that calls kernels by name can be sides of one run:
    bazel build //tests/unit/kernels:kernel_caller
    PYTHONPATH=. python3 tools/bench/bench_optimizer_kernels.py --lib bazel-out/.../libkernel_caller.so [--lib NAME=PATH]
"""

import argparse
import statistics

import torch

from tests.unit.kernels.kernel_caller import call

LAYER = [(2048, 2048)] * 2 + [(512, 2048)] * 2 + [(8192, 2048)] * 3


def turn(launch, calls):
    """Milliseconds of one of `calls` launches in a row."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(calls):
        launch()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / calls


def recorded(launch, times=1):
    """What replays `times` launches."""
    launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            launch()
    return graph.replay


def spread(times):
    """Median, tenth and nine tenths."""
    times = sorted(times)
    return statistics.median(times), times[len(times) // 10], times[-1 - len(times) // 10]


def cases(shapes):
    """(name, bytes moved, launch(library)) of every kernel that is measured."""
    elements = sum(m * n for m, n in shapes)
    new = lambda dtype, fill=None: [torch.empty(s, device="cuda", dtype=dtype).normal_() if fill is None else torch.full(s, fill, device="cuda", dtype=dtype) for s in shapes]
    full, half = torch.float32, torch.bfloat16
    params, grads, momenta, squares = new(full), new(full), new(full, 0.0), new(full, 0.1)
    copies, half_grads, halves = new(half, 0.0), new(half), new(half, 0.0)
    lists = {"params": params, "grads": grads, "exp_avgs": momenta, "exp_avg_sqs": squares}
    adamw = dict(lr=1e-4, step=3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
    muon, apply = dict(momentum=0.95, form="ema"), dict(lr=1e-4, weight_decay=0.1)
    yield "multi_adamw, bf16 copies", 30 * elements, lambda library: call("multi_adamw", {**lists, "copies": copies}, [], library, **adamw)
    one = {"param": params, "grad": grads, "exp_avg": momenta, "exp_avg_sq": squares}
    yield "adamw, tensor by tensor", 28 * elements, lambda library: [call("adamw", {name: own[i] for name, own in one.items()}, [], library, **adamw) for i in range(len(shapes))]
    yield "muon_momentum, fp32", 16 * elements, lambda library: call("muon_momentum", {"grads": grads, "momenta": momenta}, [*momenta, *squares], library, **muon)
    yield "muon_momentum, bf16 gradients", 14 * elements, lambda library: call("muon_momentum", {"grads": half_grads, "momenta": momenta}, [*momenta, *squares], library, **muon)
    yield "muon_momentum, bf16 throughout", 8 * elements, lambda library: call("muon_momentum", {"grads": half_grads, "momenta": copies}, [*copies, *halves], library, **muon)
    yield "muon_apply, fp32", 12 * elements, lambda library: call("muon_apply", {"params": params, "updates": grads}, params, library, **apply)
    yield "muon_apply, bf16 copies", 14 * elements, lambda library: call("muon_apply", {"params": params, "updates": grads}, [*params, *copies], library, **apply)
    yield "muon_apply, bf16 parameters", 8 * elements, lambda library: call("muon_apply", {"params": half_grads, "updates": grads}, half_grads, library, **apply)
    partials = torch.empty(sum(-(-m * n // 65536) + 1 for m, n in shapes), dtype=torch.float64, device="cuda")
    norm, factor = torch.empty((), device="cuda"), torch.empty((), device="cuda")
    yield "multi_grad_norm, fp32", 4 * elements, lambda library: call("multi_grad_norm", {"grads": grads}, [norm, factor, None, partials], library, max_norm=1.0)


def loss_scale():
    state = [torch.tensor(1024.0, device="cuda"), torch.tensor(0, device="cuda"), torch.tensor(2, device="cuda")]
    real = lambda: torch.empty((), device="cuda")
    flag = lambda: torch.empty((), dtype=torch.bool, device="cuda")
    results = [real(), real(), real(), flag(), real(), flag(), *state]
    settings = dict(initial=1024.0, seed=1.0, max_norm=1.0, window=1000, hysteresis=2, consecutive_hysteresis=0, min_scale=1.0)
    norm = torch.ones((), device="cuda")
    return lambda library: call("loss_scale", {"norm": norm, "state": state}, results, library, **settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", required=True, action="append", help="[NAME=]libkernel_caller.so; once for every build to compare")
    parser.add_argument("--layers", type=int, default=16, help="of Llama-1B")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=3, help="in a turn, back to back")
    options = parser.parse_args()
    if min(options.layers, options.rounds, options.calls) < 1:
        parser.error("--layers, --rounds and --calls are at least 1")
    builds = dict(text.split("=", 1) if "=" in text else ("heddle", text) for text in options.lib)
    if len(builds) < len(options.lib):
        parser.error("the builds of --lib need names of their own: NAME=PATH")
    shapes = LAYER * options.layers
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {len(shapes)} matrices, {sum(m * n for m, n in shapes) / 1e6:.0f} M elements")
    print(f"{'':32}{'build':>8}{'us [10 %, 90 %]':>32}{'GB/s':>8}{'of a copy':>11}")
    for name, size, launch in cases(shapes):
        source = torch.empty(size // 2, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        sides = {"copy": lambda: target.copy_(source)}
        sides.update({build: recorded(lambda path=path: launch(path)) for build, path in builds.items()})
        times = {side: [] for side in sides}
        for side in sides.values():
            side()
        for _ in range(options.rounds):
            for side, run in sides.items():
                times[side].append(turn(run, options.calls))
        copied = statistics.median(times["copy"])
        for side, own in times.items():
            middle, low, high = spread(own)
            figures = f"{1e3 * middle:.1f} [{1e3 * low:.1f}, {1e3 * high:.1f}]"
            print(f"{name:32}{side:>8}{figures:>32}{size / middle / 1e6:8.0f}{100 * copied / middle:9.1f} %", flush=True)
        del source, target
    run = loss_scale()
    for build, path in builds.items():
        replay = recorded(lambda path=path: run(path), 100)
        middle, low, high = (t / 100 for t in spread([turn(replay, options.calls) for _ in range(options.rounds)]))
        print(f"{'loss_scale, a launch':32}{build:>8}{f'{1e3 * middle:.1f} [{1e3 * low:.1f}, {1e3 * high:.1f}]':>32}", flush=True)


if __name__ == "__main__":
    main()
