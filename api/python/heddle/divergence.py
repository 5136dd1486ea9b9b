"""Finds the first operator at which a plan leaves eager's results."""

import hashlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def _digest(tensor):
    # A clone: a single element is contiguous whatever its stride, and only stride 1 can be read as bytes.
    flat = tensor.detach().reshape(-1).clone(memory_format=torch.contiguous_format)
    return (tuple(tensor.shape), tensor.dtype, hashlib.blake2b(flat.view(torch.uint8).cpu().numpy().tobytes() if tensor.numel() else b"", digest_size=12).digest())


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
        operator, _, where = place.partition(" at ")
        # Memory that is not yet written says nothing; a number as a tensor cannot diverge, and eager may have passed it as a number, or nothing at all (generator state without dropout).
        says_nothing = operator.startswith(("aten::empty", "aten::new_empty", "aten::scalar_tensor"))
        if not says_nothing and any(tensor is not None and _digest(tensor) not in digests.seen for tensor in results):
            return operator, where
    return None
