"""heddle.check: the emitted plan, read back from disk, against eager PyTorch, bit for bit."""

import copy
import dataclasses
import os
import tempfile

import torch

from .capture import PRECISIONS, _precision_of, capture, flatten_batch, loss_of, run_model
from .compiler import Executable, compile_program
from .errors import HeddleError


@dataclasses.dataclass
class Report:
    """`gradients` maps parameter names to the largest absolute difference; `first_divergence` is (operator, place) or None; `stats` are the run's memory figures."""

    bit_identical: bool
    loss: float
    eager_loss: float
    max_abs_diff: float
    gradients: dict
    first_divergence: tuple | None
    stats: dict


def _same_bits(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (tensor.detach().reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8) for tensor in (a, b))
    return torch.equal(a, b)


def _difference(a, b):
    if a.shape != b.shape:
        return float("inf")
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0


def _on(batch, device):
    """The batch with its tensors on `device`."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: _on(value, device) for key, value in batch.items()}
    return type(batch)(_on(value, device) for value in batch) if isinstance(batch, (list, tuple)) else batch


def generator_state(device):
    """State of the generator that random operators on `device` draw from."""
    return torch.cuda.get_rng_state() if device == "cuda" else torch.get_rng_state()


def set_generator_state(device, state):
    torch.cuda.set_rng_state(state) if device == "cuda" else torch.set_rng_state(state)


def eager_step(model, batch, loss, precision, device="cpu"):
    """Loss and gradients of a copy of `model` on `device` whose floating parameters are cast to `precision`; buffers stay as they are."""
    twin, batch = copy.deepcopy(model).to(device), _on(batch, device)
    for parameter in twin.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(PRECISIONS[precision])
        parameter.grad = None
    value = loss_of(run_model(twin, batch), batch, loss)
    value.backward()
    return twin, value.detach(), {name: parameter.grad for name, parameter in twin.named_parameters() if parameter.grad is not None}


def load_state(executable, model):
    """Copies a model's parameters and persistent buffers into a plan's state, cast to the state's types."""
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    for entry in executable.state:
        if entry["kind"] in ("parameter", "master") or (entry["kind"] == "buffer" and entry.get("persistent", True)):
            name = entry["names"][0]
            if name not in tensors:
                raise HeddleError(f"the plan's {entry['kind']} '{name}' is not in the model")
            if tensors[name].is_meta:
                raise HeddleError(f"'{name}' lies on the meta device: give a model with weights")
            executable.set_state(entry["kind"], name, tensors[name])


def check(model, batch, loss=None, device=None, precision=None) -> Report:
    """Captures, compiles, writes and re-reads the plan, runs it in replay mode and compares with eager.

    Both sides start from the same state of the device's generator and use the same number of threads. `device` None: where the batch lies.
    Model and batch may lie anywhere; eager runs on copies of them on `device`.
    """
    tensors = flatten_batch(batch)
    if device is None:
        device = next(iter(tensors.values())).device.type if tensors else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise HeddleError("heddle.check for cuda runs eager PyTorch and the plan on a GPU, and this machine has none that torch can use")
    precision = precision or _precision_of(model)
    program = capture(model, batch, loss, device, precision)
    with tempfile.TemporaryDirectory(prefix="heddle-") as folder:
        path = os.path.join(folder, "step.plan")
        with open(path, "wb") as file:
            file.write(compile_program(program, {"mode": "replay"}))
        with open(path, "rb") as file:
            executable = Executable(file.read())
    load_state(executable, model)
    state = generator_state(device)
    twin, eager_loss, eager = eager_step(model, batch, loss, precision, device)
    set_generator_state(device, state)
    executable.run("replay", tensors)
    # The first run learns where each operator allocates its result; the second is the one that keeps to the plan, and the one that counts.
    set_generator_state(device, state)
    results = executable.run("replay", tensors)
    ours = {name.partition(":")[2]: tensor for name, tensor in results.items() if name.startswith("gradient:")}
    names = set(eager) | set(ours)
    gradients = {name: _difference(eager[name], ours[name]) if name in eager and name in ours else float("inf") for name in sorted(names)}
    identical = _same_bits(eager_loss, results["loss"]) and all(name in eager and name in ours and _same_bits(eager[name], ours[name]) for name in names)
    divergence = None if identical else _first_divergence(executable, model, batch, loss, precision, device, tensors, state)
    set_generator_state(device, state)
    return Report(identical, float(results["loss"]), float(eager_loss), max([abs(float(results["loss"]) - float(eager_loss)), *gradients.values()]), gradients, divergence, executable.stats())


def _first_divergence(executable, model, batch, loss, precision, device, tensors, state):
    """Runs the plan step by step beside eager's own operator stream and names the first step whose result eager never computes at that point."""
    from .divergence import first_divergence

    return first_divergence(executable, lambda: eager_step(model, batch, loss, precision, device), tensors, lambda: set_generator_state(device, state))
