"""A batch, split into micro-batches of the example's shapes."""

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


class Splitter:
    """Knows the example batch; `inputs` are the tensors that the program reads, as far as it reads them."""

    def __init__(self, example, inputs, batch_dims):
        tensors = flatten_batch(example)
        self.shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        self.settings = _settings(example)
        self.inputs = set(inputs)
        self.example_is_list = isinstance(example, list)
        for name in batch_dims or {}:
            if name not in self.shapes:
                raise HeddleError(f"batch_dims names '{name}', which the example batch does not have{nearest(name, self.shapes)}")
        self.dims = {name: (batch_dims or {}).get(name, 0) for name, (shape, _) in self.shapes.items() if shape}
        for name, dim in self.dims.items():
            if not isinstance(dim, int) or not 0 <= dim < len(self.shapes[name][0]):
                raise HeddleError(f"batch_dims: '{name}' has shape {self.shapes[name][0]} and no dimension {dim}")
        self.size = {self.shapes[name][0][dim] for name, dim in self.dims.items()}

    def __call__(self, batch):
        """The micro-batches, each {input name: tensor}. A list of micro-batches is taken as it is."""
        if isinstance(batch, list) and not (self.example_is_list and not any(isinstance(part, (list, tuple)) for part in batch)):
            if not batch:
                raise HeddleError("the list of micro-batches is empty")
            parts = [self._split(part) for part in batch]
            for i, part in enumerate(parts):
                if len(part) != 1:
                    raise HeddleError(f"micro-batch {i} of the list is {len(part)} times as large as the example batch; every one must have its size")
            return [part[0] for part in parts]
        return self._split(batch)

    def _split(self, batch):
        tensors = flatten_batch(batch)
        for name in tensors:
            if name not in self.shapes:
                raise HeddleError(f"the batch has '{name}', which the example batch did not have{nearest(name, self.shapes)}")
        for name in self.shapes:
            if name not in tensors:
                raise HeddleError(f"the batch lacks '{name}', which the example batch had")
        settings = _settings(batch)
        for name in {*settings, *self.settings}:
            if settings.get(name) != self.settings.get(name):
                raise HeddleError(f"'{name}' is {settings.get(name)!r} and was {self.settings.get(name)!r} in the example batch: it is a constant of the compiled step; compile again to change it")
        count, counted = None, None
        for name, dim in self.dims.items():
            factor = self._count(name, dim, tensors[name])
            if count is not None and factor != count:
                raise HeddleError(f"'{name}' holds {factor} micro-batches and '{counted}' {count}; their batch dimensions must agree")
            count, counted = factor, name
        micros = []
        for i in range(count or 1):
            parts = {}
            for name, tensor in tensors.items():
                if name in self.inputs:
                    size = self.shapes[name][0]
                    parts[name] = tensor.detach().narrow(self.dims[name], i * size[self.dims[name]], size[self.dims[name]]) if size else tensor.detach()
            micros.append(parts)
        return micros

    def _count(self, name, dim, tensor):
        """How many micro-batches `tensor` holds."""
        shape, dtype = self.shapes[name]
        if tensor.dtype != dtype:
            raise HeddleError(f"'{name}' is {tensor.dtype} and was {dtype} in the example batch")
        if tensor.dim() != len(shape) or any(a != b for i, (a, b) in enumerate(zip(tensor.shape, shape)) if i != dim):
            raise HeddleError(f"'{name}' has shape {tuple(tensor.shape)} and the step was compiled for {shape} (dimension {dim} may be a multiple): compile another step for other shapes")
        if tensor.shape[dim] == 0 or tensor.shape[dim] % shape[dim]:
            raise HeddleError(f"'{name}' has {tensor.shape[dim]} along dimension {dim}, which is no multiple of the example's {shape[dim]}: drop or pad the remainder")
        return tensor.shape[dim] // shape[dim]
