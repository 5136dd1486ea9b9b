"""One rank of tests/e2e/test_processes.py: `process_worker.py WHAT FOLDER`, with torchrun's variables set. Also what both sides train."""

import os
import pathlib
import signal
import sys
import time

import torch

import heddle

ROWS, MICROS = 2, 2
CASES = [(zero, optimizer) for zero in (0, 1, 2, 3) for optimizer in ("adamw", "muon")]


@torch.library.custom_op("heddle_test::pass_on", mutates_args=())
def pass_on(x: torch.Tensor) -> torch.Tensor:
    """The identity; what happens beside it is up to the test."""
    if planted is not None:
        planted(x)
    return x.clone()


planted = None
pass_on.register_fake(lambda x: torch.empty_like(x))
pass_on.register_autograd(lambda context, gradient: gradient)


class Net(torch.nn.Module):
    """Sizes that no number of ranks divides; with `injured` an operator of ours between the layers."""

    def __init__(self, injured=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = torch.nn.Linear(13, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, 3)
        self.injured = injured

    def forward(self, x, y):
        x = torch.tanh(self.norm(self.first(x)))
        return (self.last(torch.ops.heddle_test.pass_on(x) if self.injured else x) - y).square().mean()


def batch(seed, rows):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 13, generator=generator), torch.randn(rows, 3, generator=generator)


def optimizer_of(name):
    adamw = heddle.AdamW(lr=1e-2)
    return adamw if name == "adamw" else heddle.Muon(lr=1e-2, adamw=adamw)


def compiled(zero, ranks, optimizer="adamw", model=None, **plan):
    return heddle.compile(model or Net(), batch(0, ROWS), optimizer=optimizer_of(optimizer), plan=heddle.Plan(zero=zero, dp=ranks, clip=0.05, **plan))


def mine(tensors, rank, ranks):
    """A rank's part of a batch; all of it where `rank` is None."""
    return tensors if rank is None else tuple(tensor.chunk(ranks)[rank] for tensor in tensors)


def trained(step, rank, ranks, updates=3):
    """Everything that a step can say, after a few updates."""
    part = lambda seed: mine(batch(seed, ROWS * MICROS * ranks), rank, ranks)  # noqa: E731
    outputs = [step(part(number)) for number in range(updates)]
    # Micro-batches of another shape: another plan on the same state.
    small = [mine(batch(7, ranks), r, ranks) for r in range(ranks)]
    outputs.append(step(small if rank is None else [small[rank]]))
    evaluated = step.evaluate(part(8))
    return {
        "numbers": [(out.loss, out.grad_norm) for out in outputs] + [(evaluated.loss, 0.0)],
        "state": step.state_dict(),
        "moments": {f"{name}.{kind}": tensor for name, kinds in step.optimizer_state_dict()["state"].items() for kind, tensor in kinds.items()},
        "gradients": step.gradients(part(9)),
        "plans": step.explain()["plans"],
    }


def main(what, folder):
    rank, ranks, folder = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), pathlib.Path(folder)
    torch.set_num_threads(1)
    results = {}
    if what == "train":
        for zero, optimizer in CASES:
            step = compiled(zero, ranks, optimizer)
            results[zero, optimizer] = trained(step, rank, ranks)
            if (zero, optimizer) == (3, "adamw"):
                step.save_checkpoint(folder / "of-processes", {"at": 4}, wait=False)
                step.wait_for_checkpoint()
                step.save_pretrained(folder / "model")
        other = compiled(3, None)
        results["extra"] = other.load_checkpoint(folder / "of-threads")
        results["resumed"] = (other.global_step, other.state_dict(), other(mine(batch(20, ROWS * ranks), rank, ranks)).loss)
        try:
            heddle.compile(Net(), batch(0, ROWS), optimizer=heddle.AdamW(lr=1e-2 * (1 + rank)), plan=heddle.Plan(zero=1))
        except heddle.HeddleError as error:
            results["mismatch"] = str(error)
        try:
            step(batch(0, 3 if rank else 2 * ROWS))
        except heddle.HeddleError as error:
            results["bad batch"] = str(error)
        torch.save(results, folder / f"rank{rank}.pt")
        return
    model = Net(injured=True)
    # A stall takes the deadline; the others are noticed at once, and the machine may be busy.
    step = compiled(3, None, model=model, deadline=8 if what == "stall" else 40, dumps=str(folder / "dumps"))
    step(batch(rank, ROWS))

    def injure(_):
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "throw":
            raise ValueError("the data is gone")
        time.sleep(1000)

    if rank == 1:
        global planted
        planted = injure
        (folder / "injured").write_text(str(time.time()))
    step(batch(rank, ROWS))


if __name__ == "__main__":
    sys.modules["process_worker"] = sys.modules["__main__"]
    main(*sys.argv[1:])
