"""Newton-Schulz beside its peers on one GPU, in one process: ms, spread, ratio to the best peer, and singular values.

Every side gets a random bf16 stack and gives a bf16 stack; norm and casts count. Sides take turns round by round, so a change of clocks
meets all of them. The peers are those of a file peer_ns.py: its functions, under the names that it prints, and its shapes; nothing of them
is written here. A peer that it misses, or that fails, is an error unless --allow-missing. So that no peer is measured below what it can
do, torch.compile compiles every shape for itself, and kernels that Triton tunes are tuned for every shape anew (their candidates compiled
on all cores first). Ours is called through the C function of newton_schulz_c.cc; several builds of it can be sides of one run:
    bazel build //tools/bench:newton_schulz_bench
    python3 tools/bench/bench_newton_schulz.py --lib bazel-out/.../libnewton_schulz_bench.so --peers FOLDER --shapes all
"""

import argparse
import ast
import concurrent.futures
import ctypes
import os
import pathlib
import statistics
import sys
import time

import torch

TYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
SHAPES = "16x1408x2048,64x1408x2048,8x2048x2048,4x4096x14336"
# What peer_ns.py prints a function as -> what it calls it.
PEERS = {name: name for name in ("std", "cstd", "gram", "cgram", "quack")}
PEERS.update(triton="newton_schulz_triton", triton_fast="newton_schulz_triton_fast")


def load(path):
    """heddle_newton_schulz(x, result, form, dtype) -> result, with a workspace kept between calls."""
    function = ctypes.CDLL(path).heddle_newton_schulz
    number, pointer, text = ctypes.c_longlong, ctypes.c_void_p, ctypes.c_char_p
    function.restype = number
    function.argtypes = [pointer, pointer, ctypes.c_int, ctypes.c_int, number, number, number, text, text, ctypes.c_int, text]
    function.argtypes += [ctypes.c_double, text, pointer, number, pointer]
    kept = {}

    def run(x, result, form="gram", dtype="fp16", coefficients="keller_jordan"):
        sizes = (x.shape[0], *x.shape[1:])
        arguments = (x.data_ptr(), result.data_ptr(), TYPES[x.dtype], TYPES[result.dtype], *sizes)
        arguments += (form.encode(), coefficients.encode(), 5, dtype.encode(), 1e-7, b"add")
        key = (*sizes, form, dtype)
        if key not in kept:
            size = function(*arguments, None, 0, None)
            if size < 0:
                raise RuntimeError("newton_schulz refused the call")
            kept.clear()
            kept[key] = torch.empty(size, dtype=torch.uint8, device="cuda")
        workspace = kept[key]
        if function(*arguments, workspace.data_ptr(), workspace.numel(), torch.cuda.current_stream().cuda_stream) != 0:
            raise RuntimeError("newton_schulz failed")
        return result

    return run


def peers_of(folder, allow_missing):
    """(functions by name, shapes) of peer_ns.py, which is run up to its loop over the shapes."""
    path = pathlib.Path(folder) / "peer_ns.py"
    tree = ast.parse(path.read_text(), str(path))
    loops = [node for node in tree.body if isinstance(node, ast.For)]
    if len(loops) != 1:
        sys.exit(f"bench_newton_schulz: {path} has {len(loops)} loops at its top level, expected one, over the shapes")
    shapes = [tuple(shape) for shape in ast.literal_eval(loops[0].iter)]
    tree.body = tree.body[: tree.body.index(loops[0])]
    names = {"__name__": "peer_ns", "__file__": str(path)}
    arguments, sys.argv = sys.argv, [str(path)] + ["--allow-missing"] * allow_missing
    try:
        exec(compile(tree, str(path), "exec"), names)
    finally:
        sys.argv = arguments
    unknown = [own for own in PEERS.values() if own not in names]
    if unknown:
        sys.exit(f"bench_newton_schulz: {path} does not define {', '.join(unknown)}")
    for reason in names.get("missing", []):
        print(f"missing: {reason}", flush=True)
    return {name: names[own] for name, own in PEERS.items() if names[own] is not None}, shapes


def compile_candidates_together():
    """Before Triton tunes a kernel, its candidates are compiled on all cores. Returns how to forget what was tuned."""
    from triton.runtime._async_compile import AsyncCompileMode
    from triton.runtime.autotuner import Autotuner

    candidates, tuned = Autotuner.prune_configs, set()

    def prune_configs(self, kwargs):
        configs = candidates(self, kwargs)
        arguments = {**self.nargs, **kwargs}
        arguments.pop("warmup", None)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool, AsyncCompileMode(pool, ignore_errors=True):
            for config in configs:
                self.fn.warmup(**arguments, **config.all_kwargs())
        tuned.add(self)
        return configs

    Autotuner.prune_configs = prune_configs
    return lambda: [tuner.cache.clear() for tuner in tuned]


def time_turn(call, calls):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def singular_values(matrix):
    """Smallest and largest, in float64 by way of the smaller Gram matrix."""
    x = matrix.double()
    x = x if x.shape[0] <= x.shape[1] else x.mT
    values = torch.linalg.eigvalsh(x @ x.mT).clamp_min(0).sqrt()
    return values.min().item(), values.max().item()


def measure(shape, builds, rivals, options):
    """Prints one shape; returns the peers that failed."""
    text = "x".join(map(str, shape))
    x = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    results = {name: torch.empty_like(x) for name in builds}
    n, m = sorted(shape[-2:])
    flops = shape[0] * (20 * n**3 if n == m else 6 * n * n * m + 14 * n**3)
    sides, failed = {}, []
    for name, build in builds.items():
        sides[name] = lambda name=name, build=build: build(x, results[name])
    for name, peer in rivals.items():
        sides[name] = lambda peer=peer: peer(x)
    begin = time.monotonic()
    for name in list(sides):
        try:
            for _ in range(4):  # CUDA graphs of torch.compile are recorded in the second or third call
                sides[name]()
            torch.cuda.synchronize()
        except Exception as error:
            if name in builds:
                raise
            failed.append(f"{name} at {text}: {type(error).__name__} {str(error)[:200]}")
            del sides[name]
    print(f"{text}: ready after {time.monotonic() - begin:.0f} s", flush=True)
    times = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, call in sides.items():
            times[name].append(time_turn(call, options.calls))
    median = {name: statistics.median(values) for name, values in times.items()}
    best = min((name for name in median if name not in builds), key=median.get, default=None)
    for name in builds:
        ratio = f", {median[name] / median[best]:.3f} of the best peer ({best})" if best else ""
        print(f"{text}: {name} {median[name]:.3f} ms{ratio}, floor at 790 TFLOP/s {flops / 790e9:.3f} ms")
    for name, values in times.items():
        values.sort()
        low, high = values[len(values) // 10], values[-1 - len(values) // 10]
        print(f"    {name:12} {median[name]:8.3f} ms  [{low:.3f}, {high:.3f}]  {flops / median[name] / 1e9:.0f} TFLOP/s of the symmetric form")
    for name, result in results.items():
        low, high = singular_values(result[0])
        print(f"    {name}: singular values of the first result {low:.3f} to {high:.3f}", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", required=True, action="append", help="[NAME=]libnewton_schulz_bench.so; once for every build to compare")
    parser.add_argument("--peers", metavar="FOLDER", help="folder of peer_ns.py; without it Heddle alone is measured")
    parser.add_argument("--only", help="of the peers only these, comma-separated: " + ", ".join(PEERS))
    parser.add_argument("--allow-missing", action="store_true", help="go on without peers that are not installed or fail")
    parser.add_argument("--shapes", default=SHAPES, help=f"comma-separated, or 'all' for peer_ns.py's; default {SHAPES}")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=3, help="in a turn, back to back")
    options = parser.parse_args()
    if options.rounds < 1 or options.calls < 1:
        parser.error("--rounds and --calls are at least 1")
    if options.peers is None and (options.only or options.shapes == "all"):
        parser.error("--only and --shapes all need --peers")
    rivals, shapes = peers_of(options.peers, options.allow_missing) if options.peers else ({}, [])
    if options.only:
        chosen = options.only.split(",")
        if set(chosen) - set(rivals):
            parser.error(f"no peer {', '.join(sorted(set(chosen) - set(rivals)))}; there are {', '.join(rivals)}")
        rivals = {name: rivals[name] for name in chosen}
    if options.shapes != "all":
        shapes = [tuple(map(int, text.split("x"))) for text in options.shapes.split(",")]
    if any(len(shape) != 3 for shape in shapes):
        parser.error("a shape is BATCHxROWSxCOLUMNS")
    builds = dict(text.split("=", 1) if "=" in text else ("heddle", text) for text in options.lib)
    if len(builds) < len(options.lib) or set(builds) & set(PEERS):
        parser.error("the builds of --lib need names of their own: NAME=PATH")
    builds = {name: load(path) for name, path in builds.items()}
    if rivals:
        torch._dynamo.config.automatic_dynamic_shapes = False
        torch._dynamo.config.recompile_limit = 4 * len(shapes) + 8
        forget_tuned = compile_candidates_together()
    left, right = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    rate = 2 * 8192**3 / min(time_turn(lambda: left @ right, 1) for _ in range(10)) / 1e9
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, GEMM 8192^3 {rate:.0f} TFLOP/s, {len(rivals)} peers", flush=True)
    del left, right
    failed = []
    with torch.no_grad():
        for shape in shapes:
            if rivals:
                forget_tuned()
            failed += measure(shape, builds, rivals, options)
            torch.cuda.empty_cache()
    for line in failed:
        print(f"failed: {line}")
    if failed and not options.allow_missing:
        sys.exit("bench_newton_schulz: peers failed, so 'the best peer' may not be (--allow-missing to accept that)")


if __name__ == "__main__":
    main()
