"""Run in an environment that has only the wheel and torch: one step on every device there is, every tool."""

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
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        torch.manual_seed(0)
        report = heddle.check(Model().to(device), {"x": torch.randn(3, 4).to(device)})
        if not report.bit_identical:
            sys.exit(f"not bit-identical on {device}: {report}")
    for tool in ("heddle-opt", "heddle-inspect", "heddle-run"):
        subprocess.run([f"{sys.prefix}/bin/{tool}", "--help"], check=True, stdout=subprocess.DEVNULL)
    print(f"wheel: works with Python {sys.version.split()[0]}, torch {torch.__version__}")


main()
