"""One rank of PyTorch's own data parallelism, a process of its own: DistributedDataParallel or FSDP2 (`fully_shard`) over gloo, with torch's optimizers. test_references.py starts
as many as there are ranks and compares Heddle with what rank 0 writes.

usage: torch_ranks.py OUT CASES, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set; CASES is JSON, a list of {how, optimizer, model, micros, steps}.
"""

import contextlib
import json
import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

ROWS = 2


class Fp64Inside(TorchFunctionMode):
    """torch.optim.Muon iterates in bf16 and models round to fp32 inside; here both stay in fp64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        raised = lambda value: torch.float64 if value is torch.float32 else value  # noqa: E731
        if func in (torch.Tensor.bfloat16, torch.Tensor.float):
            func = torch.Tensor.double
        return func(*(raised(a) for a in args), **{key: raised(value) for key, value in (kwargs or {}).items()})


def build(name):
    """(model in fp64, batch(number, micro-batches), the layers that FSDP2 shards one by one)."""
    if name == "net":
        from small import Net, rows

        model = Net().double()
        return model, lambda number, count: rows(number, ROWS * count), list(model.layers)
    from families import FAMILIES
    from reference import joined, micro_batch

    model = FAMILIES[name](1, 8)[0].double()
    return model, lambda number, count: joined([micro_batch(100 * number + i, 8 - i % 5, 1, 8) for i in range(count)]), list(model.model.layers)


def loss_of(model, micro):
    return model(**micro, use_cache=False).loss if isinstance(micro, dict) else model(*micro)


def cut(batch, parts):
    """`batch` in equal parts along its rows."""
    if isinstance(batch, dict):
        return [dict(zip(batch, part)) for part in zip(*(tensor.chunk(parts) for tensor in batch.values()))]
    return list(zip(*(tensor.chunk(parts) for tensor in batch)))


def optimizers_of(kind, parameters):
    adamw = lambda taken: torch.optim.AdamW(taken, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)  # noqa: E731
    if kind == "adamw":
        return [adamw([p for _, p in parameters])]
    matrix = lambda name, p: p.dim() == 2 and not any(part in name for part in ("embed", "lm_head"))  # noqa: E731
    matrices = [p for name, p in parameters if matrix(name, p)]
    return [torch.optim.Muon(matrices, lr=2e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), adamw([p for name, p in parameters if not matrix(name, p)])]


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def run(case, rank, world):
    model, batch, layers = build(case["model"])
    if case["how"] == "fsdp":
        for layer in layers:
            fully_shard(layer)
        wrapped = fully_shard(model)
    else:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizers, clip = optimizers_of(case["optimizer"], list(model.named_parameters())), case["clip"]
    losses, norms = [], []
    with Fp64Inside():
        for number in range(case["steps"]):
            micros = cut(cut(batch(number, world * case["micros"]), world)[rank], case["micros"])
            total = torch.zeros((), dtype=torch.float64)
            for i, micro in enumerate(micros):
                last = i + 1 == len(micros)
                if case["how"] == "fsdp":
                    wrapped.set_requires_gradient_sync(last)
                with contextlib.nullcontext() if last or case["how"] == "fsdp" else wrapped.no_sync():
                    loss = loss_of(wrapped, micro) / len(micros)
                    loss.backward()
                total += loss.detach()
            dist.all_reduce(total)
            losses.append(total.item() / world)
            norms.append(whole(torch.nn.utils.clip_grad_norm_(model.parameters(), clip or float("inf"), foreach=False)).item())
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return {"losses": losses, "norms": norms, "state": {name: whole(p.detach()).clone() for name, p in model.named_parameters()}}


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    found = [run(case, rank, world) for case in json.loads(sys.argv[2])]
    if rank == 0:
        torch.save(found, sys.argv[1])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
