"""DeepSpeed configurations as Heddle's options. What a key means is decided in the compiler library, which `heddle-opt --config` uses too."""

import ctypes
import dataclasses
import json
import os
import pathlib
import warnings

from . import _native
from .compiler import _Buffer
from .errors import HeddleError, HeddleWarning
from .optim import AdamW, Muon
from .plan import Plan
from .schedules import deepspeed as _schedule

_native.compiler.heddle_read_deepspeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer)]


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What a configuration says: `plan`; `optimizer` and `schedule`, each None where it names none; `micro_batch` and `accumulation`, None where it does not fix them."""

    plan: Plan
    optimizer: object
    schedule: object
    micro_batch: int | None
    accumulation: int | None


def is_configuration(plan):
    return isinstance(plan, (dict, str, os.PathLike))


def read(config, *, auto=None) -> Configuration:
    """Reads a path or a dict with DeepSpeed's keys.

    `auto`: values by key path for what the configuration leaves to a Trainer ("auto"); without one "auto" is an error. Keys without effect are HeddleWarnings; what cannot be
    honoured, and unknown keys, are HeddleErrors.
    """
    name = "the dict" if isinstance(config, dict) else str(config)
    if isinstance(config, dict):
        try:
            text = json.dumps(config)
        except (TypeError, ValueError) as error:
            raise HeddleError(f"the DeepSpeed configuration cannot be written as JSON: {error}") from None
    else:
        try:
            text = pathlib.Path(config).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise HeddleError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
    world = int(os.environ.get("WORLD_SIZE", "1"))
    out, error, text = _Buffer(), _Buffer(), text.encode()
    context = json.dumps({"world_size": world, "auto": auto or {}}).encode()
    if _native.compiler.heddle_read_deepspeed(text, len(text), context, ctypes.byref(out), ctypes.byref(error)):
        raise HeddleError(f"{name}: {error.take().decode()}")
    found = json.loads(out.take())
    for message in found["warnings"]:
        warnings.warn(f"{name}: {message}", HeddleWarning, stacklevel=3)
    options = found["plan"]
    if world > 1:
        options.setdefault("dp", world)
    batch = found["batch"]
    schedule = None if found["schedule"] is None else _schedule(found["schedule"])
    return Configuration(Plan(**options), _optimizer(name, found["optimizer"]), schedule, batch["micro_batch"], batch["accumulation"])


def _optimizer(name, options):
    if options is None:
        return None
    kind, options = options["kind"], {key: value for key, value in options.items() if key != "kind"}
    if kind == "adamw":
        return AdamW(**{**options, "betas": tuple(options["betas"])})
    adamw = options.pop("adamw")
    return Muon(**options, adamw=AdamW(**{**adamw, "betas": tuple(adamw["betas"])}))
