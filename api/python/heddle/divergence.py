"""Finds the first operator at which a plan leaves eager's results."""

import hashlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def _digest(tensor):
    tensor = tensor.detach().contiguous()
    return (tuple(tensor.shape), tensor.dtype, hashlib.blake2b(tensor.reshape(-1).view(torch.uint8).cpu().numpy().tobytes() if tensor.numel() else b"", digest_size=12).digest())


class _Digests(TorchDispatchMode):
    """The operators eager runs, with a digest of each result."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.seen.add(_digest(tensor))
        return result


def first_divergence(executable, eager, inputs, rewind):
    """(operator, place) of the first step of the plan with a result that eager has nowhere, `rewind` setting the generator back before each; None where every step's result is also eager's."""
    rewind()
    with _Digests() as digests:
        eager()
    rewind()
    for _, place, results in executable.run_traced("replay", inputs):
        if any(tensor is not None and _digest(tensor) not in digests.seen for tensor in results):
            operator, _, where = place.partition(" at ")
            return operator, where
    return None
