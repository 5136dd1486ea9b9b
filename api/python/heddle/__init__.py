"""Heddle compiles whole PyTorch training steps: record, rewrite, plan, run."""

__version__ = "0.1.0"

from .capture import Program, capture, load_program  # noqa: F401
from .checking import Report, check  # noqa: F401
from .errors import CaptureError, CompileError, GuardError, HeddleError, HeddleWarning  # noqa: F401
from . import deepspeed, schedules  # noqa: F401
from .optim import AdamW, Muon  # noqa: F401
from .plan import Plan  # noqa: F401
from .step import Step, StepOutput, compile  # noqa: F401


def __getattr__(name):
    if name == "hf":  # imports transformers
        import importlib

        return importlib.import_module(".hf", __name__)
    raise AttributeError(f"module 'heddle' has no attribute '{name}'")
