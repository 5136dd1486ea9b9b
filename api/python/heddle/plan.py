"""heddle.Plan: how a step is to be spread, rounded and clipped."""

import os
import re

import torch

from ._names import choice, nearest, number, options
from .capture import PRECISIONS
from .errors import HeddleError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

# DeepSpeed's parameters of a dynamic loss scale, their defaults and the least that each may be.
_LOSS_SCALE = {"initial_scale_power": (16, 0), "loss_scale_window": (1000, 1), "hysteresis": (2, 1), "consecutive_hysteresis": (False, None), "min_loss_scale": (1, 0)}


@options
class Plan:
    """What the compiler decides by.

    Args:
      zero, dp, ep, sp: ZeRO stage and the sizes of the data, expert and sequence axes. Without a launcher the ranks are threads of this process, on the CPU, and a batch is that of all
        ranks. Under torchrun a process is a rank, with the GPU of LOCAL_RANK on "cuda", and a batch is its own; dp=None is the number of processes.
      clip: maximum of the global gradient norm; gradients are multiplied by min(1, clip / (norm + 1e-6)). None: no clipping.
      precision: "fp64", "fp32", "bf16", "fp16"; None: the model's own.
      reduce_dtype, accumulate_dtype, master_dtype: None is max(fp32, precision). One rank reduces nothing; stages 0 and 1 send accumulators, by default in no narrower dtype than they have.
      memory: bytes, or a string such as "70GiB", that the plan may use per rank; None: what the device has.
      unshard: True lets ZeRO-3 keep parameters gathered between forward and backward where that saves time and `memory` allows.
      prefetch, max_live: ZeRO-3 gathers ahead of use until `prefetch` elements are on their way, and not while `max_live` elements are gathered; None: 5e8, and no limit.
      reducing: elements of gradients that may be on their way to their ranks while work goes on; None: 5e8.
      costs: path of what `heddle-run --measure` wrote, by which collectives are placed; None: a table of devices. Every rank needs the same.
      overlap: True lets independent work run at the same time; it never changes results.
      cuda_graph: "auto" runs each section of the plan as a CUDA graph where it can be one (`explain()` says which and why not); True makes a reason against it an error; False: none.
      fuse: "auto" runs whole functions (norms, rotary embedding, SwiGLU, cross entropy, the update) as one kernel each on CUDA, which rounds less often than PyTorch's
        operators do; "always" also on the CPU, whose kernels are slow references; "never".
      deterministic: True makes sure that only deterministic kernels run: on CUDA it needs torch.use_deterministic_algorithms(True), on the CPU all of them are.
      loss_scale: of precision "fp16", whose backward pass begins with it so that small gradients do not vanish. A number: always that. A dict with any of DeepSpeed's
        "initial_scale_power" (16), "loss_scale_window" (1000), "hysteresis" (2), "consecutive_hysteresis" (False) and "min_loss_scale" (1): halved where a gradient
        overflows, which skips the update, and doubled after so many finite steps in a row. None: these defaults.
      loss_average: "tokens" averages over the labels of all micro-batches, "batches" over micro-batches; None: tokens where the loss is a masked cross-entropy mean.
      seed: of the step's random operators.
      strict: True makes a batch of other shapes, or one that gives Python other values than the example did, an error. False compiles another plan for it, on the same state.
      max_plans: how many plans a step may come to hold that way.
      deadline: seconds without progress after which ranks that wait for another one give up, with one message on all; None: HEDDLE_DEADLINE of the environment, else 60.
      dumps: folder for every rank's flight record of a failed run, which heddle-inspect reads; None: HEDDLE_DUMPS of the environment, else none are written.
    """

    zero: int = 0
    dp: int | None = None
    ep: int = 1
    sp: int = 1
    clip: float | None = None
    precision: str | None = None
    reduce_dtype: str | None = None
    accumulate_dtype: str | None = None
    master_dtype: str | None = None
    memory: int | str | None = None
    unshard: bool = True
    prefetch: int | None = None
    max_live: int | None = None
    reducing: int | None = None
    costs: str | None = None
    overlap: bool = True
    cuda_graph: str | bool = "auto"
    fuse: str = "auto"
    deterministic: bool = False
    loss_scale: float | dict | None = None
    loss_average: str | None = None
    seed: int = 0
    strict: bool = False
    max_plans: int = 16
    deadline: float | None = None
    dumps: str | None = None

    def __post_init__(self):
        if self.zero not in (0, 1, 2, 3):
            raise HeddleError(f"heddle.Plan: zero={self.zero!r} is no ZeRO stage; known are 0, 1, 2, 3")
        for axis in ("dp", "ep", "sp"):
            size = getattr(self, axis)
            if size is None and axis == "dp":
                continue
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise HeddleError(f"heddle.Plan: {axis}={size!r} is not a number of ranks")
        if self.clip is not None:
            number("heddle.Plan", "clip", self.clip, 0, above=True)
        for name in ("precision", "reduce_dtype", "accumulate_dtype", "master_dtype"):
            choice("heddle.Plan", name, getattr(self, name), PRECISIONS)
        if self.deadline is not None:
            number("heddle.Plan", "deadline", self.deadline, 0, above=True)
        if self.dumps is not None and not isinstance(self.dumps, (str, os.PathLike)):
            raise HeddleError(f"heddle.Plan: dumps={self.dumps!r} is no folder")
        for name, least in (("prefetch", 0), ("max_live", 0), ("reducing", 1)):
            elements = getattr(self, name)
            if elements is not None and (not isinstance(elements, int) or isinstance(elements, bool) or elements < least):
                raise HeddleError(f"heddle.Plan: {name}={elements!r} is not a number of elements of at least {least}")
        choice("heddle.Plan", "fuse", self.fuse, ("auto", "always", "never"))
        choice("heddle.Plan", "loss_average", self.loss_average, ("tokens", "batches"))
        if self.cuda_graph not in ("auto", True, False):
            raise HeddleError(f'heddle.Plan: cuda_graph={self.cuda_graph!r} is not "auto", True or False')
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise HeddleError(f"heddle.Plan: seed={self.seed!r} is not an integer in [0, 2**63)")
        if not isinstance(self.max_plans, int) or isinstance(self.max_plans, bool) or self.max_plans < 1:
            raise HeddleError(f"heddle.Plan: max_plans={self.max_plans!r} is not a number of plans of at least 1")
        self.memory_bytes()
        self._check_loss_scale()

    def _check_loss_scale(self):
        owner, scale = "heddle.Plan: loss_scale", self.loss_scale
        if not isinstance(scale, dict):
            if scale is not None:
                number("heddle.Plan", "loss_scale", scale, 0, above=True)
            return
        for name, value in scale.items():
            if name not in _LOSS_SCALE:
                raise HeddleError(f"{owner} has no '{name}'{nearest(name, _LOSS_SCALE)}")
            low = _LOSS_SCALE[name][1]
            if low is None:
                if not isinstance(value, bool):
                    raise HeddleError(f"{owner}: {name}={value!r} is not True or False")
                continue
            number(owner, name, value, low, above=name == "min_loss_scale")
            if name in ("loss_scale_window", "hysteresis") and value != int(value):
                raise HeddleError(f"{owner}: {name}={value!r} is no number of steps")
        found = self.loss_scale_settings()
        number(owner, "initial_scale_power", found["initial_scale_power"], 0, 128)
        if found["min_loss_scale"] > 2.0 ** found["initial_scale_power"]:
            raise HeddleError(f"{owner}: min_loss_scale={found['min_loss_scale']} is above the initial scale, 2**{found['initial_scale_power']}")

    def loss_scale_settings(self):
        """What the compiler is told: a number, or all of a dynamic scale's parameters; None where the precision needs none."""
        if isinstance(self.loss_scale, dict) or (self.loss_scale is None and self.precision == "fp16"):
            found = {name: default for name, (default, _) in _LOSS_SCALE.items()} | (self.loss_scale or {})
            return {name: int(value) if name in ("loss_scale_window", "hysteresis") else value for name, value in found.items()}
        return self.loss_scale

    def memory_bytes(self):
        """The budget in bytes, or None."""
        if self.memory is None:
            return None
        if isinstance(self.memory, int) and not isinstance(self.memory, bool) and self.memory > 0:
            return self.memory
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?B?)\s*", self.memory) if isinstance(self.memory, str) else None
        if not match or match[2] not in _UNITS:
            raise HeddleError(f'heddle.Plan: memory={self.memory!r} is neither bytes nor text such as "70GiB"')
        return int(float(match[1]) * _UNITS[match[2]])

    def refuse_unsupported(self, device, processes=1):
        """Raises for what this version cannot honour. `processes`: how many the launcher has started."""
        for name, value, what in (("ep", self.ep, "experts"), ("sp", self.sp, "sequences")):
            if value != 1:
                raise HeddleError(f"heddle.Plan: {name}={value} spreads {what} over ranks, which this version does not do; use {name}=1")
        if processes > 1 and self.dp != processes:
            raise HeddleError(f"heddle.Plan: dp={self.dp}, and the launcher has started {processes} processes, each of which is a rank; leave dp out, or start {self.dp}")
        if processes == 1 and self.dp > 1 and device != "cpu":
            raise HeddleError(f"heddle.Plan: dp={self.dp} on device '{device}' needs a process for each GPU; start this program with torchrun --nproc-per-node {self.dp}, or use dp=1 or device='cpu'")
        if self.precision != "fp16" and self.loss_scale is not None:
            raise HeddleError(f"heddle.Plan: loss_scale={self.loss_scale} is for precision='fp16', and this step's is '{self.precision}'; leave it out")
        if self.deterministic and device == "cuda" and not torch.are_deterministic_algorithms_enabled():
            raise HeddleError("heddle.Plan: deterministic=True takes PyTorch's deterministic kernels, which are switched on for the whole process: call torch.use_deterministic_algorithms(True) and set "
                              "torch.utils.deterministic.fill_uninitialized_memory = False first")
        if self.cuda_graph is True and device != "cuda":
            raise HeddleError(f"heddle.Plan: cuda_graph=True needs device 'cuda', and this step is for '{device}'; use \"auto\"")
