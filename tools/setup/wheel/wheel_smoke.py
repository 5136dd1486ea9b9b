"""Run in an environment that has only the wheel and torch: one step, one tool."""

import subprocess
import sys

import torch

import heddle


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)

    def forward(self, x):
        return {"loss": self.linear(x).square().mean()}


def main():
    torch.manual_seed(0)
    report = heddle.check(Model(), {"x": torch.randn(3, 4)})
    if not report.bit_identical:
        sys.exit(f"not bit-identical: {report}")
    for tool in ("heddle-opt", "heddle-inspect", "heddle-run"):
        subprocess.run([f"{sys.prefix}/bin/{tool}", "--help"], check=True, stdout=subprocess.DEVNULL)
    print("wheel: works")


main()
