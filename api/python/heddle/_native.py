"""Loads Heddle's shared libraries. They are compiled for torch 2.11 and for no Python version: tensors pass through the dispatcher, the rest through ctypes."""

import ctypes
import os
import pathlib

import torch

from .errors import HeddleError

TORCH_VERSION = "2.11.0"


def library_dir() -> pathlib.Path:
    """Folder of the shared libraries: inside the wheel, or where `./dev python` says."""
    packaged = pathlib.Path(__file__).parent / "_lib"
    return packaged if packaged.is_dir() else pathlib.Path(os.environ.get("HEDDLE_LIB_DIR", packaged))


def _load(name: str) -> ctypes.CDLL:
    path = library_dir() / name
    if not path.exists():
        raise HeddleError(f"{name} is not in {library_dir()}; build it with ./dev build, or install the wheel")
    return ctypes.CDLL(str(path))


if torch.__version__.split("+")[0] != TORCH_VERSION:
    raise ImportError(f"heddle is built for torch {TORCH_VERSION}, this is torch {torch.__version__}; install torch=={TORCH_VERSION}")

# The meta kernels that exist only in Python; capture asks them for shapes.
import torch._meta_registrations  # noqa: E402,F401

capture = _load("libheddle_capture.so")
capture.heddle_capture_scope.argtypes = [ctypes.c_char_p]
capture.heddle_capture_source.argtypes = [ctypes.c_char_p, ctypes.c_int64]
capture.heddle_capture_place.restype = ctypes.c_char_p
capture.heddle_capture_rng_counter.restype = ctypes.c_int64
capture.heddle_capture_set_rng_counter.argtypes = [ctypes.c_int64]
runtime = _load("libheddle_runtime.so")
compiler = _load("libheddle_compiler.so")
ops = torch.ops.heddle
