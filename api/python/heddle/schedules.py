"""Learning-rate schedules: objects that map an update's number, counted from 1, to the factor of the base lr. The arithmetic is the compiler library's, which `heddle-run` uses
too, so a plan that is saved has the same rates."""

import ctypes
import json

from . import _native
from ._names import number, options
from .compiler import _Buffer
from .errors import HeddleError

_native.compiler.heddle_schedule_factor.argtypes = [ctypes.c_char_p, ctypes.c_int64, ctypes.POINTER(ctypes.c_double), ctypes.POINTER(_Buffer)]


def _factor(config, step):
    factor, error = ctypes.c_double(), _Buffer()
    if _native.compiler.heddle_schedule_factor(json.dumps(config).encode(), step, ctypes.byref(factor), ctypes.byref(error)):
        raise HeddleError(error.take().decode())
    return factor.value


@options
class constant:
    """Rises linearly over `warmup` updates, then stays at 1."""

    warmup: int = 0

    def __post_init__(self):
        number("heddle.schedules.constant", "warmup", self.warmup, 0)

    def __call__(self, step):
        return _factor(self.config(), step)

    def config(self):
        return {"kind": "constant", "warmup": self.warmup}


class _Decaying:
    def __post_init__(self):
        owner = f"heddle.schedules.{type(self).__name__}"
        number(owner, "warmup", self.warmup, 0)
        number(owner, "total", self.total, 0, above=True)
        if self.warmup > self.total:
            raise HeddleError(f"{owner}: warmup={self.warmup} is longer than total={self.total}")

    def __call__(self, step):
        return _factor(self.config(), step)

    def config(self):
        return {"kind": type(self).__name__, "warmup": self.warmup, "total": self.total}


@options
class linear(_Decaying):
    """Rises linearly over `warmup` updates, then falls linearly to 0 at update `total`."""

    total: int
    warmup: int = 0


@options
class cosine(_Decaying):
    """Rises linearly over `warmup` updates, then falls along half a cosine to 0 at update `total`."""

    total: int
    warmup: int = 0


class deepspeed:
    """One of DeepSpeed's schedulers, as a DeepSpeed configuration names it: `settings` are {"kind": "deepspeed", "type": ..., its parameters, "lr": the optimizer's}."""

    def __init__(self, settings):
        self.settings = dict(settings)
        _factor(self.settings, 1)

    def for_lr(self, lr):
        """The same rates as factors of another base lr."""
        return deepspeed({**self.settings, "lr": lr})

    def __call__(self, step):
        return _factor(self.settings, step)

    def config(self):
        return self.settings
