"""Learning-rate schedules: objects that map an update's number, counted from 1, to the factor of the base lr. `heddle-run` has the same three, with
its --steps as `total`."""

import math

from ._names import number, options
from .errors import HeddleError


def _warm(step, warmup):
    return step / warmup if step <= warmup else None


@options
class constant:
    """Rises linearly over `warmup` updates, then stays at 1."""

    warmup: int = 0

    def __post_init__(self):
        number("heddle.schedules.constant", "warmup", self.warmup, 0)

    def __call__(self, step):
        factor = _warm(step, self.warmup)
        return 1.0 if factor is None else factor

    def config(self):
        return {"kind": "constant", "warmup": self.warmup}


class _Decaying:
    def __post_init__(self):
        owner = f"heddle.schedules.{type(self).__name__}"
        number(owner, "warmup", self.warmup, 0)
        number(owner, "total", self.total, 0, above=True)
        if self.warmup > self.total:
            raise HeddleError(f"{owner}: warmup={self.warmup} is longer than total={self.total}")

    def _progress(self, step):
        return min(1.0, (step - self.warmup) / (self.total - self.warmup)) if self.total > self.warmup else 1.0

    def config(self):
        return {"kind": type(self).__name__, "warmup": self.warmup, "total": self.total}


@options
class linear(_Decaying):
    """Rises linearly over `warmup` updates, then falls linearly to 0 at update `total`."""

    total: int
    warmup: int = 0

    def __call__(self, step):
        factor = _warm(step, self.warmup)
        return 1 - self._progress(step) if factor is None else factor


@options
class cosine(_Decaying):
    """Rises linearly over `warmup` updates, then falls along half a cosine to 0 at update `total`."""

    total: int
    warmup: int = 0

    def __call__(self, step):
        factor = _warm(step, self.warmup)
        return 0.5 * (1 + math.cos(self._progress(step) * math.pi)) if factor is None else factor
