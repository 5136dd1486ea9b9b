"""What compiling asks of a model, its batch and a configuration before there is a plan."""

import re
import warnings
import zlib

import torch

from .capture import Program, _precision_of, capture, flatten_batch
from .errors import CaptureError, HeddleError, HeddleWarning


def configured(found, batch, optimizer, schedule, batch_dims):
    """A DeepSpeed configuration under what was given in code, which wins with a warning."""
    for name, given, configured in (("optimizer", optimizer, found.optimizer), ("schedule", schedule, found.schedule)):
        if given is not None and configured is not None:
            warnings.warn(f"{name}= given in code is taken instead of the DeepSpeed configuration's", HeddleWarning, stacklevel=3)
    if schedule is None and found.schedule is not None:
        schedule = found.schedule if optimizer is None else found.schedule.for_lr(optimizer.lr)
    if found.micro_batch is not None:
        for name, tensor in flatten_batch(batch).items():
            dim = (batch_dims or {}).get(name, 0)
            if tensor.dim() > dim and tensor.shape[dim] != found.micro_batch:
                raise HeddleError(f"the DeepSpeed configuration's train_micro_batch_size_per_gpu is {found.micro_batch}, and '{name}' of the example batch has {tensor.shape[dim]} along dimension {dim}")
    return found.plan, optimizer or found.optimizer, schedule, found.accumulation


def record(model, batch, loss, device, plan):
    """(program, evaluation program or None, why there is none). Of several ranks a message about one that is missing names the line of the model."""
    sources = plan.dp > 1
    return (capture(model, batch, loss, device, plan.precision, sources=sources), *capture_evaluation(model, batch, loss, device, plan.precision, sources))


def resolved_precision(model_or_program, plan, device):
    if not isinstance(model_or_program, Program):
        return plan.precision or _precision_of(model_or_program)
    written = {key: value for key, value in re.findall(r'\b(precision|target) = "(\w+)"', model_or_program.mlir)}
    for key, asked in (("precision", plan.precision), ("target", device)):
        if asked is not None and written.get(key) != asked:
            raise HeddleError(f"the program was captured for {key} '{written.get(key)}' and '{asked}' is asked for; capture it for '{asked}'")
    return written["precision"]


def capture_evaluation(model, batch, loss, device, precision, sources):
    """The forward in `eval()`, or None and the reason: a model without a loss outside training can still be trained."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        return capture(model, batch, loss, device, precision, backward=False, sources=sources), None
    except CaptureError as error:
        return None, f"the model cannot be captured in eval(): {error}"
    finally:
        for module in training:
            module.training = True


def named_tensors(model):
    """Parameters and buffers by every name they have, with whether they are in the state dict."""
    found = {name: (tensor, True) for name, tensor in model.named_parameters(remove_duplicate=False)}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, tensor in module._buffers.items():
            if tensor is not None:
                found[f"{prefix}.{name}" if prefix else name] = (tensor, name not in module._non_persistent_buffers_set)
    return found


def fingerprint(tensor, count=256):
    """A few elements of a tensor as a number; "meta" of one without elements."""
    if tensor.is_meta:
        return "meta"
    flat = tensor.detach().flatten() if tensor.is_contiguous() else tensor.detach().select(0, 0).flatten()
    return zlib.crc32(flat[:: max(1, flat.numel() // count)].cpu().contiguous().view(torch.uint8).numpy().tobytes())
