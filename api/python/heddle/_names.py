"""Names that users type: a misspelt one is an error that gives the nearest known one."""

import dataclasses
import difflib

from .errors import HeddleError


def nearest(name, known):
    """`; did you mean 'x'?`, or the known names where none is near."""
    known = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), known, 1, 0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known are {', '.join(known)}" if 0 < len(known) <= 30 else ""


def options(cls):
    """A frozen dataclass whose constructor refuses unknown keywords with the nearest field."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    construct, fields = cls.__init__, [f.name for f in dataclasses.fields(cls)]

    def init(self, *args, **kwargs):
        if args:
            raise HeddleError(f"heddle.{cls.__name__} takes keywords only: {', '.join(fields)}")
        for name in kwargs:
            if name not in fields:
                raise HeddleError(f"heddle.{cls.__name__} has no option '{name}'{nearest(name, fields)}")
        construct(self, **kwargs)

    init.__wrapped__ = construct
    cls.__init__ = init
    return cls


def number(owner, name, value, low=None, high=None, *, above=False):
    """Refuses what is no finite number in [low, high) (or (low, high) with `above`)."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value and abs(value) != float("inf")
    if not real or (low is not None and (value < low or (above and value == low))) or (high is not None and value >= high):
        bounds = "" if low is None else f" {'above' if above else 'of at least'} {low}" + ("" if high is None else f" and below {high}")
        raise HeddleError(f"{owner}: {name}={value!r} is not a number{bounds}")


def choice(owner, name, value, known):
    if value is not None and value not in known:
        raise HeddleError(f"{owner}: {name}={value!r} is not one of {', '.join(known)}{nearest(value, known) if isinstance(value, str) else ''}")
