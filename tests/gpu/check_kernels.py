"""The CUDA kernels of the registry against their host references and the operators they stand for, and their bandwidth beside a device copy's.

Run: HEDDLE_LIB_DIR=<folder with libkernel_caller.so> PYTHONPATH=. python3 tests/gpu/check_kernels.py [--no-bandwidth] [--parameters 1235814400]

A kernel may differ from its reference by the rounding of f32 arithmetic and of its results. Exits 1 if one differs by more, if a run does not repeat its bits, or if a
kernel reads other numbers from device memory than from its arguments. Without a GPU it says so and exits 0.
"""

import argparse
import statistics
import sys

import torch

from tests.unit.kernels.kernel_caller import call

FAILED = []


def report(what, error, bound):
    print(f"{'ok  ' if error <= bound else 'FAIL'} {what:58} {error:.2e} (bound {bound:.2e})")
    if not error <= bound:
        FAILED.append(what)


def compare(what, got, want, scale=1.0):
    """Largest difference in units of the element type's rounding, or of a long f32 sum's, at the value or at a hundredth of the largest."""
    for i, (g, w) in enumerate(zip(got, want)):
        if g is None:
            continue
        eps = max(torch.finfo(g.dtype).eps, 2e-5)
        g, w = g.double().cpu(), w.double().cpu()
        unit = eps * (w.abs() + 1e-2 * w.abs().max()) + 1e-30
        report(f"{what} result {i}", float(((g - w).abs() / unit).max()) if g.numel() else 0.0, 1.01 * scale)
        if torch.isnan(g).any() != torch.isnan(w).any():
            FAILED.append(f"{what}: NaN on one side only")


def both(what, kernel, tensors, results, scale=1.0, read=None, **scalars):
    """Runs `kernel` on the GPU twice, on poisoned results, and on the host."""
    on = lambda value, device: [on(v, device) for v in value] if isinstance(value, list) else torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device).copy_(value)
    runs = []
    for device in ("cuda", "cuda", "cpu"):
        inputs = {name: on(value, device) for name, value in tensors.items()}
        outputs = [None if r is None else on(torch.full_like(r, float("nan") if r.is_floating_point() else 1), device) for r in results]
        call(kernel, inputs, outputs, **scalars)
        runs.append([*outputs, *(t for value in inputs.values() for t in (value if isinstance(value, list) else [value]))])
    torch.cuda.synchronize()
    compared = range(len(results)) if read is None else read
    for i in compared:
        bits = lambda t: t.reshape(-1).contiguous().view(torch.uint8)
        if runs[0][i] is not None and not torch.equal(bits(runs[0][i]), bits(runs[1][i])):
            FAILED.append(f"{what}: result {i} does not repeat its bits")
    compare(what, [runs[0][i] for i in compared], [runs[2][i] for i in compared], scale)


def shaped(shape, dtype, swapped):
    t = torch.randn(shape, dtype=torch.float32).to(dtype)
    return t.transpose(1, 2).contiguous().transpose(1, 2) if swapped else t


def check_fused():
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        name = str(dtype).split(".")[1]
        for hidden in (7, 128, 2048, 20000):
            for swapped in (False, True):
                shape = (2, 3, 5, hidden)
                make = lambda: shaped(shape, dtype, swapped)
                x, w = make(), torch.randn(hidden).to(dtype)
                tag = f"{name} {hidden}{' strided' if swapped else ''}"
                both(f"rms_norm {tag}", "rms_norm", {"x": x, "addend": make(), "weight": w}, [x, torch.empty(2, 3, 5, 1), x], eps=1e-5)
                both(f"rms_norm alone {tag}", "rms_norm", {"x": x, "weight": w}, [x, torch.empty(2, 3, 5, 1)], eps=1e-5)
                rstd = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5)
                tensors = {"dy": make(), "dy1": make(), "dy2": make(), "x": x, "weight": w, "rstd": rstd, "residual": make()}
                both(f"rms_norm_backward {tag}", "rms_norm_backward", tensors, [x, w, torch.empty(30, hidden)], read=(0, 1))
                both(f"rms_norm_backward few parts {tag}", "rms_norm_backward", {k: v for k, v in tensors.items() if k not in ("dy1", "dy2", "residual")}, [x, w, torch.empty(4, hidden)], read=(0, 1))
        for size in (6, 64, 128):
            for swapped in (False, True):
                x, dy = shaped((2, 6, 9, size), dtype, swapped), shaped((2, 6, 9, size), dtype, not swapped)
                cos, sin = (torch.randn(2, 1, 9, size).to(dtype) for _ in range(2))
                both(f"rotary {name} {size}", "rotary", {"x": x, "cos": cos, "sin": sin}, [x])
                both(f"rotary_backward {name} {size}", "rotary_backward", {"dy": dy, "cos": cos, "sin": sin}, [x])
        for shape in ((3, 1001), (5, 7, 64)):
            gate, up, dy = (4 * torch.randn(shape) for _ in range(3))
            gate, up, dy = gate.to(dtype), up.to(dtype), dy.to(dtype)
            both(f"swiglu {name} {shape}", "swiglu", {"gate": gate, "up": up}, [gate])
            both(f"swiglu_backward {name} {shape}", "swiglu_backward", {"dy": dy, "gate": gate, "up": up}, [gate, up])
        for classes in (5, 32003, 32768):
            for mean in (0, 1):
                logits = (6 * torch.randn(3, 4, classes)).to(dtype)
                labels = torch.randint(0, classes, (24,))[::2]
                labels[2] = labels[9] = -100
                loss = torch.empty(())
                both(f"cross_entropy {name} {classes}", "cross_entropy", {"logits": logits, "labels": labels}, [loss, loss, torch.empty(12), torch.empty(12)], ignore_index=-100, mean=mean)
                lse = logits.float().logsumexp(-1).view(-1)
                tensors = {"dloss": torch.tensor(0.5), "logits": logits, "labels": labels, "total_weight": torch.tensor(10.0), "lse": lse}
                both(f"cross_entropy_backward {name} {classes}", "cross_entropy_backward", tensors, [logits], ignore_index=-100, mean=mean)
        for rows, hidden in ((11, 5), (50, 2048), (50, 4104)):
            indices = torch.randint(0, 9, (3, 700 // hidden + 100))
            dy = torch.randn(*indices.shape, hidden).to(dtype)
            both(f"embedding_backward_add {name} {hidden}", "embedding_backward_add", {"base": torch.randn(rows, hidden).to(dtype), "dy": dy, "indices": indices}, [torch.empty(rows, hidden, dtype=dtype)], padding_idx=3)
    labels = torch.tensor([0, 5], device="cuda")
    loss = torch.empty(4, 2, device="cuda")
    call("cross_entropy", {"logits": torch.zeros(2, 5, device="cuda"), "labels": labels}, [loss[0, :1].view(()), loss[1, :1].view(()), loss[2], loss[3]], ignore_index=-100, mean=0)
    if not bool(loss[0, 0].isnan()):
        FAILED.append("a label that is no class is not seen")


def check_update():
    shapes = [(4, 33)] * 70 + [(8192 * 3 + 5,), (1,), (65536 * 2 + 3,), (256, 256)]
    for grad_dtype, state_dtype, copy in ((torch.float32, torch.float32, torch.bfloat16), (torch.float32, torch.float32, torch.float16), (torch.float32, torch.float32, None), (torch.bfloat16, torch.bfloat16, torch.bfloat16)):
        grads = [torch.randn(s).to(grad_dtype) for s in shapes]
        partials = torch.zeros(sum(-(-g.numel() // 65536) + 1 for g in grads), dtype=torch.float64)
        results = [torch.zeros(()), torch.zeros(()), torch.zeros((), dtype=torch.bool), partials]
        both(f"multi_grad_norm {grad_dtype}", "multi_grad_norm", {"grads": grads}, [*results[:2], None, partials], read=(0, 1), divisor=3, max_norm=1.0)
        tensors = {"params": [torch.randn(s) for s in shapes], "exp_avgs": [0.1 * torch.randn(s).to(state_dtype) for s in shapes], "exp_avg_sqs": [torch.rand(s).to(state_dtype) for s in shapes],
                   "copies": [torch.zeros(s, dtype=copy) for s in shapes] if copy else [], "grads": grads, "factor": torch.tensor(0.5), "finite": torch.tensor(True)}
        count = len(shapes) * (4 if copy else 3)
        scalars = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "lr_scale": 0.5}
        both(f"multi_adamw {grad_dtype} {state_dtype} {copy}", "multi_adamw", tensors, [], read=range(count), lr=1e-3, step=7, divisor=3, **scalars)
        # From device memory, recorded into a graph, with numbers that change between two replays.
        on = {k: [t.cuda() for t in v] if isinstance(v, list) else v.cuda() for k, v in tensors.items()}
        twin = {k: [t.clone() for t in v] if isinstance(v, list) else v.clone() for k, v in on.items()}
        numbers = {name: torch.tensor(0.0, dtype=torch.float64, device="cuda") for name in ("lr", "step", "divisor")}
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call("multi_adamw", on, [], **numbers, **scalars)
        for step in (1, 2):
            for name, value in (("lr", 1e-2 / step), ("step", step), ("divisor", 2)):
                numbers[name].fill_(value)
            graph.replay()
            call("multi_adamw", twin, [], lr=1e-2 / step, step=step, divisor=2, **scalars)
        torch.cuda.synchronize()
        if not all(torch.equal(a, b) for k in on if isinstance(on[k], list) for a, b in zip(on[k], twin[k])):
            FAILED.append("multi_adamw: numbers in device memory give other results")
        before = [t.clone() for t in on["params"]]
        on["finite"].fill_(False)
        call("multi_adamw", on, [], lr=1.0, step=1, **scalars)
        if not all(torch.equal(a, b) for a, b in zip(before, on["params"])):
            FAILED.append("multi_adamw: a step that is not finite changed parameters")


def check_loss_scale():
    """Scales, counters and factors through overflows and growth, bit for bit; Muon's gradients multiplied by what comes of it."""
    nan, inf = float("nan"), float("inf")
    for dtype, consecutive in ((torch.float32, 0.0), (torch.float64, 1.0)):
        runs = {}
        for device in ("cpu", "cuda"):
            state = [torch.tensor(1024.0, device=device), torch.tensor(0, device=device), torch.tensor(2, device=device)]
            runs[device] = []
            for norm in (3e3, inf, 5.0, nan, inf, 1.0, 2.0, 7e5, 1e-3, inf):
                made = [torch.empty((), dtype=kind, device=device) for kind in (dtype, dtype, torch.float32, torch.bool, torch.float32, torch.bool)]
                call("loss_scale", {"norm": torch.tensor(norm, dtype=dtype, device=device), "state": state}, [*made, *state], initial=1024.0, seed=0.25, max_norm=1.5, window=2.0, hysteresis=2.0,
                     consecutive_hysteresis=consecutive, min_scale=256.0)
                runs[device] += [float(value) for value in (*made, *state)]
        same = sum(a != b and not (a != a and b != b) for a, b in zip(runs["cpu"], runs["cuda"]))
        report(f"loss_scale {dtype} consecutive={consecutive}", same, 0)
    grads, momenta = torch.randn(40, 30).half(), torch.randn(40, 30)
    found = []
    for device in ("cpu", "cuda"):
        m, u = momenta.to(device, copy=True), torch.empty(40, 30, device=device)
        call("muon_momentum", {"grads": [grads.to(device)], "momenta": [m], "factor": torch.tensor(0.125, device=device)}, [m, u], momentum=0.95, divisor=3.0, nesterov=1.0)
        found.append(torch.cat([m, u]).cpu())
    report("muon_momentum with a factor", float((found[0] - found[1]).abs().max()), 0)


def check_against_eager():
    """Kernel and captured bf16 operators, each against f64: the kernel is the closer one."""
    torch.manual_seed(5)
    x, w, dy = (torch.randn(s, device="cuda", dtype=torch.bfloat16) for s in ((512, 2048), (2048,), (512, 2048)))

    def norm(x, w):
        h = x if x.dtype == torch.float64 else x.float()
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)
        return w * h.to(x.dtype)

    def gradients(f, tensors, dy, dtype):
        leaves = [t.to(dtype).requires_grad_(True) for t in tensors]
        y = f(*leaves)
        y.backward(dy.to(dtype))
        return [y.detach(), *(t.grad for t in leaves)]

    y, dx, dw = torch.empty_like(x), torch.empty_like(x), torch.empty_like(w)
    rstd = torch.empty(512, 1, device="cuda")
    call("rms_norm", {"x": x, "weight": w}, [y, rstd], eps=1e-5)
    call("rms_norm_backward", {"dy": dy, "x": x, "weight": w, "rstd": rstd}, [dx, dw, torch.empty(256, 2048, device="cuda")])
    gate, up, dz = (torch.randn(512, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    z, dgate, dup = (torch.empty_like(gate) for _ in range(3))
    call("swiglu", {"gate": gate, "up": up}, [z])
    call("swiglu_backward", {"dy": dz, "gate": gate, "up": up}, [dgate, dup])
    swiglu = lambda g, u: torch.nn.functional.silu(g) * u
    for what, f, tensors, seed, ours in (("rms_norm", norm, (x, w), dy, (y, dx, dw)), ("swiglu", swiglu, (gate, up), dz, (z, dgate, dup))):
        exact, eager = gradients(f, tensors, seed, torch.float64), gradients(f, tensors, seed, torch.bfloat16)
        for i, (o, e, t) in enumerate(zip(ours, eager, exact)):
            distance = lambda a: float((a.double() - t).norm() / t.norm())
            report(f"{what} bf16 result {i}: error / eager's error", distance(o) / distance(e), 1.0)


def milliseconds(launch, launches=10):
    """Of one launch: several recorded into a graph, so that the host's part is not measured."""
    for i in range(launches):
        launch(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(launches):
            launch(i)
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / launches)
    return statistics.median(times)


def bandwidths(parameters):
    source = torch.randn(2**30, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        target.copy_(source)  # not from a graph, whose copies go another way at two thirds of the speed
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    copied = statistics.median(times)
    ceiling = 2 * source.nbytes / copied / 1e6
    print(f"device copy of 4 GiB: {ceiling:.0f} GB/s")
    del source, target

    def line(what, launch, size):
        took = milliseconds(launch)
        print(f"{what:44} {1e3 * took:9.1f} us {size / took / 1e6:7.0f} GB/s {100 * size / took / 1e6 / ceiling:5.0f} % of a copy")

    bf16 = lambda *shape: torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    for rows in (2048, 16384):
        sets = 6 if rows == 2048 else 2
        x, r, dy, dy1, dy2 = ([bf16(rows, 2048) for _ in range(sets)] for _ in range(5))
        w, rstd, dw, partials = bf16(2048), torch.rand(rows, 1, device="cuda"), bf16(2048), torch.empty(512, 2048, device="cuda")
        one = x[0].nbytes
        line(f"rms_norm [{rows}, 2048]", lambda i: call("rms_norm", {"x": x[i % sets], "weight": w}, [r[i % sets], rstd], eps=1e-5), 2 * one)
        line(f"rms_norm + addend [{rows}, 2048]", lambda i: call("rms_norm", {"x": x[i % sets], "addend": dy[i % sets], "weight": w}, [r[i % sets], rstd, dy1[i % sets]], eps=1e-5), 4 * one)
        line(f"rms_norm_backward, 3 dy, residual [{rows}, 2048]", lambda i: call("rms_norm_backward", {"dy": dy[i % sets], "dy1": dy1[i % sets], "dy2": dy2[i % sets], "x": x[i % sets], "weight": w, "rstd": rstd, "residual": r[i % sets]}, [dy[i % sets], dw, partials]), 6 * one)
        wide = [[bf16(rows, 8192) for _ in range(3)] for _ in range(2)]
        big = wide[0][0].nbytes
        line(f"swiglu [{rows}, 8192]", lambda i: call("swiglu", {"gate": wide[i % 2][0], "up": wide[i % 2][1]}, [wide[i % 2][2]]), 3 * big)
        line(f"swiglu_backward [{rows}, 8192]", lambda i: call("swiglu_backward", {"dy": wide[i % 2][2], "gate": wide[i % 2][0], "up": wide[i % 2][1]}, [wide[i % 2][0], wide[i % 2][1]]), 5 * big)
        q = [bf16(1, rows, 32, 64).transpose(1, 2) for _ in range(sets)]
        table = bf16(1, 1, rows, 64)
        line(f"rotary [1, 32, {rows}, 64]", lambda i: call("rotary", {"x": q[i % sets], "cos": table, "sin": table}, [q[i % sets]]), 2 * q[0].nbytes)
        del x, r, dy, dy1, dy2, wide, q
    logits, labels = bf16(2048, 128256), torch.randint(0, 128256, (2048,), device="cuda")
    loss, total, lse, each = torch.empty((), device="cuda"), torch.empty((), device="cuda"), torch.empty(2048, device="cuda"), torch.empty(2048, device="cuda")
    line("cross_entropy [2048, 128256]", lambda i: call("cross_entropy", {"logits": logits, "labels": labels}, [loss, total, lse, each], ignore_index=-100, mean=0), logits.nbytes)
    ids, rows = torch.randint(0, 128256, (1, 2048), device="cuda"), bf16(1, 2048, 2048)
    weight = logits.view(-1, 2048)
    line("embedding_backward_add [128256, 2048]", lambda i: call("embedding_backward_add", {"base": weight, "dy": rows, "indices": ids}, [weight], padding_idx=-1), 3 * rows.nbytes)
    out = torch.empty_like(logits)
    line("cross_entropy_backward [2048, 128256]", lambda i: call("cross_entropy_backward", {"dloss": loss, "logits": logits, "labels": labels, "total_weight": total, "lse": lse}, [out], ignore_index=-100, mean=0), 2 * logits.nbytes)
    del logits, out
    layer = [2048 * 2048] * 2 + [512 * 2048] * 2 + [8192 * 2048] * 3 + [2048] * 2
    sizes = [128256 * 2048] + layer * 16 + [2048]
    scale = parameters / sum(sizes)
    sizes = [int(n * scale) for n in sizes]
    lists = {name: [torch.rand(n, device="cuda") for n in sizes] for name in ("params", "grads", "exp_avgs", "exp_avg_sqs")}
    copies = [torch.empty(n, device="cuda", dtype=torch.bfloat16) for n in sizes]
    elements = sum(sizes)
    line(f"multi_adamw, {len(sizes)} tensors", lambda i: call("multi_adamw", {**lists, "copies": copies}, [], lr=1e-4, step=3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1), 30 * elements)
    partials = torch.empty(sum(-(-n // 65536) + 1 for n in sizes), dtype=torch.float64, device="cuda")
    line("multi_grad_norm", lambda i: call("multi_grad_norm", {"grads": lists["grads"]}, [loss, total, None, partials], max_norm=1.0), 4 * elements)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-bandwidth", action="store_true")
    parser.add_argument("--parameters", type=int, default=1235814400)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: no GPU")
        return 0
    print(torch.cuda.get_device_name(), torch.__version__)
    torch.manual_seed(0)
    check_fused()
    check_update()
    check_loss_scale()
    check_against_eager()
    if not args.no_bandwidth:
        bandwidths(args.parameters)
    print("failed: " + "; ".join(FAILED) if FAILED else "all kernels agree with their references")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
