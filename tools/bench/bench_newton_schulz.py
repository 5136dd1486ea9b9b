"""Newton-Schulz beside its peers on one GPU, in one call: ms, spread, ratio to the best peer, and singular values.

Every side gets a random bf16 stack and gives a bf16 stack; norm and casts count. Sides take turns round by round, so a change of clocks
meets all of them. Peers (each optional, a missing one is named): torch (NS5 in bf16), torch Gram (fp16), torch.compile of both, the two
Triton forms of microsoft/dion, gram-newton-schulz with quack-kernels. Ours is called through the C function of newton_schulz_c.cc:
    bazel build //tools/bench:newton_schulz_bench
    python3 tools/bench/bench_newton_schulz.py --lib bazel-out/.../libnewton_schulz_bench.so
"""

import argparse
import ctypes
import statistics

import torch

A, B, C = 3.4445, -4.7750, 2.0315
TYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
SHAPES = "16x1408x2048,64x1408x2048,8x2048x2048,4x4096x14336"


def load(path):
    """heddle_newton_schulz(x, result, form, dtype) -> result, with a workspace kept between calls."""
    function = ctypes.CDLL(path).heddle_newton_schulz
    number, pointer, text = ctypes.c_longlong, ctypes.c_void_p, ctypes.c_char_p
    function.restype = number
    function.argtypes = [pointer, pointer, ctypes.c_int, ctypes.c_int, number, number, number, text, text, ctypes.c_int, text]
    function.argtypes += [ctypes.c_double, text, pointer, number, pointer]
    kept = {}

    def run(x, result, form="gram", dtype="fp16", coefficients="keller_jordan"):
        sizes = (x.shape[:-2].numel(), *x.shape[-2:])
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


def standard(g, steps=5):
    x = g.to(torch.bfloat16)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        r = x @ x.mT
        x = A * x + (B * r + C * r @ r) @ x
    return x


def gram(g, steps=5, restart=2):
    x = g.float()
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).half()
    if x.shape[-2] == x.shape[-1]:
        return standard(g)
    r, q = x @ x.mT, None
    for i in range(steps):
        if i == restart:
            x = q @ x
            r, q = x @ x.mT, None
        z = B * r + C * r @ r
        if q is None:
            q = z.clone()
            q.diagonal(dim1=-2, dim2=-1).add_(A)
        else:
            q = A * q + z @ q
        if i < steps - 1 and i + 1 != restart:
            rz = A * r + z @ r
            r = A * rz + z @ rz
    return (q @ x).bfloat16()


def peers(compiled):
    found = {"torch standard": standard, "torch gram": gram}
    if compiled:
        found["compiled standard"] = torch.compile(standard)
        found["compiled gram"] = torch.compile(gram)
    try:
        from dion.newton_schulz_triton import newton_schulz_triton, newton_schulz_triton_fast

        found["dion triton"] = newton_schulz_triton
        found["dion triton fast"] = newton_schulz_triton_fast
    except Exception as error:
        print(f"not run: dion ({error})")
    try:
        from gram_newton_schulz import GramNewtonSchulz

        found["quack"] = GramNewtonSchulz(ns_coefficients=[[A, B, C]] * 5, gram_newton_schulz_reset_iterations=[2])
    except Exception as error:
        print(f"not run: gram-newton-schulz ({error})")
    return found


def time_once(call):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", required=True)
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="the torch.compile peers too")
    options = parser.parse_args()
    ours = load(options.lib)
    rivals = peers(options.compile)
    left, right = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    rate = 2 * 8192**3 / min(time_once(lambda: left @ right) for _ in range(10)) / 1e9
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, GEMM 8192^3 {rate:.0f} TFLOP/s")
    del left, right
    for text in options.shapes.split(","):
        shape = tuple(int(n) for n in text.split("x"))
        x = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
        result = torch.empty_like(x)
        n, m = sorted(shape[-2:])
        flops = x.shape[:-2].numel() * (20 * n**3 if n == m else 6 * n * n * m + 14 * n**3)
        sides = {"heddle": lambda: ours(x, result)}
        for name, peer in rivals.items():
            try:
                for _ in range(3):
                    peer(x)
                torch.cuda.synchronize()
                sides[name] = lambda peer=peer: peer(x)
            except Exception as error:
                print(f"{text}: {name} failed: {type(error).__name__} {str(error)[:120]}")
        for _ in range(3):
            sides["heddle"]()
        times = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, call in sides.items():
                times[name].append(time_once(call))
        median = {name: statistics.median(values) for name, values in times.items()}
        best = min((name for name in median if name != "heddle"), key=median.get)
        print(f"{text}: ratio to the best peer ({best}) {median['heddle'] / median[best]:.3f}, floor at 790 TFLOP/s {flops / 790e9:.3f} ms")
        for name, values in times.items():
            values.sort()
            low, high = values[len(values) // 10], values[-1 - len(values) // 10]
            print(f"    {name:18} {median[name]:8.3f} ms  [{low:.3f}, {high:.3f}]  {flops / median[name] / 1e9:.0f} TFLOP/s of the symmetric form")
        values = torch.linalg.svdvals(result.reshape(-1, *shape[-2:])[0].float())
        print(f"    singular values of the first result: {values.min():.3f} to {values.max():.3f}", flush=True)


if __name__ == "__main__":
    main()
