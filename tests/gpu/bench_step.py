"""Time and memory of one training step, Heddle beside eager PyTorch, in one run on one GPU.

Run: PYTHONPATH=api/python HEDDLE_LIB_DIR=<folder of the shared libraries> python3 tests/gpu/bench_step.py [--shapes 1x16,1x2048,4x4096] [--steps 20] [--optimizer muon]

Three sides: eager, the plan without graphs, the plan with a CUDA graph per section. All: a Llama of 1.2 B parameters, flash attention, bf16 compute, fp32 masters and moments, gradient norm clipped at 1, AdamW (eager: fused=True on the masters),
or Muon for the matrices (eager: torch.optim.Muon on the masters; both NS5 in bf16, ours also the Gram form).
`host_enqueue_ms` is the time until the last piece of the step's work was handed to the device.
"""

import argparse
import gc
import json
import statistics
import time

import heddle
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

LR, BETAS, DECAY, CLIP = 1e-4, (0.9, 0.95), 0.1, 1.0


def model_of(layers, device):
    config = transformers.LlamaConfig(vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8,
                                      head_dim=64, max_position_embeddings=8192, rope_theta=500000.0, tie_word_embeddings=True)
    torch.manual_seed(0)
    with torch.device(device):
        return transformers.LlamaForCausalLM(config).train()


def batch_of(shape, device):
    ids = torch.randint(3, 128256, shape, device=device, generator=torch.Generator(device).manual_seed(7))
    return {"input_ids": ids, "labels": ids}


class Eager:
    muon = False

    def __init__(self, layers, batch, device):
        self.model = model_of(layers, device)
        self.parameters = list(self.model.parameters())
        self.masters = [torch.nn.Parameter(p.detach().clone()) for p in self.parameters]
        for parameter in self.parameters:
            parameter.data = parameter.data.bfloat16()
        named = dict(zip((name for name, _ in self.model.named_parameters()), self.masters))
        matrices = [m for name, m in named.items() if self.muon and m.dim() == 2 and "embed" not in name]
        rest = [m for m in self.masters if all(m is not matrix for matrix in matrices)]
        self.optimizers = [torch.optim.AdamW(rest, lr=LR, betas=BETAS, eps=1e-8, weight_decay=DECAY, fused=True)]
        if matrices:
            self.optimizers.append(torch.optim.Muon(matrices, lr=LR, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"))

    def __call__(self, batch):
        loss = self.model(**batch, use_cache=False).loss
        loss.backward()
        for parameter, master in zip(self.parameters, self.masters):
            master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(self.masters, CLIP)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.masters)
        return loss.detach()

    def planned(self):
        return {}

    enqueue_ms = None


class EagerMuon(Eager):
    muon = True


class Heddle:
    cuda_graph = False
    more = {}
    adamw = heddle.AdamW(lr=LR, betas=BETAS, weight_decay=DECAY)
    optimizer = adamw

    def __init__(self, layers, batch, device):
        model = model_of(layers, device)
        start = time.time()
        self.step = heddle.compile(model, batch, optimizer=self.optimizer, plan=heddle.Plan(clip=CLIP, precision="bf16", cuda_graph=self.cuda_graph, **self.more),
                                   device=device)
        self.compile_s = time.time() - start

    def __call__(self, batch):
        out = self.step(batch)
        self.enqueue_ms = out.enqueue_ms
        return out.loss

    def planned(self):
        stats = self.step._executable.stats()
        return {kind: stats[f"{kind}_bytes"] / 2**30 for kind in ("state", "constant", "input", "scratch", "vendor_workspace")}


class HeddleGraph(Heddle):
    cuda_graph = "auto"


class HeddleMuon(HeddleGraph):
    optimizer = heddle.Muon(lr=LR, adamw=Heddle.adamw, weight_decay=DECAY, momentum_form="ema", norm_eps="clamp")


class HeddleMuonStandard(HeddleGraph):
    optimizer = heddle.Muon(lr=LR, adamw=Heddle.adamw, weight_decay=DECAY, momentum_form="ema", norm_eps="clamp", ns="standard")


class HeddleMuonNarrow(HeddleMuon):
    """Gradients rounded as eager's are, which takes half the memory for them."""

    more = {"accumulate_dtype": "bf16"}


SIDES = {"adamw": (Eager, Heddle, HeddleGraph), "muon": (EagerMuon, HeddleMuon, HeddleMuonStandard, HeddleMuonNarrow)}


def used_bytes(device):
    if device != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def measure(kind, layers, shape, steps, device):
    cuda = device == "cuda"
    synchronize = torch.cuda.synchronize if cuda else lambda: None
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = used_bytes(device)
    batch = batch_of(shape, device)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION if cuda else SDPBackend.MATH):
        step = kind(layers, batch, device)
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        losses = [float(step(batch)) for _ in range(4)]
        times, returns, enqueues = [], [], []
        for _ in range(steps):
            synchronize()
            start = time.perf_counter()
            loss = step(batch)
            returns.append(time.perf_counter() - start)
            enqueues.append(returns[-1] if step.enqueue_ms is None else step.enqueue_ms / 1e3)
            synchronize()
            times.append(time.perf_counter() - start)
    times.sort()
    result = {
        "side": kind.__name__,
        "batch": shape[0],
        "sequence": shape[1],
        "steps": steps,
        "median_ms": 1e3 * statistics.median(times),
        "p10_ms": 1e3 * times[len(times) // 10],
        "p90_ms": 1e3 * times[-1 - len(times) // 10],
        "host_enqueue_ms": 1e3 * statistics.median(enqueues),
        "peak_gib": (torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0) + sum(step.planned().values()),
        "planned_gib": {kind: round(size, 2) for kind, size in step.planned().items()},
        "graphs": {name: state.split(":")[0] for name, state in step.step.explain()["cuda_graph"].items()} if hasattr(step, "step") else {},
        "workspace_gib": step.step._executable.stats()["workspace_high_water"] / 2**30 if hasattr(step, "step") else 0.0,
        "device_used_gib": (used_bytes(device) - before) / 2**30,
        "first_losses": losses,
        "last_loss": float(loss),
        "compile_s": getattr(step, "compile_s", None),
    }
    print(json.dumps({key: round(value, 3) if isinstance(value, float) and not key.endswith("loss") else value for key, value in result.items()}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", default="1x16,1x2048,4x4096", help="batch x sequence, comma separated")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--optimizer", choices=SIDES, default="adamw")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    if args.device == "cuda":
        print(torch.cuda.get_device_name(), torch.__version__, transformers.__version__, flush=True)
    for shape in args.shapes.split(","):
        for kind in SIDES[args.optimizer]:
            try:
                measure(kind, args.layers, tuple(map(int, shape.split("x"))), args.steps, args.device)
            except (heddle.HeddleError, RuntimeError) as error:
                print(f"{kind.__name__} {shape}: {type(error).__name__}: {' '.join(str(error).split())[:600]}", flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
