"""A model captured from C++ without Python, where shapes come from capture's own functions, gets the sizes, strides and storages that Python's capture
of it gets, where they come from Python's meta kernels."""

import os
import re
import subprocess
import sys

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from heddle.capture import capture


def slice_of(x, dim, start, end=None, step=1):
    return torch.ops.aten.slice(x, dim, start, end, step)


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(16))
        setattr(self, "in", nn.Linear(12, 16))
        self.out = nn.Linear(16, 5)

    def forward(self, x, labels):
        h = getattr(self, "in")(x) * self.scale
        slice_of(h, 1, 0, 4).mul_(2.0)
        h.select(1, 5).add_(h.select(1, 6).detach())
        slice_of(h.t(), 0, 8, 12).relu_()
        kept = torch.zeros_like(h)
        slice_of(kept, 0, 1, 3).copy_(slice_of(h, 0, 0, 2))
        y = torch.where(h > 0, h, h * 0.1) + kept
        return F.cross_entropy(self.out(y), labels)


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2)
        self.groups = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, image, labels):
        h = F.max_pool2d(torch.relu(self.norm(self.conv1(image))), 2)
        h = torch.relu(self.groups(self.conv2(h)))
        h = F.adaptive_avg_pool2d(h, (2, 2))
        return F.cross_entropy(self.head(h.flatten(1)), labels)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(37, 32)
        self.norm = nn.LayerNorm(32)
        self.qkv = nn.Linear(32, 96)
        self.proj = nn.Linear(32, 32)
        self.up = nn.Linear(32, 64)
        self.down = nn.Linear(64, 32)
        self.lm_head = nn.Linear(32, 37, bias=False)

    def forward(self, ids, labels):
        batch, length = ids.shape
        x = self.tokens(ids)
        heads = self.qkv(self.norm(x)).view(batch, length, 3, 4, 8).unbind(2)
        q = heads[0].transpose(1, 2).clone()
        even, odd = slice_of(q, -1, 0, None, 2), slice_of(q, -1, 1, None, 2)
        rotated = even * 0.8 - odd * 0.6
        odd.mul_(0.8).add_(even.detach(), alpha=0.6)
        even.copy_(rotated)
        mixed = F.scaled_dot_product_attention(q, heads[1].transpose(1, 2), heads[2].transpose(1, 2), is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, length, 32))
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return F.cross_entropy(self.lm_head(x).view(-1, 37), labels.view(-1))


class Reductions(nn.Module):
    def __init__(self):
        super().__init__()
        setattr(self, "in", nn.Linear(6, 8))
        self.register_buffer("table", torch.rand(9, 8))

    def forward(self, x, ids):
        h = getattr(self, "in")(x)
        variance, mean = torch.var_mean(h, 1, unbiased=False, keepdim=True)
        h = (h - mean) * torch.rsqrt(variance + 1e-5)
        rows = self.table.index_select(0, ids.view(-1).floor_divide(2))
        if ids.max().item() < 9:
            h = h + rows.view(x.size(0), -1, 8).sum(1)
        peak = h.max(1)[0]
        return torch.logsumexp(h, [1]).mean() + peak.mean() + torch.std(h, 0).sum() + h.var()


CASES = {
    "mlp": (Mlp, {"x": torch.randn(7, 12), "labels": torch.randint(5, (7,))}),
    "cnn": (Cnn, {"image": torch.randn(3, 3, 13, 13), "labels": torch.randint(5, (3,))}),
    "transformer": (Transformer, {"ids": torch.randint(37, (3, 11)), "labels": torch.randint(37, (3, 11))}),
    "reductions": (Reductions, {"x": torch.randn(5, 6), "ids": torch.arange(20).remainder(9).view(5, 4)}),
}


# The operators that each case is there for: C++ has no meta kernel for them.
OWN = {
    "mlp": {"graph.where.self"},
    "cnn": {"graph.convolution", "graph.convolution_backward"},
    "transformer": {"graph.embedding", "graph.embedding_dense_backward", "graph.native_layer_norm", "graph.native_layer_norm_backward"},
    "reductions": {"graph.var_mean.correction", "graph.logsumexp", "graph.floor_divide.Scalar", "graph.index_select"},
}


@pytest.fixture(scope="module")
def from_cpp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captures")
    done = subprocess.run([os.path.join(os.environ["HEDDLE_LIB_DIR"], "write_captures"), folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def results_of_calls(text):
    """{call: types of its results}, a call being operator, constants and operand types. Values' and autograd's numbers are left out: C++ decomposes some functions otherwise and does not say in which order it evaluates operands."""
    calls = {}
    for line in text.splitlines():
        match = re.match(r' +(?:%\S+ = )?"(graph\.[^"]+)"\([^)]*\)(.*?)( \{graph\..*?)? : (\(.*\)) -> (.*) loc\(.*$', line)
        if match and match[1] not in ("graph.return", "graph.guard"):
            constants = "" if match[1] in ("graph.ones_like", "graph.zeros_like") else match[2]
            calls[match[1] + constants + match[4]] = match[5]
    return calls


@pytest.mark.parametrize("name", CASES)
def test_same_results(name, from_cpp):
    model, batch = CASES[name]
    ours = results_of_calls((from_cpp / f"{name}.mlir").read_text())
    theirs = results_of_calls(capture(model(), batch).mlir)
    shared = ours.keys() & theirs.keys()
    assert {call: ours[call] for call in shared} == {call: theirs[call] for call in shared}
    missing = ours.keys() - theirs.keys()
    assert len(shared) >= 0.75 * len(ours), "\n".join(sorted(missing))
    operators = {call.split(" ")[0].split("(")[0] for call in shared}
    assert OWN[name] <= operators, "\n".join(sorted(missing))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q"]))
