"""Records one forward and backward of a model as a program of the graph dialect."""

import contextlib
import copy
import ctypes
import dataclasses
import functools
import gc
import inspect
import os
import pathlib
import traceback

import safetensors.torch
import torch

from . import _chance, _native
from .errors import CaptureError

PRECISIONS = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass
class Program:
    """A captured step: `mlir` is its text, `constants` the values that travel beside it (non-persistent buffers, host constants)."""

    mlir: str
    constants: dict

    def save(self, path):
        """Writes `path` and its sidecar (`.safetensors` instead of `.mlir`), each atomically."""
        path = pathlib.Path(path)
        _write_atomically(path.with_suffix(".safetensors"), lambda file: safetensors.torch.save_file(self.constants, file))
        _write_atomically(path, lambda file: pathlib.Path(file).write_text(self.mlir))


def _write_atomically(path, write):
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(str(temporary))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_program(path) -> Program:
    """Reads what `Program.save` wrote. Raises FileNotFoundError for a missing file."""
    path = pathlib.Path(path)
    sidecar = path.with_suffix(".safetensors")
    return Program(path.read_text(), safetensors.torch.load_file(sidecar) if sidecar.exists() else {})


def _precision_of(model):
    """The precision a model is in. One that is in several, or in a storage format, has to be told: a default would round some of it."""
    first = {}
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            first.setdefault(parameter.dtype, name)
    known = {dtype: precision for precision, dtype in PRECISIONS.items()}
    if len(first) > 1 or any(dtype not in known for dtype in first):
        found = ", ".join(f"'{name}' is {str(dtype).removeprefix('torch.')}" for dtype, name in first.items())
        raise CaptureError(f"the model's parameters give no precision to compute in ({found}): pass precision= one of {', '.join(PRECISIONS)}")
    return known[next(iter(first))] if first else "fp32"


_WRAPPERS = {"FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine", "DistributedDataParallel", "DataParallel", "OptimizedModule"}


def _refuse_wrapped(model):
    if not isinstance(model, torch.nn.Module):
        raise CaptureError(f"a {type(model).__name__} is no torch.nn.Module: give the module whose parameters are trained")
    for name, module in model.named_modules():
        # Wrappers are known by name: their packages need not be installed, and engines derive from one another.
        if _WRAPPERS & {base.__name__ for base in type(module).__mro__}:
            raise CaptureError(f"module '{name or '<root>'}' is a {type(module).__name__}: capture the plain model (.module, ._orig_mod), Heddle does the sharding and the compiling")
    for name, parameter in model.named_parameters():
        if type(parameter).__name__ == "DTensor" or type(parameter.data).__name__ == "DTensor":
            raise CaptureError(f"parameter '{name}' is a DTensor: capture the plain model, Heddle does the sharding")


def _role(model, module, module_name, name, parameter):
    """What an optimizer wants to know of a parameter (see `#graph.param` in docs/formats.md)."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    leaf = name.rpartition(".")[2]
    if isinstance(module, torch.nn.Embedding):
        return "embedding"
    if module is head or module_name in ("lm_head", "embed_out"):
        return "head" if parameter.dim() >= 2 else "bias"
    if "Norm" in type(module).__name__:
        return "norm"
    if leaf == "e_score_correction_bias":
        return "router_bias"
    if "bias" in leaf:
        return "bias"
    return {2: "matrix", 3: "stack"}.get(parameter.dim(), "other")


class _Scopes:
    """Keeps capture's module path in step with the modules that run."""

    def __init__(self, model):
        self.ids = {}
        for name, module in model.named_modules(remove_duplicate=False):
            self.ids.setdefault(module, _native.capture.heddle_capture_scope(name.encode()))
        self.handles = []

    def __enter__(self):
        push, pop, ids = _native.capture.heddle_capture_push, _native.capture.heddle_capture_pop, self.ids

        def enter(module, args):
            if module in ids:
                push(ids[module])

        def leave(module, args, output):
            if module in ids:
                pop()

        hooks = torch.nn.modules.module
        self.handles = [hooks.register_module_forward_pre_hook(enter), hooks.register_module_forward_hook(leave)]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


class _TraceModule:
    """`torch.maia`, which torch.utils.checkpoint asks for: the generator state it saves and restores is the counter of random operators."""

    _initialized = True
    _is_in_bad_fork = staticmethod(lambda: False)
    is_available = staticmethod(lambda: True)
    is_initialized = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    _get_device_index = staticmethod(lambda device, *_, **__: 0)
    manual_seed_all = staticmethod(lambda seed: None)

    class device(contextlib.nullcontext):
        pass

    @staticmethod
    def get_rng_state(device=0):
        return torch.tensor([_native.capture.heddle_capture_rng_counter()])

    @staticmethod
    def set_rng_state(state, device=0):
        _native.capture.heddle_capture_set_rng_counter(int(state[0]))


if not hasattr(torch, "maia"):
    torch._register_device_module("maia", _TraceModule)


@ctypes.CFUNCTYPE(ctypes.c_int32)
def _source_of_caller():
    frame = _chance.user_frame()
    return 0 if frame is None else _native.capture.heddle_capture_source(frame.f_code.co_filename.encode(), frame.f_lineno)


_native.capture.heddle_capture_set_source_callback(_source_of_caller)


def _meta_buffer_values(model, module, name):
    """The values of a buffer that lies on meta and is in no checkpoint (inv_freq), computed by the model's own initialisation on a stand-in of its module. None where that leaves it unset."""
    if not hasattr(model, "_init_weights"):
        return None
    stand_in = copy.copy(module)
    unset = {torch.bool: False}
    fill = lambda buffer: unset.get(buffer.dtype, float("nan") if buffer.is_floating_point() else torch.iinfo(buffer.dtype).min)  # noqa: E731
    stand_in._buffers = {key: None if b is None else torch.full(b.shape, fill(b), dtype=b.dtype) for key, b in module._buffers.items()}
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        model._init_weights(stand_in)
    value = stand_in._buffers[name]
    left = value.isnan() if value.is_floating_point() else value == fill(value)
    return None if bool(left.any()) else value


@contextlib.contextmanager
def _traced_state(model, dtype):
    """Parameters and buffers of `model` replaced by trace tensors inside the scope, and put back whatever happens."""
    saved, traced, names = [], {}, {}
    for module_name, module in model.named_modules(remove_duplicate=False):
        for kind in ("_parameters", "_buffers"):
            for name, tensor in getattr(module, kind).items():
                if tensor is not None:
                    full = f"{module_name}.{name}" if module_name else name
                    names.setdefault(id(tensor), []).append(full)
                    saved.append((module, module_name, kind, name, full, tensor))
    parameters = {}
    try:
        seen = set()
        for module, module_name, kind, name, full, tensor in saved:
            if (id(module), name) in seen:
                continue
            seen.add((id(module), name))
            if id(tensor) not in traced:
                if tensor.layout != torch.strided or tensor.is_nested:
                    raise CaptureError(f"'{full}' is sparse or nested; the captured step must be dense")
                if kind == "_parameters":
                    target = dtype if tensor.is_floating_point() else tensor.dtype
                    trace = _native.ops.capture_parameter(list(tensor.shape), list(tensor.stride()), target, names[id(tensor)], tensor.requires_grad, _role(model, module, module_name, full, tensor))
                    trace = torch.nn.Parameter(trace, requires_grad=tensor.requires_grad)
                    if tensor.requires_grad:
                        parameters[full] = trace
                else:
                    persistent = name not in module._non_persistent_buffers_set
                    value = _meta_buffer_values(model, module, name) if tensor.is_meta and not persistent else tensor
                    if value is None:
                        raise CaptureError(f"the buffer '{full}' lies on the meta device and in no checkpoint, so its values are nowhere to be found: give it real values, or make it persistent")
                    trace = _native.ops.capture_buffer(value, full, persistent)
                traced[id(tensor)] = trace
            getattr(module, kind)[name] = traced[id(tensor)]
        yield parameters
    finally:
        for module, _, kind, name, _, tensor in saved:
            getattr(module, kind)[name] = tensor


@contextlib.contextmanager
def _first_derivatives_only():
    """Refuses create_graph: a backward of the backward is not part of a training step's program."""
    saved = torch.autograd.backward, torch.autograd.grad

    def guarded(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            if inspect.signature(function).bind(*args, **kwargs).arguments.get("create_graph"):
                raise CaptureError(f"torch.autograd asked for create_graph=True: gradients of gradients are not captured. Compute such a penalty in eager PyTorch; asked {_chance.place()}")
            return function(*args, **kwargs)

        return call

    torch.autograd.backward, torch.autograd.grad = map(guarded, saved)
    try:
        yield
    finally:
        torch.autograd.backward, torch.autograd.grad = saved


@contextlib.contextmanager
def _autocast_of(target):
    """Inside it the device that captures has the autocast state of the target: Hugging Face asks for that of its tensors' device. What `torch.autocast` checks of a GPU is not asked of this machine."""
    own = "maia"
    autocast, casts, common = torch.amp.autocast_mode.autocast, torch.amp.autocast_mode, torch.cuda.amp.common
    mirror = lambda device: target if device == own else device  # noqa: E731
    saved = []

    def replace(holder, name, wrap):
        original = getattr(holder, name)
        saved.append((holder, name, original))
        setattr(holder, name, functools.wraps(original)(wrap(original)))

    def by_device(original):
        return lambda *args, **kwargs: original(*map(mirror, args), **{key: mirror(value) for key, value in kwargs.items()})

    for name in ("is_autocast_enabled", "set_autocast_enabled", "get_autocast_dtype", "set_autocast_dtype"):
        replace(torch, name, by_device)
    replace(autocast, "__init__", lambda original: lambda self, device_type, *args, **kwargs: original(self, mirror(device_type), *args, **kwargs))
    # custom_fwd(cast_inputs=...) casts tensors that lie on the named device.
    replace(casts, "_cast", lambda original: lambda value, device_type, dtype: original(original(value, own, dtype) if device_type == target else value, device_type, dtype))
    # Not is_available(): whether there is a GPU is asked of the driver, and a process that has asked cannot fork one that uses it.
    if target == "cuda" and not torch.cuda.is_initialized():
        replace(common, "amp_definitely_not_available", lambda original: lambda: False)
        replace(torch.cuda, "is_bf16_supported", lambda original: lambda *args, **kwargs: True)
    try:
        yield
    finally:
        for holder, name, original in reversed(saved):
            setattr(holder, name, original)


def _trace_batch(batch, prefix=""):
    if isinstance(batch, torch.Tensor):
        return _native.ops.capture_input(batch, prefix)
    if isinstance(batch, dict):
        return {key: _trace_batch(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(_trace_batch(value, f"{prefix}.{i}" if prefix else str(i)) for i, value in enumerate(batch))
    return batch


def flatten_batch(batch, prefix=""):
    """The tensors of a batch under the names that a program's inputs carry."""
    if isinstance(batch, torch.Tensor):
        return {prefix: batch}
    pairs = batch.items() if isinstance(batch, dict) else enumerate(batch) if isinstance(batch, (list, tuple)) else ()
    flat = {}
    for key, value in pairs:
        flat.update(flatten_batch(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def loss_of(outputs, batch, loss):
    """The scalar that backward starts from: `loss(outputs, batch)`, the model's own `.loss`, or a scalar output."""
    if loss is not None:
        return loss(outputs, batch)
    if isinstance(outputs, torch.Tensor) and outputs.dim() == 0:
        return outputs
    value = outputs.get("loss") if isinstance(outputs, dict) else getattr(outputs, "loss", None)
    if value is None:
        raise CaptureError("the model returned no loss: pass `labels` in the batch, or loss=callable(outputs, batch)")
    return value


def run_model(model, batch):
    """`model(**batch)` for a dict, `model(*batch)` for a tuple or list, `model(batch)` for a tensor."""
    # A training step has no use for the key-value cache that Hugging Face models fill by default, and it would copy every key and value.
    if isinstance(batch, dict) and "use_cache" not in batch and hasattr(getattr(model, "config", None), "use_cache") and "use_cache" in inspect.signature(model.forward).parameters:
        batch = {**batch, "use_cache": False}
    return model(**batch) if isinstance(batch, dict) else model(*batch) if isinstance(batch, (list, tuple)) else model(batch)


def capture(model, batch, loss=None, device="cpu", precision=None, *, backward=True, sources=False) -> Program:
    """Records one forward and backward of `model(**batch)` for a target device.

    Args:
      model: a torch.nn.Module, on any device, meta included; it is as before afterwards.
      batch: dict (keywords), tuple (positions) or tensor; its shapes become the program's. Integer entries may steer Python code: their values become guards.
      loss: callable(outputs, batch) -> scalar; None takes the model's own loss.
      device: "cpu" or "cuda": whose kernels the program is for.
      precision: "fp64", "fp32", "bf16", "fp16"; floating parameters are presented in it, buffers keep theirs. None: what the model has.
      backward: False records the forward only (evaluation).
      sources: True records the line of Python that called each operator.

    Raises CaptureError with operator, module path and remedy for whatever a static program cannot say.
    """
    _refuse_wrapped(model)
    precision = precision or _precision_of(model)
    if precision not in PRECISIONS:
        raise CaptureError(f"unknown precision '{precision}'; known are {', '.join(PRECISIONS)}")
    record = functools.partial(_record, model, batch, loss, device, precision, backward)
    try:
        watched = _chance.generators(model, loss)
        with _chance.HostDraws(device, _chance.HostDraws.GREATEST, watched) as draws:
            program = record(sources)
            draws.check()
        if draws.places:
            with _chance.HostDraws(device, _chance.HostDraws.LEAST, watched):
                other = record(sources)
            if other.mlir != program.mlir or any(not torch.equal(other.constants[name], value) for name, value in program.constants.items()):
                raise CaptureError("operator aten::rand draws a number on the host that decides what the step does (layer dropout?): it would decide the same in every step. "
                                   f"Set its probability to 0, or pass the decision in the batch; drawn {draws.places[0]}")
        return program
    except CaptureError as error:
        if "host generator" in str(error) and "; drawn in" not in str(error):
            with contextlib.suppress(CaptureError), _chance.Watch(watched) as watch:
                record(False)
            raise CaptureError(f"{error}; drawn {watch.place}" if watch.place else str(error)) from None
        if "(backward)" in str(error) and not sources:
            record(True)  # Raises the same with the line of the forward operator.
        raise


def _record(model, batch, loss, device, precision, backward, sources):
    engine = torch.autograd.set_multithreading_enabled(False)
    _native.ops.capture_begin(device, precision, sources)
    try:
        with _traced_state(model, PRECISIONS[precision]) as parameters, _Scopes(model), _first_derivatives_only(), _autocast_of(device), engine, torch.compiler.set_stance("force_eager"), torch.set_grad_enabled(backward):
            outputs = run_model(model, traced := _trace_batch(batch))
            value = loss_of(outputs, traced, loss)
            if value.numel() != 1:
                raise CaptureError(f"the loss has shape {tuple(value.shape)}; backward needs a scalar")
            _native.ops.capture_result("loss", "", value.detach())
            gradients = {}
            if backward and not any(parameter.requires_grad for parameter in model.parameters()):
                raise CaptureError("every parameter of the model is frozen, so there is nothing to train; call requires_grad_(True) on those that are to be")
            if backward:
                _native.ops.capture_set_backward(True)
                value.backward()
                gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
            else:
                for name, output in (outputs.items() if isinstance(outputs, dict) else ()):
                    if name != "loss" and isinstance(output, torch.Tensor) and output.device.type == "maia":
                        _native.ops.capture_result("output", name, output.detach())
            for name, gradient in gradients.items():
                _native.ops.capture_result("gradient", name, gradient)
        text, names, tensors = _native.ops.capture_finish()
        return Program(text, dict(zip(names, tensors)))
    except RuntimeError as error:
        if isinstance(error, CaptureError):
            raise
        raise CaptureError(_explain(error)) from error
    finally:
        _native.ops.capture_abort()
        # Autograd's cycles hold trace tensors; they must be gone before the next capture reuses their addresses.
        gc.collect(0)


def _explain(error):
    """The message without C++ frames, with the innermost line that is neither torch's nor Heddle's."""
    message = str(error).split("\nException raised from")[0].split("\nC++ CapturedTraceback")[0].strip()
    if message.startswith("Cannot access data pointer"):
        module = _native.capture.heddle_capture_place().decode()
        message = (f"an operator in module '{module or '<root>'}' reads a tensor's data pointer, which a captured tensor does not have: "
                   "wrap the kernel that does it in a custom operator with a fake kernel (torch.library.custom_op, register_fake)")
    torch_dir, own = os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((torch_dir, own))]
    return f"{message}\n  at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else message
