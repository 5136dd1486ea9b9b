"""Importing Heddle and compiling a program for a GPU leave the driver alone, so that a child that is forked afterwards can use it. Needs a GPU, as a program of its own:

PYTHONPATH=api/python HEDDLE_LIB_DIR=<folder of the shared libraries> python3 tests/gpu/test_first_cuda_call.py
"""

import os
import subprocess
import sys
import tempfile

import heddle
import heddle.compiler
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(16, 32), torch.nn.Linear(32, 4)

    def forward(self, x, y):
        return (self.last(torch.tanh(self.first(x))) - y).square().mean()


def opened():
    """The driver's devices that this process has open: cuInit opens them."""
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return [target for target in (os.readlink(link) for link in links if os.path.islink(link)) if target.startswith("/dev/nvidia")]


def main():
    batch = torch.randn(2, 16), torch.randn(2, 4)
    if len(sys.argv) > 1:
        heddle.capture(Net(), batch, device="cuda", precision="fp32").save(sys.argv[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        # PyTorch asks the driver for its devices with the first backward of a process, on whatever device.
        subprocess.run([sys.executable, __file__, f"{folder}/step.mlir"], check=True)
        program = heddle.load_program(f"{folder}/step.mlir")
    heddle.capture(Net().eval(), batch, device="cuda", precision="fp32", backward=False)
    options = {"mode": "train", "optimizer": heddle.AdamW(lr=1e-2).compiler_options({"first.weight": None, "first.bias": None, "last.weight": None, "last.bias": None}), "config": {"lr": 1e-2}}
    heddle.compiler.compile_program(program, options)
    assert not opened() and not torch.cuda.is_initialized(), opened()
    child = os.fork()
    if child == 0:
        step = heddle.compile(Net(), batch, optimizer=heddle.AdamW(lr=1e-2), device="cuda")
        losses = [step(batch).loss for _ in range(4)]
        assert opened() and losses[-1] < losses[0], losses
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    assert not opened()
    print("passed")


if __name__ == "__main__":
    sys.exit(main())
