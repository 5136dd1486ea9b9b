"""Muon's CUDA kernels against their host references, Newton-Schulz against float64 and inside a CUDA graph, and whole steps with heddle.Muon against eager PyTorch.

Run: HEDDLE_LIB_DIR=<folder of the shared libraries and libkernel_caller.so> PYTHONPATH=.:api/python python3 tests/gpu/check_muon.py [--no-steps | --updates]

Momentum and update must have the bits of their references. Exits 1 if anything differs by more than its bound says; without a GPU it says so and exits 0.
"""

import argparse
import random
import sys

import torch

from tests.unit.kernels.kernel_caller import call

FAILED = []
DEVICE = "cuda"
HALF, BF16, FP32, FP64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
SETS = {
    "keller_jordan": [(3.4445, -4.7750, 2.0315)] * 5,
    "you": [(4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037), (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)],
    "polar_express": [
        (a / 1.05, b / 1.05**3, c / 1.05**5)
        for a, b, c in [(8.28721, -23.59589, 17.30039), (4.10706, -2.94785, 0.54484), (3.94869, -2.90890, 0.55182), (3.31842, -2.48849, 0.51005), (2.30065, -1.66890, 0.41881)]
    ],
}


def report(what, error, bound):
    if not error <= bound:
        print(f"FAIL {what}: {error:.3e} (bound {bound:.1e})")
        FAILED.append(what)
    return error


def name(*types):
    return " ".join(str(t).split(".")[-1] for t in types)


def bits(tensor):
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8).cpu()


def both(what, kernel, tensors, results, in_place=(), bound=None, shift=0, **scalars):
    """On the host, and twice on the GPU onto poisoned results; the lists named `in_place` count as results. `bound` None: the same bits.
    Tensors begin `shift` elements into their memory, so that vectors do not fit."""

    def one(t, device):
        storage = torch.full((t.numel() + shift,), float("nan") if t.is_floating_point() else 1, dtype=t.dtype, device=device)
        return storage[shift:].view(t.shape).copy_(t)

    place = lambda value, device: [one(t, device) for t in value] if isinstance(value, list) else one(value, device)
    runs = []
    for device in (DEVICE, DEVICE, "cpu"):
        inputs = {key: place(value, device) for key, value in tensors.items()}
        poison = lambda r: torch.full(r.shape, float("nan") if r.is_floating_point() else 1, dtype=r.dtype)
        outputs = [None if r is None else one(poison(r), device) for r in results]
        call(kernel, inputs, [*(t for key in in_place for t in inputs[key]), *outputs], **scalars)
        runs.append([t for key in in_place for t in inputs[key]] + [t for t in outputs if t is not None])
    for i, (first, second, host) in enumerate(zip(*runs)):
        if not torch.equal(bits(first), bits(second)):
            FAILED.append(f"{what}: result {i} does not repeat its bits")
        if bound is None:
            report(f"{what} result {i}", float((bits(first) != bits(host)).sum()), 0)
        elif host.numel():
            close = torch.allclose(first.cpu().double(), host.double(), rtol=bound, atol=0, equal_nan=True)
            report(f"{what} result {i}", 0.0 if close else float((first.cpu().double() - host.double()).abs().max()), 0)
    return runs[0]


# Groups of four, what is left of them, and several blocks a tensor.
SHAPES = [(4, 33)] * 70 + [(0, 5), (1, 1), (8192 * 3 + 5, 1), (3, 5, 7), (257, 129), (65537, 3)]


def check_updates(rng):
    count = 0
    types = (HALF, BF16, FP32)
    for form in ("torch", "ema"):
        for grad in types:
            for state in types:
                shapes = rng.sample(SHAPES, len(SHAPES))
                kinds = [grad] * (len(shapes) - 3) + [rng.choice(types) for _ in range(3)]  # a list need not be of one type
                tensors = {"grads": [torch.randn(s).to(t) for s, t in zip(shapes, kinds)], "momenta": [torch.randn(s).to(state) for s in shapes]}
                for finite in (None, True, False):
                    result = rng.choice(types)
                    more = {} if finite is None else {"finite": torch.tensor(finite)}
                    shift = rng.choice((0, 0, 1, 2, 4))
                    divisor, nesterov, momentum = rng.choice((1, 3)), rng.choice((0, 1)), rng.choice((0.0, 0.3, 0.95))
                    what = f"muon_momentum {form} {name(grad, state, result)} finite={finite} divisor={divisor} nesterov={nesterov} shift={shift}"
                    got = both(what, "muon_momentum", {**tensors, **more}, [torch.empty(s, dtype=result) for s in shapes], ("momenta",), shift=shift, momentum=momentum, form=form, nesterov=nesterov, divisor=divisor)
                    if finite is False:
                        kept = all(torch.equal(bits(a), bits(b)) for a, b in zip(got, tensors["momenta"])) and all(not t.any() for t in got[len(shapes) :])
                        report(what + ": keeps and zeroes", 0.0 if kept else 1.0, 0)
                    count += 1
    for scale in ("match_rms", "original", "spectral", "none"):
        for param in types:
            for update in types:
                shapes = rng.sample([s for s in SHAPES if 0 not in s] + [(0, 5)], len(SHAPES))
                tensors = {"params": [torch.randn(s).to(param) for s in shapes], "updates": [torch.randn(s).to(update) for s in shapes]}
                for finite in (None, True, False):
                    more = {} if finite is None else {"finite": torch.tensor(finite)}
                    copy = rng.choice((None, *types))
                    copies = [] if copy is None else [torch.empty(s, dtype=copy) for s in shapes]
                    what = f"muon_apply {scale} {name(param, update, copy)} finite={finite}"
                    decay, shift = rng.choice((0.0, 0.1)), rng.choice((0, 0, 1, 2, 4))
                    got = both(what, "muon_apply", {**tensors, **more}, copies, ("params",), shift=shift, scale=scale, lr=rng.choice((1e-4, 0.02)), lr_scale=rng.choice((1.0, 0.5)), weight_decay=decay)
                    if finite is False:
                        report(what + ": keeps", 0.0 if all(torch.equal(bits(a), bits(b)) for a, b in zip(got, tensors["params"])) else 1.0, 0)
                    count += 1
    doubles = {"grads": [torch.randn(33, 7, dtype=FP64)], "momenta": [torch.randn(33, 7, dtype=FP64)]}
    both("muon_momentum float64", "muon_momentum", doubles, [torch.empty(33, 7, dtype=FP64)], ("momenta",), momentum=0.95, form="ema")
    both("muon_apply float64", "muon_apply", {"params": doubles["grads"], "updates": doubles["momenta"]}, [], ("params",), lr=0.02, weight_decay=0.1)
    singles = [torch.randn(33, 7)]  # arithmetic in fp32 beside float64 tensors, which never go four at a time
    both("muon_momentum float64 gradient", "muon_momentum", {"grads": doubles["grads"], "momenta": singles}, [torch.empty(33, 7, dtype=FP64)], ("momenta",), momentum=0.95)
    both("muon_apply float64 update", "muon_apply", {"params": singles, "updates": doubles["momenta"]}, [torch.empty(33, 7, dtype=FP64)], ("params",), lr=0.02)
    print(f"muon_momentum and muon_apply: {count + 4} calls of {len(SHAPES)} tensors")


def check_norms(rng):
    count = 0
    for dtype in (HALF, BF16, FP32):
        for _ in range(12):
            sizes = [rng.choice((0, 1, 13, 4097, 65536, 65537 * 3 + 1)) for _ in range(rng.choice((1, 7, 200)))]
            ranks = rng.choice((1, 2, 3))
            for rank in range(ranks):
                grads, shard, segments, bounds = [], [], [], []
                for size in sizes:
                    whole = ranks == 1 or rng.random() < 0.3
                    part = 0 if whole else -(-size // ranks) if rng.random() < 0.5 else -1
                    held = size if part == 0 else part
                    if part < 0:
                        inner = sorted(rng.randint(0, size) for _ in range(ranks - 1))
                        bounds += [0, *inner, size]
                        held = bounds[rank - ranks] - bounds[rank - ranks - 1]
                    cuts = sorted({0, rng.randint(0, size), rng.randint(0, size), size})
                    pieces = list(zip(cuts[:-1], cuts[1:])) or [(0, 0)]
                    grads.append(torch.randn(held).to(dtype) * 10 ** rng.uniform(-2, 2))
                    shard.append(part)
                    segments += [len(pieces), *(n for begin, end in pieces for n in (begin, end - begin))]
                total = sum(segments[i] for i in starts(segments))
                both(f"grad_sumsq {name(dtype)} rank {rank} of {ranks}", "grad_sumsq", {"grads": grads}, [torch.empty(total, dtype=FP64)], bound=2e-6, segments=segments, shard=shard, bounds=bounds, rank=rank)
                count += 1
    for sums in ([2.0], [0.0], [1e-300, 3.0], [float("inf"), 1.0], [float("nan")], [1e200, 1e200], torch.rand(5000).tolist()):
        for max_norm, divisor in ((0, 1), (1.0, 1), (0.5, 3)):
            outputs = [torch.empty(()), torch.empty(()), torch.empty((), dtype=torch.bool)]
            both(f"norm_finish {sums[:3]} {max_norm} {divisor}", "norm_finish", {"sumsq": torch.tensor(sums, dtype=FP64)}, outputs, bound=1e-6, max_norm=max_norm, divisor=divisor)
            count += 1
    print(f"grad_sumsq and norm_finish: {count} calls")


def starts(segments):
    at = 0
    while at < len(segments):
        yield at
        at += 1 + 2 * segments[at]


def exact(x, coefficients, dtype=FP64):
    """By the quintic iteration itself, of the normalised matrix in `dtype`."""
    x = x.double()
    wide = x if x.shape[-2] <= x.shape[-1] else x.mT
    wide = (wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype)
    for a, b, c in SETS[coefficients]:
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if x.shape[-2] <= x.shape[-1] else wide.mT


# Of the relative distance to float64; or three times (Gram form: six) what the same iteration of PyTorch's products in that type is off, where that is more: the product of the
# coefficients a, 400 to 1100, enlarges what is rounded in the directions of small singular values.
BOUNDS = {"fp16": 1e-2, "bf16": 4e-2, "fp32": 5e-6, "fp64": 1e-12}
DTYPES = {"fp16": HALF, "bf16": BF16, "fp32": FP32, "fp64": FP64}
BANDS = {"keller_jordan": (0.67, 1.21), "you": (0.96, 1.16), "polar_express": (0.83, 1.14)}


def check_newton_schulz(rng):
    worst = dict.fromkeys(BOUNDS, 0.0)
    shapes = [(1, 128, 256), (1, 64, 64), (2, 256, 512), (3, 200, 328), (1, 136, 1000), (1, 1000, 136), (2, 640, 1024), (5, 7, 9), (2, 513, 1031), (20, 384, 512), (9, 512, 512), (3, 1160, 1160), (2, 2048, 2048), (1, 3072, 2048), (2, 1408, 2048)]
    for shape in shapes:
        small = max(shape[-2:]) <= 600
        for dtype, types in (("fp16", (BF16, FP32, HALF)), ("bf16", (BF16, FP32)), ("fp32", (FP32, BF16)), ("fp64", (FP64,))):
            if not small and dtype in ("fp32", "fp64"):
                continue
            for form in ("gram", "standard"):
                coefficients, source, target = rng.choice(list(SETS)), rng.choice(types), rng.choice(types)
                x = (torch.randn(shape, dtype=FP64, device=DEVICE) * 10 ** rng.uniform(-3, 3)).to(source)
                results = []
                for _ in range(3):
                    results.append(torch.full(shape, float("nan"), dtype=target, device=DEVICE))
                    call("newton_schulz", {"x": x}, [results[-1]], ns=form, coefficients=coefficients, steps=5, dtype=dtype, eps=1e-7, norm_eps="add")
                want = exact(x, coefficients)
                error, plain = (float(((got.double() - want).norm(dim=(-2, -1)) / want.norm(dim=(-2, -1))).max()) for got in (results[0], exact(x, coefficients, DTYPES[dtype])))
                rounded = {BF16: 4e-3, HALF: 1e-3}.get(target, 0.0)
                what = f"newton_schulz {shape} {form} {coefficients} {dtype} {name(source, target)}"
                worst[dtype] = max(worst[dtype], report(f"{what} (PyTorch {plain:.1e})", error, max(BOUNDS[dtype], (6 if form == "gram" else 3) * plain) + rounded))
                if not all(torch.equal(bits(results[0]), bits(r)) for r in results):
                    FAILED.append(what + ": does not repeat its bits")
    # Tall, with an addend and transposed results in one buffer: without a barrier between a group's warps these are 5 to 12 % off, other bits each time.
    for shape in ((1, 3072, 2048), (1, 2816, 2048), (3, 2048, 1536)):
        for coefficients in SETS:
            x = torch.randn(shape, device=DEVICE).to(BF16)
            results = [torch.empty_like(x) for _ in range(5)]
            for result in results:
                call("newton_schulz", {"x": x}, [result], ns="standard", coefficients=coefficients, steps=5, dtype="bf16", eps=1e-7, norm_eps="add")
            want = exact(x, coefficients)
            what = f"newton_schulz {shape} standard {coefficients} bf16"
            report(what, float(((results[0].double() - want).norm(dim=(-2, -1)) / want.norm(dim=(-2, -1))).max()), BOUNDS["bf16"])
            report(what + ": its bits again", float(not all(torch.equal(bits(results[0]), bits(r)) for r in results)), 0)
    print("newton_schulz against float64, worst relative distance:", {dtype: f"{error:.1e}" for dtype, error in worst.items()})
    for shape in ((6, 40, 72), (2, 33, 33)):
        for dtype in ("fp32", "fp64"):
            x = torch.randn(shape, dtype=FP64 if dtype == "fp64" else FP32)
            device = x.to(DEVICE)
            for values in (x, device):
                result = torch.empty_like(values)
                call("newton_schulz", {"x": values}, [result], ns="gram", coefficients="you", steps=5, dtype=dtype, eps=1e-7, norm_eps="clamp")
                x = result if values is x else x
            report(f"newton_schulz {shape} {dtype}: host reference", float((x - result.cpu()).abs().max()), 1e-5 if dtype == "fp32" else 1e-12)
    x = [torch.randn(s, device="cuda", dtype=BF16) for s in ((6, 640, 1024), (640, 1024), (2, 640, 1024))]
    results, again = ([torch.zeros_like(t) for t in x] for _ in range(2))
    settings = dict(ns="gram", coefficients="keller_jordan", steps=5, dtype="fp16", eps=1e-7, norm_eps="add")
    call("newton_schulz", {"x": x}, results, **settings)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call("newton_schulz", {"x": x}, again, **settings)
    for _ in range(20):
        for t in again:
            t.zero_()
        graph.replay()
        report("newton_schulz in a graph", 0.0 if all(torch.equal(a, b) for a, b in zip(results, again)) else 1.0, 0)
    for t in x:
        t.normal_()
    graph.replay()
    call("newton_schulz", {"x": x}, results, **settings)
    report("newton_schulz in a graph, new input", 0.0 if all(torch.equal(a, b) for a, b in zip(results, again)) else 1.0, 0)
    for shape in ((2, 1408, 2048), (1, 2048, 2048)):
        for coefficients, (low, high) in BANDS.items():
            x = torch.randn(shape, device="cuda", dtype=BF16)
            result = torch.empty_like(x)
            call("newton_schulz", {"x": x}, [result], **{**settings, "coefficients": coefficients})
            got, given = torch.linalg.svdvals(result[0].double()), torch.linalg.svdvals(x[0].double())
            reached = int((given / given.norm() >= 0.003).sum())  # smaller ones need more iterations, in exact arithmetic too
            print(f"singular values {shape} {coefficients}: {got[reached - 1]:.4f} to {got[0]:.4f} ({reached} of {len(got)}; least {got[-1]:.4f} from {float(given[-1] / given.norm()):.5f})")
            report(f"singular values {shape} {coefficients}", float(max(low - got[reached - 1], got[0] - high)), 0)


def bandwidths(elements=2**28):
    """Of the kernels around Newton-Schulz; check_kernels.py measures the copy they are to be compared with."""
    from tests.gpu.check_kernels import milliseconds

    grads, momenta, updates, params = ([torch.randn(elements // 64, 64, device="cuda") for _ in range(1)] for _ in range(4))
    copies = [torch.empty(t.shape, device="cuda", dtype=BF16) for t in params]
    took = milliseconds(lambda i: call("muon_momentum", {"grads": grads, "momenta": momenta}, [*momenta, *updates], momentum=0.95, form="torch"))
    print(f"muon_momentum, fp32: {16 * elements / took / 1e6:.0f} GB/s")
    took = milliseconds(lambda i: call("muon_apply", {"params": params, "updates": updates}, [*params, *copies], lr=1e-4, weight_decay=0.1))
    print(f"muon_apply, fp32 with a bf16 copy: {14 * elements / took / 1e6:.0f} GB/s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-steps", action="store_true", help="the kernels only")
    parser.add_argument("--updates", action="store_true", help="muon_momentum and muon_apply only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: no GPU")
        return 0
    print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    torch.manual_seed(arguments.seed)
    rng = random.Random(arguments.seed)
    check_updates(rng)
    if not arguments.updates:
        check_norms(rng)
        check_newton_schulz(rng)
        bandwidths()
    if not arguments.no_steps and not arguments.updates:
        from tests.gpu.muon_steps import check_steps

        check_steps(report)
    print("failed: " + "; ".join(FAILED[:20]) if FAILED else "Muon on the GPU agrees with its references")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
