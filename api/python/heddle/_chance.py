"""Chance that a step takes from the host while it is captured: the drawn numbers would be frozen into the program.

Every operator with a `torch.Generator` of its own is seen by capture itself. Here are the generators that Python code draws from: torch's, Python's and NumPy's default ones, every `random.Random`,
and NumPy's generators that the model, its code or the loss can reach. What nobody can see: generators made in the step from the system's entropy, NumPy's behind anything but attributes, containers and
closures, the clock, and other libraries' generators.
"""

import contextlib
import functools
import os
import pickle
import random
import sys
import threading
import types

import torch

from . import _native
from .errors import CaptureError


def user_frame():
    frame = sys._getframe(1)
    skip = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep)
    while frame is not None and (frame.f_code.co_filename.startswith(skip) or frame.f_code.co_filename == random.__file__):
        frame = frame.f_back
    return frame


def place():
    """Module path and line of the user's code that runs now."""
    module, frame = _native.capture.heddle_capture_place().decode(), user_frame()
    return f"in module '{module or '<root>'}'" + (f"\n  at {frame.f_code.co_filename}:{frame.f_lineno}" if frame else "")


_LIBRARIES = ("torch", "transformers", "heddle", "numpy", "builtins")
_MOST = 200_000  # Objects looked at; a model of a thousand modules has a fifth of that.


def _of_library(name):
    return (name or "").partition(".")[0] in _LIBRARIES


def _inside(thing):
    """What `thing` refers to, but for the code and classes of libraries."""
    if isinstance(thing, dict):
        yield from thing.values()
    elif isinstance(thing, (list, tuple, set, frozenset)):
        yield from thing
    elif isinstance(thing, functools.partial):
        yield from (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, types.FunctionType):
        for cell in thing.__closure__ or ():
            with contextlib.suppress(ValueError):  # An empty cell.
                yield cell.cell_contents
        yield from thing.__defaults__ or ()
        if not _of_library(thing.__module__):
            codes = [thing.__code__]
            for code in codes:
                yield from (thing.__globals__[name] for name in code.co_names if name in thing.__globals__)
                codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    elif isinstance(thing, type):
        if not _of_library(thing.__module__):
            yield from vars(thing).values()
    elif not isinstance(thing, (torch.Tensor, types.ModuleType)):
        yield from getattr(thing, "__dict__", {}).values()
        yield from type(thing).__mro__


def _numpy_generators(*roots):
    """NumPy's generators within reach of `roots`."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return []
    kinds = (numpy.random.Generator, numpy.random.RandomState, numpy.random.BitGenerator)
    found, seen, left = [], set(), list(roots)
    plain = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size)
    while left and len(seen) < _MOST:
        thing = left.pop()
        if id(thing) in seen or isinstance(thing, plain):
            continue
        seen.add(id(thing))
        if isinstance(thing, kinds):
            found.append(thing)
        else:
            left.extend(_inside(thing))
    return found


def _state_of(generator):
    state = generator.get_state() if hasattr(generator, "get_state") else getattr(generator, "bit_generator", generator).state
    return pickle.dumps(state)


def generators(*roots):
    """For each generator that Python code can draw from, how to read its state, by name; those of NumPy within reach of `roots`."""
    read = {"torch": lambda: torch.get_rng_state().numpy().tobytes(), "random": lambda: hash(random.getstate())}
    if torch.cuda.is_initialized():
        read["torch.cuda"] = lambda: torch.cuda.get_rng_state().numpy().tobytes()
    if "numpy" in sys.modules:
        own = sys.modules["numpy"].random.mtrand._rand
        read["numpy.random"] = functools.partial(_state_of, own)
        for number, generator in enumerate(found for found in _numpy_generators(*roots) if found is not own):
            read[f"numpy.random.{type(generator).__name__}" + (f" ({number + 1})" if number else "")] = functools.partial(_state_of, generator)
    return read


def _states(watched):
    return {name: read() for name, read in watched.items()}


def _drew_from(name):
    return CaptureError(f"the step drew from the host generator of `{name}`: the drawn numbers would be the same in every step. Draw on the device of the step's tensors, or pass the numbers in the batch")


def _not_the_steps(base):
    """Whether a module is imported between here and the caller `base`: what that draws it draws once a process (sympy does, which torch imports when it first needs it). Or a temporary file is named."""
    frame = sys._getframe(1)
    while frame is not None and frame is not base:
        if frame.f_globals.get("__name__") in ("importlib._bootstrap", "tempfile"):
            return True
        frame = frame.f_back
    return False


class HostDraws(contextlib.AbstractContextManager):
    """Chance from a host generator is refused; but layer dropout compares a number that the host draws with a probability that is mostly 0.

    `torch.rand` of one number on the host is `value` inside this scope, and a program that is the same for the least and the greatest number owes nothing to chance.
    On cpu the draw is an operator of the step all the same: eager takes it from the generator that the step's dropout draws from. `places` is where this happened.
    """

    LEAST, GREATEST = 0.0, 1.0 - 2.0**-24

    def __init__(self, target, value, watched):
        self.target, self.value, self.watched, self.places, self.instance = target, value, watched, [], None

    def __enter__(self):
        self.rand, self.before = torch.rand, _states(self.watched)
        torch.rand = self.draw
        thread, shared, frame = threading.get_ident(), random._inst, sys._getframe(1)
        self.replaced = [(kind, name, vars(kind).get(name)) for kind in (random.Random, random.SystemRandom) for name in ("random", "getrandbits")]

        def noticing(kind, name):
            original = getattr(kind, name)

            @functools.wraps(original)
            def call(generator, *args):
                if generator is not shared and threading.get_ident() == thread and self.instance is None and not _not_the_steps(frame):
                    self.instance = f"{type(generator).__module__}.{type(generator).__qualname__}", place()
                return original(generator, *args)

            return call

        for kind, name, _ in self.replaced:
            setattr(kind, name, noticing(kind, name))
        return self

    def draw(self, *args, **kwargs):
        # On meta the arguments are read as torch.rand reads them, and nothing is drawn.
        own_device = kwargs.get("device") is not None and torch.device(kwargs["device"]).type != "cpu"
        if own_device or kwargs.get("generator") is not None or kwargs.get("out") is not None:
            return self.rand(*args, **kwargs)
        shape = self.rand(*args, **{**kwargs, "device": "meta"})
        if shape.numel() != 1:
            return self.rand(*args, **kwargs)
        self.places.append(place())
        if self.target == "cpu":
            self.rand(shape.shape, dtype=shape.dtype, device="maia")
        return torch.full(shape.shape, self.value, dtype=shape.dtype, requires_grad=kwargs.get("requires_grad", False))

    def __exit__(self, *_):
        torch.rand = self.rand
        for kind, name, original in self.replaced:
            if original is None:
                delattr(kind, name)
            else:
                setattr(kind, name, original)

    def check(self):
        """Raises where another draw moved a generator."""
        after = _states(self.watched)
        for name, state in self.before.items():
            if after[name] != state:
                raise _drew_from(name)
        if self.instance is not None:
            name, where = self.instance
            raise CaptureError(f"{_drew_from(name)}; drawn {where}")


class Watch:
    """Names the module and the line of a draw, after a capture was refused for one: too slow for every capture."""

    def __init__(self, watched):
        self.watched, self.before, self.place = watched, _states(watched), ""

    def __enter__(self):
        sys.setprofile(self.event)
        return self

    def event(self, frame, kind, argument):
        if kind == "c_return" and not self.place:
            # What a generator's own code does is seen when its caller goes on; states are read outside of the profile.
            sys.setprofile(None)
            if _states(self.watched) != self.before:
                self.place = place()
            else:
                sys.setprofile(self.event)

    def __exit__(self, *_):
        sys.setprofile(None)
