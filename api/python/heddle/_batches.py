"""A batch, split into micro-batches of the example's shapes."""

import fractions
import re

import torch

from ._names import nearest
from .capture import flatten_batch
from .errors import HeddleError


def _settings(batch, prefix=""):
    """The entries of a batch that are no tensors: they were constants when the step was captured."""
    if isinstance(batch, torch.Tensor):
        return {}
    if isinstance(batch, dict) or isinstance(batch, (list, tuple)):
        found = {}
        for key, value in batch.items() if isinstance(batch, dict) else enumerate(batch):
            found.update(_settings(value, f"{prefix}.{key}" if prefix else str(key)))
        return found
    return {prefix: batch}


def _rebuilt(batch, parts, prefix=""):
    """`batch` with its tensors replaced by those of the same name in `parts`."""
    if isinstance(batch, torch.Tensor):
        return parts[prefix]
    if isinstance(batch, dict):
        return {key: _rebuilt(value, parts, f"{prefix}.{key}" if prefix else str(key)) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(_rebuilt(value, parts, f"{prefix}.{i}" if prefix else str(i)) for i, value in enumerate(batch))
    return batch


class Micro(dict):
    """A micro-batch: its tensors by name. `shapes` is what decides which plans could run it."""

    def __init__(self, tensors, whole):
        super().__init__(tensors)
        self._whole = whole
        self.shapes = tuple(sorted((name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors.items()))

    @property
    def parts(self):
        return [self]

    def blame(self, error):
        """There is no other rank to blame."""

    @property
    def batch(self):
        """The same in the structure that the model takes."""
        return _rebuilt(self._whole, self)


class Round:
    """The micro-batches that all ranks run together, in one plan."""

    def __init__(self, parts):
        self.parts, self._blamed = parts, 0
        self.shapes = parts[0].shapes
        for rank, part in enumerate(parts):
            if part.shapes != self.shapes:
                name, shape, theirs = next((name, shape, theirs) for (name, *shape), (_, *theirs) in zip(self.shapes, part.shapes) if shape != theirs)
                raise HeddleError(f"'{name}' has shape {shape[0]} on rank 0 and {theirs[0]} on rank {rank}: ranks run micro-batches of one shape together; order the list so, or pad")

    def blame(self, error):
        """A plan for this round is recorded from the micro-batch that the last one refused."""
        found = re.match(r"rank (\d+): ", str(error))
        self._blamed = int(found[1]) if found else 0

    @property
    def batch(self):
        return self.parts[self._blamed].batch


class Splitter:
    """Knows the example batch. `strict`: refuses every shape but the example's (dimensions that are split may be multiples); else only names, dtypes and numbers of dimensions
    are the example's, and a batch smaller than the example is one micro-batch."""

    def __init__(self, example, batch_dims, strict):
        tensors = flatten_batch(example)
        self.example = Micro(tensors, example)
        self.shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        self.settings = _settings(example)
        self.strict = strict
        self.example_is_list = isinstance(example, list)
        for name in batch_dims or {}:
            if name not in self.shapes:
                raise HeddleError(f"batch_dims names '{name}', which the example batch does not have{nearest(name, self.shapes)}")
        self.dims = {name: (batch_dims or {}).get(name, 0) for name, (shape, _) in self.shapes.items() if shape}
        for name, dim in self.dims.items():
            if not isinstance(dim, int) or not 0 <= dim < len(self.shapes[name][0]):
                raise HeddleError(f"batch_dims: '{name}' has shape {self.shapes[name][0]} and no dimension {dim}")

    def __call__(self, batch):
        """The micro-batches. A list of micro-batches is taken as it is."""
        if isinstance(batch, list) and not (self.example_is_list and not any(isinstance(part, (list, tuple)) for part in batch)):
            if not batch:
                raise HeddleError("the list of micro-batches is empty")
            if not self.strict:
                return [self._micro(self._checked(part), part) for part in batch]
            parts = [self._split(part) for part in batch]
            for i, part in enumerate(parts):
                if len(part) != 1:
                    raise HeddleError(f"micro-batch {i} of the list is {len(part)} times as large as the example batch; every one must have its size")
            return [part[0] for part in parts]
        return self._split(batch)

    def _checked(self, batch):
        """The batch's tensors by name, which are the example's in name, dtype and number of dimensions."""
        tensors = flatten_batch(batch)
        for name in tensors:
            if name not in self.shapes:
                raise HeddleError(f"the batch has '{name}', which the example batch did not have{nearest(name, self.shapes)}")
        for name in self.shapes:
            if not tensors:
                raise HeddleError(f"the batch is {type(batch).__name__} and holds no tensors; the example batch had {', '.join(self.shapes)}")
            if name not in tensors:
                raise HeddleError(f"the batch lacks '{name}', which the example batch had")
        settings = _settings(batch)
        for name in {*settings, *self.settings}:
            if settings.get(name) != self.settings.get(name):
                raise HeddleError(f"'{name}' is {settings.get(name)!r} and was {self.settings.get(name)!r} in the example batch: it is a constant of the compiled step; compile again to change it")
        for name, tensor in tensors.items():
            shape, dtype = self.shapes[name]
            if tensor.dtype != dtype:
                raise HeddleError(f"'{name}' is {tensor.dtype} and was {dtype} in the example batch")
            fixed = [i for i in range(len(shape)) if i != self.dims[name]] if self.strict and shape else []
            if tensor.dim() != len(shape) or any(tensor.shape[i] != shape[i] for i in fixed):
                raise HeddleError(f"'{name}' has shape {tuple(tensor.shape)} and the step was compiled for {shape} (dimension {self.dims.get(name, 0)} may be a multiple): compile another step for other shapes")
            if not tensor.numel():
                raise HeddleError(f"'{name}' has shape {tuple(tensor.shape)}: there is nothing in it to train on")
        return tensors

    def _micro(self, tensors, whole):
        return Micro({name: tensor.detach() for name, tensor in tensors.items()}, whole)

    def _split(self, batch):
        tensors = self._checked(batch)
        share, first = None, None
        for name, dim in self.dims.items():
            found = fractions.Fraction(tensors[name].shape[dim], self.shapes[name][0][dim])
            if found.denominator != 1 and (self.strict or found > 1):
                raise HeddleError(f"'{name}' has {tensors[name].shape[dim]} along dimension {dim}, which is no multiple of the example's {self.shapes[name][0][dim]}: drop or pad the remainder, or pass a list of micro-batches")
            if share is not None and found != share:
                raise HeddleError(f"'{name}' holds {found} of the example's size and '{first}' {share}; their batch dimensions must agree")
            share, first = found, name
        if share is None or share <= 1:
            return [self._micro(tensors, batch)]
        micros = []
        for i in range(int(share)):
            parts = {}
            for name, tensor in tensors.items():
                size = self.shapes[name][0]
                parts[name] = tensor.narrow(self.dims[name], i * size[self.dims[name]], size[self.dims[name]]) if size else tensor
            micros.append(self._micro(parts, batch))
        return micros
