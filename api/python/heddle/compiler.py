"""Programs → plans, through the compiler library's C interface."""

import ctypes
import json
import os
import tempfile

import torch

from . import _native
from .errors import CompileError, GuardError, HeddleError


class _Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]

    def take(self) -> bytes:
        data = ctypes.string_at(self.data, self.size) if self.data else b""
        _native.compiler.heddle_free(ctypes.byref(self))
        return data


_native.compiler.heddle_compile.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer)]
_native.compiler.heddle_run_passes.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer)]


def compile_program(program, options, evaluation=None) -> bytes:
    """The plan's bytes. `options` are the compiler's (mode, optimizer, clip, ...); raises CompileError with operator, place and reason."""
    with tempfile.TemporaryDirectory(prefix="heddle-") as folder:
        options = dict(options)
        for name, part in (("sidecar", program), ("eval_sidecar", evaluation)):
            if part is not None and part.constants:
                part.save(os.path.join(folder, f"{name}.mlir"))
                options[name] = os.path.join(folder, f"{name}.safetensors")
        text, plan, error = program.mlir.encode(), _Buffer(), _Buffer()
        other = evaluation.mlir.encode() if evaluation is not None else None
        failed = _native.compiler.heddle_compile(text, len(text), other, len(other or b""), json.dumps(options).encode(), ctypes.byref(plan), ctypes.byref(error))
        if failed:
            raise CompileError(error.take().decode())
        return plan.take()


def run_passes(program, pipeline) -> str:
    """The program's text after a textual pass pipeline, `builtin.module(...)`."""
    text, out, error = program.mlir.encode(), _Buffer(), _Buffer()
    if _native.compiler.heddle_run_passes(text, len(text), pipeline.encode(), ctypes.byref(out), ctypes.byref(error)):
        raise CompileError(error.take().decode())
    return out.take().decode()


class Executable:
    """A loaded plan, with those of its `ranks` that are in this process: all `local` of them, or one. `run` takes tensors by input name and returns results by "kind:name" ("loss"
    for the loss). `deadline` in seconds and the folder `dumps`: as in heddle.Plan."""

    def __init__(self, plan: bytes, seed: int = 0, deadline=None, dumps=None):
        self._take(_named(_native.ops.load_plan, _tensor(plan), seed, float(deadline or 0), str(dumps or "")))

    def _take(self, native):
        self._native = native
        self.state = json.loads(native.state_names())
        self.ranks, self.local = native.ranks(), native.local()

    def sharing(self, plan: bytes, seed: int = 0):
        """Another plan on this one's state; refused where the layouts of their states differ."""
        other = object.__new__(Executable)
        other._take(self._call("load_sharing", _tensor(plan), seed))
        return other

    def _call(self, method, *args):
        return _named(getattr(self._native, method), *args)

    def set_state(self, kind, name, tensor):
        self._call("set_state", kind, name, tensor.detach())

    def get_state(self, kind, name):
        return self._call("get_state", kind, name)

    def set_scalar(self, name, value):
        self._call("set_scalar", name, float(value))

    def get_sum(self, kind, name):
        """What all ranks hold of a tensor: put together if it is sharded, else added up in their order. Ranks that are processes all ask."""
        if self.ranks == 1 or next(entry["sharded"] for entry in self.state if entry["kind"] == kind and name in entry["names"]):
            return self.get_state(kind, name)
        first, *others = self._call("get_state_ranks", kind, name)
        for other in others:
            first += other
        return first

    def run(self, section, inputs):
        """`inputs`: of one rank, or a list with those of each here. Of several ranks the loss and the counts are summed, of other results the last rank's are given."""
        if not isinstance(inputs, list):
            inputs = [inputs] * self.local
        each = self.run_ranks(section, inputs)
        if len(each) == 1:
            return each[0]
        return {**each[-1], **{name: sum_of_ranks(torch.stack([results[name] for results in each])) for name in ("loss", "output:label_count") if name in each[0]}}

    def run_ranks(self, section, inputs):
        """The results of each rank."""
        return [dict(results) for results in self._call("run_ranks", section, inputs)]

    def run_traced(self, section, inputs):
        return self._call("run_traced", section, inputs)

    def stats(self):
        return json.loads(self._call("stats"))

    def __str__(self):
        return self._call("print")


def sum_of_ranks(values):
    """The sum of one value a rank, in their dtype."""
    return (values.double() if values.is_floating_point() else values).sum().to(values.dtype)


def _tensor(data):
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _named(function, *args):
    """The call, its RuntimeError as one of Heddle's, without C++ frames."""
    try:
        return function(*args)
    except RuntimeError as error:
        message = str(error).split("\nException raised from")[0].strip()
        raise (GuardError if ": guard: this batch gives [" in message else HeddleError)(message) from None
