"""Training with kernels beside training with captured operators and beside eager PyTorch, on a GPU.

Run: PYTHONPATH=api/python HEDDLE_LIB_DIR=<folder of the shared libraries> python3 tests/gpu/check_fused_step.py [--steps 10]

In f32 the losses of fused and captured steps must agree within 1e-5; in bf16 the fused step's must be as close to f32's as eager's are (twice their distance, and what
eager's own runs spread). Exits 1 otherwise, 0 with a line where there is no GPU.
"""

import argparse
import sys

import heddle
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

LR, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0


def model_of(dtype):
    config = transformers.LlamaConfig(vocab_size=4099, hidden_size=512, intermediate_size=1376, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2, head_dim=64,
                                      max_position_embeddings=1024, tie_word_embeddings=True)
    torch.manual_seed(0)
    with torch.device("cuda"):
        return transformers.LlamaForCausalLM(config).to(dtype).train()


def batch_of():
    ids = torch.randint(3, 4099, (2, 512), device="cuda", generator=torch.Generator("cuda").manual_seed(7))
    labels = ids.clone()
    labels[0, :100] = -100
    return {"input_ids": ids, "labels": labels}


def eager(steps, dtype):
    model = model_of(torch.float32)
    masters = [torch.nn.Parameter(p.detach().clone()) for p in model.parameters()]
    model = model.to(dtype)
    optimizer = torch.optim.AdamW(masters, lr=LR, betas=BETAS, eps=1e-8, weight_decay=DECAY, foreach=False)
    losses = []
    for _ in range(steps):
        loss = model(**batch_of(), use_cache=False).loss
        loss.backward()
        for parameter, master in zip(model.parameters(), masters):
            master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, CLIP)
        optimizer.step()
        with torch.no_grad():
            for parameter, master in zip(model.parameters(), masters):
                parameter.copy_(master)
        losses.append(float(loss))
    return losses


def planned(steps, precision, fuse):
    plan = heddle.Plan(clip=CLIP, precision=precision, fuse=fuse)
    step = heddle.compile(model_of(torch.float32), batch_of(), optimizer=heddle.AdamW(lr=LR, betas=BETAS, weight_decay=DECAY), plan=plan, device="cuda")
    print(precision, fuse, step.explain()["fusion"], f"scratch {step.explain()['memory']['scratch'] / 2**20:.0f} MiB")
    return [float(step(batch_of()).loss) for _ in range(steps)]


def far(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: no GPU")
        return 0
    with sdpa_kernel(SDPBackend.MATH):
        exact, fused = planned(args.steps, "fp32", "never"), planned(args.steps, "fp32", "auto")
    difference = max(abs(a - b) / abs(b) for a, b in zip(fused, exact))
    print(f"f32: fused and captured losses differ by {difference:.1e} relative (bound 1e-5), {exact[0]:.4f} to {exact[-1]:.4f}")
    failed = not difference <= 1e-5
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        plain, again = eager(args.steps, torch.bfloat16), eager(args.steps, torch.bfloat16)
        captured, fused = planned(args.steps, "bf16", "never"), planned(args.steps, "bf16", "auto")
    bound = 2 * far(plain, exact) + far(plain, again)
    print(f"bf16, largest distance to f32: eager {far(plain, exact):.2e}, captured {far(captured, exact):.2e}, fused {far(fused, exact):.2e} (bound {bound:.2e}); eager to itself {far(plain, again):.2e}")
    failed |= not far(fused, exact) <= bound
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
