"""Whole steps with heddle.Muon (bf16, fp32 masters) for check_muon.py: as a CUDA graph and without, and beside eager PyTorch with a Muon written here and with torch.optim.Muon.

In fp32 what differs is Newton-Schulz alone; in bf16 the gradients differ by its rounding, which Newton-Schulz enlarges, so both sides are measured from the fp32 step.
"""

import contextlib

import heddle
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

LR, ADAMW_LR, DECAY, CLIP = 2e-2, 1e-3, 0.1, 0.5


def model_of(device):
    config = transformers.LlamaConfig(vocab_size=512, hidden_size=256, intermediate_size=680, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).to(device).train()


def batches(count, device, rows=4, length=128):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        ids = torch.randint(3, 512, (rows, length), generator=generator).to(device)
        yield {"input_ids": ids, "labels": ids}


def is_matrix(name, parameter):
    return parameter.dim() >= 2 and "embed" not in name and "lm_head" not in name


def orthogonal(matrix, eps=1e-7):
    """Keller Jordan's iteration in float64."""
    wide = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T).double()
    x = wide / (wide.norm() + eps)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x if matrix.shape[0] <= matrix.shape[1] else x.T).to(matrix.dtype)


class OwnMuon:
    """m = 0.95 m + g; p = p (1 - lr decay) - lr scale NS(g + 0.95 m), all but NS in fp32."""

    def __init__(self, parameters):
        self.momenta = [(p, torch.zeros_like(p)) for p in parameters]

    @staticmethod
    def scale(rows, columns):
        return 0.2 * max(rows, columns) ** 0.5

    @torch.no_grad()
    def step(self, raw):
        for (parameter, momentum), gradient in zip(self.momenta, raw):
            momentum.mul_(0.95).add_(gradient)
            update = orthogonal(gradient + 0.95 * momentum)
            parameter.mul_(1 - LR * DECAY).sub_(update * LR * self.scale(*update.shape))


class OriginalScale(OwnMuon):
    @staticmethod
    def scale(rows, columns):
        return max(1, rows / columns) ** 0.5


class TorchMuon:
    def __init__(self, parameters):
        self.parameters = parameters
        self.optimizer = torch.optim.Muon(parameters, lr=LR, weight_decay=DECAY)

    def step(self, raw):
        for parameter, gradient in zip(self.parameters, raw):
            parameter.grad = gradient
        self.optimizer.step()


def eager(steps, device, muon, dtype):
    """Losses, and the masters after every step."""
    model = model_of(device)
    names = [name for name, _ in model.named_parameters()]
    masters = [torch.nn.Parameter(p.detach().clone()) for p in model.parameters()]
    model = model.to(dtype)
    matrices = [m for name, m in zip(names, masters) if is_matrix(name, m)]
    rest = [m for name, m in zip(names, masters) if not is_matrix(name, m)]
    muon = muon(matrices)
    adamw = torch.optim.AdamW(rest, lr=ADAMW_LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=DECAY, foreach=False)
    losses, history = [], []
    for batch in batches(steps, device):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        for parameter, master in zip(model.parameters(), masters):
            master.grad, parameter.grad = parameter.grad.float(), None
        raw = [m.grad.clone() for m in matrices]
        torch.nn.utils.clip_grad_norm_(masters, CLIP, foreach=False)
        adamw.step()
        muon.step(raw)
        with torch.no_grad():
            for parameter, master in zip(model.parameters(), masters):
                parameter.copy_(master)
        losses.append(loss.item())
        history.append({name: m.detach().clone() for name, m in zip(names, masters)})
    return losses, history


def planned(steps, device, settings, precision="bf16", schedule=False, **plan):
    optimizer = heddle.Muon(lr=LR, adamw=heddle.AdamW(lr=ADAMW_LR, betas=(0.9, 0.95), weight_decay=DECAY), weight_decay=DECAY, **settings)
    step = heddle.compile(model_of(device), next(batches(1, device)), optimizer=optimizer, schedule=heddle.schedules.cosine(total=20, warmup=3) if schedule else None, plan=heddle.Plan(clip=CLIP, precision=precision, **plan), device=device)
    losses, history = [], []
    for batch in batches(steps, device):
        losses.append(step(batch).loss)
        history.append({name: t.clone() for name, t in step.state_dict().items()})
    return losses, history, step


def distances(ours, theirs, start):
    """Of the first step: of Muon's updates relative to themselves, of AdamW's parameters to the step they took."""
    matrices = rest = 0.0
    for name, before in start.items():
        a, b = ours[name].to(before), theirs[name].to(before)
        moved = (b - before * (1 - LR * DECAY)) if is_matrix(name, before) else b - before
        away = float((a - b).double().norm() / moved.double().norm())
        matrices, rest = (max(matrices, away), rest) if is_matrix(name, before) else (matrices, max(rest, away))
    return matrices, rest


def check_steps(report, device="cuda", steps=8):
    torch.backends.cuda.matmul.allow_tf32 = False
    start = {name: p.detach() for name, p in model_of(device).named_parameters()}
    attention = lambda backend: sdpa_kernel(backend) if device == "cuda" else contextlib.nullcontext()  # noqa: E731
    torchs = {"ns": "standard", "ns_dtype": "bf16", "norm_eps": "clamp", "momentum_form": "ema", "scale": "original"}
    with attention(SDPBackend.MATH):
        truth = eager(steps, device, OwnMuon, torch.float32)
        # bf16 iterates: no farther from the truth than PyTorch's own.
        original = eager(steps, device, OriginalScale, torch.float32)
        torchs_history = eager(steps, device, TorchMuon, torch.float32)
        torchs_error = distances(torchs_history[1][0], original[1][0], start)[0]
        print(f"fp32 step, torch.optim.Muon in bf16: first updates {torchs_error:.1e} from those in float64")
        sides = {
            "gram fp32": ({"ns": "gram"}, truth, 5e-4),
            "gram fp16": ({"ns": "gram", "ns_dtype": "fp16"}, truth, 4e-2),
            "standard bf16": ({"ns": "standard", "ns_dtype": "bf16"}, truth, 1.25 * torchs_error),
            "as torch.optim.Muon": (torchs, original, 1.25 * torchs_error),
            "beside torch.optim.Muon": (torchs, torchs_history, 2.25 * torchs_error),
        }
        for what, (settings, (eager_losses, eager_history), bound) in sides.items():
            losses, history, _ = planned(steps, device, settings, precision="fp32")
            matrices, rest = distances(history[0], eager_history[0], start)
            drift = max(abs(a - b) / b for a, b in zip(losses, eager_losses))
            print(f"fp32 step, {what}: first updates {matrices:.1e}, AdamW's {rest:.1e}; losses {losses[0]:.4f} to {losses[-1]:.4f}, farthest from eager's {drift:.1e}", flush=True)
            report(f"fp32 step, {what}: Muon's updates", matrices, bound)
            report(f"fp32 step, {what}: AdamW's updates", rest, 2e-3)
            report(f"fp32 step, {what}: losses", drift, 1e-2)
    with attention(SDPBackend.FLASH_ATTENTION):
        eager_losses, eager_history = eager(steps, device, OwnMuon, torch.bfloat16)
        theirs = distances(eager_history[0], truth[1][0], start)
        for fuse in ("never", "auto"):
            losses, history, _ = planned(steps, device, {"ns": "gram"}, fuse=fuse)
            ours = distances(history[0], truth[1][0], start)
            drift = max(abs(a - b) / b for a, b in zip(losses, truth[0]))
            print(f"bf16 step, fuse={fuse}: first updates from fp32's {ours[0]:.1e} (eager's {theirs[0]:.1e}), AdamW's {ours[1]:.1e} ({theirs[1]:.1e}); losses {losses[0]:.4f} to {losses[-1]:.4f}, farthest {drift:.1e}", flush=True)
            report(f"bf16 step, fuse={fuse}: Muon's updates, within twice eager's distance to fp32's", ours[0] / theirs[0], 2)
            report(f"bf16 step, fuse={fuse}: AdamW's updates, within twice eager's distance to fp32's", ours[1] / theirs[1], 2)
            report(f"bf16 step, fuse={fuse}: losses", drift, 3e-2)
    if device != "cuda":
        return
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        found = [planned(steps, device, {"ns": "gram"}, schedule=True, cuda_graph=graph) for graph in (False, True)]
    torch.use_deterministic_algorithms(False)
    states = {name: state.split(":")[0].split()[0] for name, state in found[1][2].explain()["cuda_graph"].items()}
    print(f"step as a graph: {states}, Newton-Schulz {found[1][2].explain()['newton_schulz']}")
    report("step as a graph: it is one", sum(states[name] != "yes" for name in ("micro_first", "boundary")), 0)
    report("step as a graph: losses", float(found[0][0] != found[1][0]), 0)
    report("step as a graph: parameters", sum(not torch.equal(a[name], b[name]) for a, b in zip(found[0][1], found[1][1]) for name in a), 0)
