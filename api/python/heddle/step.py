"""heddle.compile: a model, a batch and an optimizer become one object whose call is a training step.

The plan's sections run in one order: prologue for every micro-batch (guards, label counts), micro_first, micro_next..., boundary. What a step changes lies in the plan's
state; the model that was compiled is never written except by `sync`.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import re
import time

import torch

from . import checkpoint, deepspeed as _deepspeed
from ._batches import Round, Splitter
from ._plans import Compiled, Plans, Recorded, weightless
from ._processes import connect, world_size
from ._names import nearest
from ._reading import Reading
from ._recording import configured, fingerprint, named_tensors, record as _record, resolved_precision
from ._signals import uninterrupted
from .capture import Program, _write_atomically
from .compiler import Executable, compile_program, sum_of_ranks
from .errors import HeddleError
from .optim import AdamW, Muon
from .plan import Plan

_DTYPES = {"bool": torch.bool, "u8": torch.uint8, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64, "f16": torch.float16, "bf16": torch.bfloat16,
           "f32": torch.float32, "f64": torch.float64, "c64": torch.complex64, "c128": torch.complex128, "f8E4M3FN": torch.float8_e4m3fn, "f8E5M2": torch.float8_e5m2}
_WEIGHTS = ("parameter", "master", "buffer")
_KEPT = (*_WEIGHTS, "exp_avg", "exp_avg_sq", "momentum", "scaler")


@dataclasses.dataclass(frozen=True)
class StepOutput:
    """What a step reports. `loss` is the average over all micro-batches; it and `grad_norm` (before clipping) are NaN where the step had no valid label. `skipped`: nothing
    was updated. `outputs`: the program's other named outputs, of the last micro-batch. `loss_scale`: what fp16's gradients were multiplied by, else NaN. `enqueue_ms`: what the host took to hand all of the step's work to the device."""

    loss: float
    grad_norm: float
    skipped: bool
    lr: float
    outputs: dict = dataclasses.field(default_factory=dict)
    loss_scale: float = math.nan
    enqueue_ms: float = dataclasses.field(default=math.nan, compare=False)


def compile(model_or_program, batch, loss=None, optimizer=None, schedule=None, plan=None, device="cpu", *, batch_dims=None):
    """Compiles one training step.

    Args:
      model_or_program: a torch.nn.Module, whose weights are copied in, or a Program, whose weights `load_state_dict` or `load_checkpoint` bring.
      batch: the example micro-batch (dict, tuple or tensor); its shapes become the step's.
      loss: callable(outputs, batch) -> scalar; None takes the model's own loss.
      optimizer: heddle.AdamW or heddle.Muon.
      schedule: None, one of heddle.schedules, or a callable(step) -> factor of the lr; `step` counts updates from 1.
      plan: heddle.Plan; None takes its defaults. Or a DeepSpeed configuration, its path or a dict with its keys: `optimizer` and `schedule` come from it where they are not given.
      device: "cpu" or "cuda".
      batch_dims: {input name: dimension} of the tensors that are not split along dimension 0.

    Under torchrun every process calls this with the same arguments, and its own batches to the step that it gets.

    Returns a Step. Raises CaptureError, CompileError or HeddleError with what, where and what to do.
    """
    if _deepspeed.is_configuration(plan):
        plan, optimizer, schedule, accumulation = configured(_deepspeed.read(plan), batch, optimizer, schedule, batch_dims)
    else:
        accumulation = None
    if not isinstance(optimizer, (AdamW, Muon)):
        given = "no optimizer was given" if optimizer is None else f"{type(optimizer).__module__}.{type(optimizer).__qualname__} is no optimizer of Heddle's"
        raise HeddleError(f"{given}; pass optimizer=heddle.AdamW(lr=...) or heddle.Muon(lr=..., adamw=...)")
    if schedule is not None and not callable(schedule):
        raise HeddleError(f"schedule={schedule!r} is neither None, one of heddle.schedules nor a callable(step) -> factor")
    plan = Plan() if plan is None else plan
    if not isinstance(plan, Plan):
        raise HeddleError(f"plan is a {type(plan).__name__}; pass a heddle.Plan, the path of a DeepSpeed configuration or a dict with its keys")
    if device not in ("cpu", "cuda"):
        raise HeddleError(f"unknown device '{device}'{nearest(device, ('cpu', 'cuda'))}")
    model = None if isinstance(model_or_program, Program) else model_or_program
    if model is not None and not isinstance(model, torch.nn.Module):
        raise HeddleError(f"cannot compile a {type(model).__name__}; pass a torch.nn.Module or a heddle.Program")
    count = world_size()
    plan = dataclasses.replace(plan, dp=count if plan.dp is None else plan.dp, precision=resolved_precision(model_or_program, plan, device))
    plan.refuse_unsupported(device, count)
    processes = connect(plan)
    if processes is not None and device == "cuda":
        torch.cuda.set_device(processes.local_rank)

    def record():
        if model is None:
            return model_or_program, None, "the step was compiled from a program; compile the model to evaluate"
        return _record(model, batch, loss, device, plan)

    step = Step(record, processes, model_or_program, loss, batch, optimizer, schedule, plan, device, batch_dims)
    step.accumulation = accumulation
    return step


class Step:
    """A compiled step; `heddle.compile` makes it. `step(batch)` trains, everything else looks at or moves its state."""

    def __init__(self, record, processes, model_or_program, loss, batch, optimizer, schedule, plan, device, batch_dims):
        self.global_step, self.accumulation = 0, None
        self.plan, self.optimizer, self.schedule, self.device, self._processes = plan, optimizer, schedule, device, processes
        model, text = (None, model_or_program.mlir) if isinstance(model_or_program, Program) else (model_or_program, None)
        self._split = Splitter(batch, batch_dims, plan.strict)
        named = named_tensors(model) if model is not None else {}
        parameters = {name: tensor for name, (tensor, _) in named.items() if isinstance(tensor, torch.nn.Parameter)}
        names = parameters or {name: None for group in re.findall(r"#graph\.param<\[([^\]]*)\]", text or "") for name in re.findall(r'"([^"]+)"', group)}
        self._options, self._loss = self._compiler_options(names), loss
        self._template, self._no_template = (None, "it was compiled from a program; compile the model") if model is None else weightless(model)
        if processes is not None:
            processes.agree(self._identity(parameters, text))
        recorded = self._recorded(record, 0)
        self._executable = Executable(recorded.data, plan.seed, plan.deadline, plan.dumps)
        first = Compiled(self._executable, recorded, self._split.example.shapes)
        self._plans = Plans(first, self._compile_for, plan.seed, plan.max_plans, plan.strict)
        stats = self._executable.stats()
        # A micro-batch without labels must not run where it would leave traces; elsewhere it may, and the number of labels is read while it does.
        self._must_know_count = device == "cpu" or "buffer" in stats["sections"]["micro_first"]["writes"]
        needed, budget = sum(stats[f"{kind}_bytes"] for kind in ("state", "constant", "input", "scratch")), plan.memory_bytes()
        if budget is not None and needed > budget:
            raise HeddleError(f"the plan needs {needed} bytes and heddle.Plan(memory=...) allows {budget}; use smaller micro-batches or allow more")
        self._entries = self._executable.state
        self._owner = {(entry["kind"], name): entry for entry in self._entries for name in entry["names"]}
        # Names in the state dict whose tensors the plan does not hold, or holds rounded although no step changes them: kept as they were given.
        self._untouched = {}
        self._dtypes = {name: tensor.dtype for name, (tensor, _) in named.items()}
        self._skeleton = checkpoint.skeleton(model) if model is not None else None
        self._order = [name for name, (_, persistent) in named.items() if persistent]
        if model is not None and set(listed := list(model.state_dict())) == set(self._order):
            self._order = listed
        self._writer = checkpoint.Writer()
        self._loaded = model is not None and not any(tensor.is_meta for tensor, _ in named.values())
        if not named:
            self._order = [name for entry in self._entries if entry["kind"] == "parameter" or (entry["kind"] == "buffer" and entry["persistent"]) for name in entry["names"]]
        if self._loaded:
            self._fill({name: tensor for name, (tensor, _) in named.items()})

    def _identity(self, parameters, text):
        """What all ranks must have been asked for, line by line. A parameter is known by a few of its elements: ranks that start from different weights would train different models."""
        lines = [f"torch {torch.__version__}", f"device {self.device}"]
        lines += [f"plan {field.name}={getattr(self.plan, field.name)!r}" for field in dataclasses.fields(self.plan) if field.name != "dumps"]
        lines += [f"{key} {json.dumps(value, default=repr)}" for key, value in self._options.items() if key not in ("device_memory", "costs")]  # rank 0's are everyone's
        lines += [f"batch {name} {tuple(shape)} {dtype}" for name, shape, dtype in self._split.example.shapes]
        lines += [f"parameter {name} {tensor.dtype} {tuple(tensor.shape)} {fingerprint(tensor)}" for name, tensor in parameters.items()]
        return lines if text is None else [*lines, *text.splitlines()]

    def _recorded(self, record, rank):
        """What becomes of `record()`; of ranks that are processes, on `rank`, for all."""

        def compiled():
            program, evaluation, no_evaluation = record()
            return Recorded.of(program, compile_program(program, self._options, evaluation), no_evaluation)

        if self._processes is None:
            return compiled()
        value, data = self._processes.share(rank, lambda: compiled().parts(), "plan")
        return Recorded(data=data, **value)

    def _compiler_options(self, names):
        plan, schedule = self.plan, self.schedule
        recorded = {"lr": self.optimizer.lr, "clip": plan.clip, "precision": plan.precision, "seed": plan.seed, "cuda_graph": plan.cuda_graph}
        if schedule is not None:
            recorded["schedule"] = schedule.config() if hasattr(schedule, "config") else {"kind": "callable"}
        return {
            "mode": "train",
            "zero": plan.zero,
            "mesh": f"dp:{plan.dp}",
            "reduce_dtype": plan.reduce_dtype,
            "overlap": plan.overlap,
            "unshard": plan.unshard,
            "prefetch": plan.prefetch,
            "max_live": plan.max_live,
            "reducing": plan.reducing,
            "memory": plan.memory_bytes(),
            "device_memory": torch.cuda.get_device_properties(self.device).total_memory if self.device == "cuda" and torch.cuda.is_available() else None,
            "costs": None if plan.costs is None else os.fspath(plan.costs),
            "optimizer": self.optimizer.compiler_options(names),
            "clip": plan.clip,
            "loss_average": plan.loss_average,
            "loss_scale": plan.loss_scale_settings(),
            "fuse": plan.fuse,
            "accumulate_dtype": plan.accumulate_dtype,
            "master_dtype": plan.master_dtype,
            "state_dtype": self.optimizer.moments_dtype,
            "config": {key: value for key, value in recorded.items() if value is not None},
        }

    def _compile_for(self, batch, rank):
        """What Plans asks for: another plan from a micro-batch, which is that of `rank` where ranks are processes."""

        def record():
            if self._template is None:
                raise HeddleError(f"the step cannot be recorded again for this batch: {self._no_template}")
            return _record(self._template, batch, self._loss, self.device, self.plan)

        return self._recorded(record, rank)

    # Running

    def __call__(self, batch) -> StepOutput:
        """Trains on `batch`: as many micro-batches as its leading dimensions hold, shared out between the ranks in order, then one update. Nothing changes where no label is valid
        or a gradient is not finite. Of ranks that are processes each gives its own batch, of as many micro-batches as the others."""
        self._ready()
        started = time.perf_counter()
        number = self.global_step + 1
        lr = self._lr(number)
        micros = self._by_rank(batch)
        if self.accumulation not in (None, len(micros)):
            raise HeddleError(f"the batch holds {len(micros)} micro-batches{' a rank' if self.plan.dp > 1 else ''}, and the DeepSpeed configuration's gradient_accumulation_steps is {self.accumulation}")
        planned, count = self._begin(micros, number, lr)
        if self._must_know_count and not count():
            return StepOutput(math.nan, math.nan, True, lr)
        losses, outputs = self._accumulate(planned)
        divisor = self._end(count)
        if divisor == 0:
            return StepOutput(math.nan, math.nan, True, lr)
        with uninterrupted():
            results = self._executable.run("boundary", {})
            enqueue_ms = 1e3 * (time.perf_counter() - started)
            read = {name: Reading(results[f"output:{name}"]) for name in ("grad_norm", "finite", "loss_scale", "loss_scale_exhausted") if f"output:{name}" in results}
            finite = read["finite"].value()
            self.global_step += finite
        scale = read["loss_scale"].value() if "loss_scale" in read else math.nan
        if "loss_scale" in read and read["loss_scale_exhausted"].value():
            raise HeddleError(f"update {number}: gradients are not finite and the loss scale is {scale:g} already, the least that heddle.Plan(loss_scale=...) allows; nothing was updated. The run has "
                              "diverged: go on from a checkpoint with a smaller lr, or use precision='bf16'")
        return StepOutput(self._average(losses, divisor), read["grad_norm"].value(), not finite, lr, outputs, scale, enqueue_ms)

    def evaluate(self, batch) -> StepOutput:
        """The forward pass in `eval()` on the same state: loss (averaged as in training) and outputs. `grad_norm` and `lr` are NaN."""
        self._ready()
        total, weight, outputs = 0.0, 0, {}
        for labels, found in self._evaluated(self._by_rank(batch)):
            outputs, dtype = _outputs(found[-1]), found[-1]["loss"].dtype
            each = [(float(results["loss"]), 1 if count is None else count.value()) for count, results in zip(labels, found)]
            if self._processes is not None:
                each = self._processes.gather(each[0], "losses of an evaluation")
            for loss, share in each:
                if share:
                    total, weight = (loss * share + total, weight + share)
        loss = _rounded(total / weight, dtype) if weight else math.nan
        return StepOutput(loss, math.nan, False, math.nan, outputs)

    def _evaluated(self, micros):
        """(label counts, results) of the ranks here, for each micro-batch."""

        def attempt(plan, micro):
            if plan.no_evaluation:
                raise HeddleError(f"this step cannot evaluate: {plan.no_evaluation}")
            return plan.labels_of_ranks(micro), plan.run_ranks("evaluate", micro)

        if self._processes is None:
            for micro in micros:
                yield self._plans.choose(micro, lambda plan: attempt(plan, micro))[1]
        else:
            for (plan, _), micro in zip(self._processes.choose(self._plans, micros), micros):
                yield attempt(plan, micro)

    def gradients(self, batch) -> dict:
        """The averaged gradients of `batch` by parameter name, in the accumulate dtype, unscaled, before clipping; nothing is updated."""
        self._ready()
        micros = self._by_rank(batch)
        buffers = {entry["names"][0]: self._executable.get_state("buffer", entry["names"][0]) for entry in self._entries if entry["kind"] == "buffer"}
        planned, count = self._begin(micros, self.global_step + 1, 0.0)
        divisor = count()
        unscale = self._unscaling()
        accumulators = [entry["names"] for entry in self._entries if entry["kind"] == "accumulator"]
        if divisor:
            self._accumulate(planned)
        for name, value in buffers.items():
            self._executable.set_state("buffer", name, value)
        found = {}
        for names in accumulators:
            total = self._executable.get_sum("accumulator", names[0])
            found.update(dict.fromkeys(names, (total / divisor).mul_(unscale) if divisor else torch.zeros_like(total)))
        return found

    def _unscaling(self):
        """What makes the accumulators gradients of the loss."""
        seed = self._executable.stats()["config"].get("loss_seed", 1.0)
        if ("scaler", "loss_scale") in self._owner:
            seed *= float(self._executable.get_state("scaler", "loss_scale"))
        return 1.0 / seed

    def _ready(self):
        self._writer.raise_error()
        if not self._loaded:
            raise HeddleError("the step has no weights yet: the model lies on the meta device, or there was only a program; call load_state_dict or load_checkpoint first")

    def _lr(self, number):
        factor = given = 1.0 if self.schedule is None else self.schedule(number)
        with contextlib.suppress(TypeError, ValueError):
            factor = float(given)
        if not isinstance(factor, float) or not 0 <= factor < math.inf:
            raise HeddleError(f"the schedule's factor for update {number} is {given!r}; it must be a number of at least 0")
        return self.optimizer.lr * factor

    def _by_rank(self, batch):
        """The batch's micro-batches in the order of running; with several ranks each is a Round, what all of them run together."""
        if self._processes is not None:
            return self._processes.together(lambda: self._split(batch), "batch")
        micros, ranks = self._split(batch), self.plan.dp
        if ranks == 1:
            return micros
        each, rest = divmod(len(micros), ranks)
        if rest or not each:
            raise HeddleError(f"the batch holds {len(micros)} micro-batches, which dp={ranks} ranks cannot share evenly: give a multiple of {ranks}")
        return [Round(micros[i::each]) for i in range(each)]

    def _begin(self, micros, number, lr):
        """Prologues of all micro-batches; sets the scalars that are known. Returns each micro-batch with its plan, and a function that gives the divisor of gradients and losses
        once it is asked for."""
        if self._processes is None:
            chosen = [self._plans.choose(micro, lambda plan: plan.labels_of_ranks(micro)) for micro in micros]
        else:
            chosen = self._processes.choose(self._plans, micros)
        labels = [count for _, counts in chosen for count in counts]
        batches = len(labels) if self._processes is None else len(labels) * self._processes.size
        self._plans.set_scalars({"lr": lr, "step": number, "micro_batches": batches})

        @functools.cache
        def divisor():
            if labels[0] is None:
                return batches
            own = sum(count.value() for count in labels)
            return own if self._processes is None else int(sum(row[0] for row in self._processes.gather([own], "label counts")))

        return [(plan, micro) for (plan, _), micro in zip(chosen, micros)], divisor

    def _end(self, count):
        """The divisor, and what the update needs to know of it. The device works on the micro-batches while the host waits for their prologues."""
        divisor = count()
        self._plans.set_scalars({"label_count": divisor})
        return divisor

    def _accumulate(self, planned):
        """Forward and backward of all micro-batches: Readings of their losses, and the last one's outputs."""
        losses = []
        try:
            for i, (plan, micro) in enumerate(planned):
                plan.executable.set_scalar("micro", i)
                results = plan.run("micro_next" if i else "micro_first", micro)
                losses.append(Reading(results["loss"]))
        except HeddleError:
            # A process whose rank has failed ends; its state is for nobody.
            if self._processes is None:
                with contextlib.suppress(HeddleError):  # a thread that has not come back may still write the state
                    self._plans.recover()
                self._executable = self._plans.first.executable
            raise
        return losses, _outputs(results)

    def _average(self, losses, divisor):
        """The mean over all ranks, from this process's readings by micro-batch."""
        dtype, values = losses[0].dtype, [loss.value() for loss in losses]
        if self._processes is not None:
            by_rank = torch.tensor(self._processes.gather(values, "losses"), dtype=torch.float64).to(dtype)
            values = [sum_of_ranks(by_rank[:, i].contiguous()).item() for i in range(len(values))]
        return _rounded(sum(values, 0.0) / divisor, dtype)

    # State

    def _state(self, kinds=_KEPT):
        for entry in self._entries:
            if entry["kind"] in kinds:
                yield entry["kind"], entry["names"][0], self._executable.get_state(entry["kind"], entry["names"][0])

    def _kind(self, name):
        """Where the plan holds the value of a name of the state dict, or None."""
        return next((kind for kind in ("master", "parameter", "buffer") if (kind, name) in self._owner), None)

    def _fill(self, tensors):
        """Weights into the plan; `tensors` is complete and of the right shapes."""
        self._keep_untouched(tensors)
        for entry in self._entries:
            kind, name = entry["kind"], entry["names"][0]
            if kind in ("parameter", "master") or (kind == "buffer" and entry["persistent"]):
                self._executable.set_state(kind, name, tensors[name])

    def _unchanging(self):
        """Names of the state dict that no step writes: frozen parameters and those without a gradient."""
        return [name for name in self._order if self._kind(name) != "buffer" and ("accumulator", name) not in self._owner]

    def _keep_untouched(self, tensors):
        self._untouched = {}
        for name in self._unchanging():
            kind = self._kind(name)
            if name in tensors and (kind is None or _DTYPES[self._owner[kind, name]["dtype"]] != tensors[name].dtype):
                self._untouched[name] = tensors[name].detach().clone()

    def state_dict(self) -> dict:
        """Full tensors (copies) under their Hugging Face names, tied ones under each, in the master dtype."""
        self._ready()
        read, found = {}, collections.OrderedDict()
        for name in self._order:
            if name in self._untouched:
                found[name] = self._untouched[name].clone()
                continue
            kind = self._kind(name)
            entry = self._owner[kind, name]
            if id(entry) not in read:
                read[id(entry)] = self._executable.get_state(kind, name)
            found[name] = read[id(entry)]
        return found

    def load_state_dict(self, state_dict):
        """Takes weights by name, whatever their dtype; moments and step count stay. All is checked before anything is written; of tied names one is enough."""
        state_dict = dict(state_dict)
        for name in state_dict:
            if name not in self._order and (self._kind(name) is None):
                raise HeddleError(f"the state dict has '{name}', which the step does not{nearest(name, self._order)}")
        tensors, lacking = {}, []
        for name in self._order:
            entry = self._owner.get((self._kind(name), name))
            given = next((n for n in [name, *(entry["names"] if entry else ())] if n in state_dict), None)
            if given is None:
                lacking.append(name)
                continue
            shape = tuple(entry["shape"]) if entry else tuple(self._untouched[name].shape) if name in self._untouched else tuple(state_dict[given].shape)
            if tuple(state_dict[given].shape) != shape:
                raise HeddleError(f"'{given}' has shape {tuple(state_dict[given].shape)} in the state dict and {shape} in the step")
            tensors[name] = state_dict[given]
        if lacking:
            raise HeddleError(f"the state dict lacks {len(lacking)} tensors of the step, the first is '{lacking[0]}'")
        self._fill(tensors)
        self._loaded = True

    def optimizer_state_dict(self) -> dict:
        """{"step": updates so far, "state": {parameter name: {"exp_avg": ..., "exp_avg_sq": ...} or {"momentum": ...}}}, copies."""
        found = {}
        for kind, name, tensor in self._state():
            if kind not in ("parameter", "master", "buffer", "scaler"):
                found.setdefault(name, {})[kind] = tensor
        return {"step": self.global_step, "state": found}

    def sync(self, model):
        """Copies the state into `model`'s parameters and persistent buffers, in their own dtypes. Shapes and names are checked before anything is written."""
        ours, theirs = self.state_dict(), {name: tensor for name, (tensor, persistent) in named_tensors(model).items() if persistent}
        for name, tensor in theirs.items():
            if name not in ours:
                raise HeddleError(f"the model has '{name}', which the step does not{nearest(name, ours)}")
            if ours[name].shape != tensor.shape or tensor.is_meta:
                raise HeddleError(f"'{name}' has shape {tuple(tensor.shape)}{' on the meta device' if tensor.is_meta else ''} in the model and {tuple(ours[name].shape)} in the step")
        with torch.no_grad():
            for name, tensor in theirs.items():
                tensor.copy_(ours[name])

    def _host_state(self, kinds=_KEPT, mine=lambda kind, name: True):
        """{(kind, name): tensor on the CPU} of what is `mine`; ranks that are processes all ask for the rest, too."""
        self._ready()
        return {(kind, name): tensor.cpu() for kind, name, tensor in self._state(kinds) if mine(kind, name)}

    def _writer_of(self):
        """Which process writes which tensor of the state: (kind, name) -> rank. Rank 0 writes weights and masters, which the model's files are made of; moments go to whoever has
        least to write so far."""
        loads = [0] * self._processes.size
        writer = {}
        for entry in sorted(self._entries, key=lambda entry: entry["kind"] not in _WEIGHTS):
            if entry["kind"] not in _KEPT:
                continue
            size = math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize
            rank = 0 if entry["kind"] in _WEIGHTS else loads.index(min(loads))
            loads[rank] += size
            writer[entry["kind"], entry["names"][0]] = rank
        return writer

    def _weights(self, state):
        """The state dict out of `_host_state`, in the model's own dtypes; tied names share one tensor, as `save_pretrained` expects."""
        cast, found = {}, {}
        for name in self._order:
            kind = self._kind(name)
            source = self._untouched[name].cpu() if name in self._untouched else state[kind, self._owner[kind, name]["names"][0]]
            found[name] = cast.setdefault(id(source), source.to(self._dtypes.get(name, source.dtype)))
        return found

    def save_pretrained(self, folder):
        """Writes what `from_pretrained(folder)` loads: weights in the model's dtype and, for a Hugging Face model, its config. Of ranks that are processes rank 0 writes."""
        state = self._host_state(_WEIGHTS, lambda *_: self._processes is None or self._processes.rank == 0)
        write = lambda: checkpoint.replace_model(folder, self._weights(state), self._skeleton)  # noqa: E731
        if self._processes is None:
            write()
        else:
            self._processes.share(0, lambda: (write(), b""), "written model")

    # Checkpoints and files

    def save_checkpoint(self, folder, extra=None, wait=True, keep=2):
        """Writes a version of everything that training needs into `folder` and returns its path.

        Args:
          extra: what `load_checkpoint` is to give back; must be representable in JSON.
          wait: True returns when the version is durable; False returns once the state is copied and writes on a thread, whose failure the next call raises.
          keep: how many versions to keep, this one included.

        Of ranks that are processes, which must see one file system, rank 0 writes the model and the description and every rank its share of the moments.
        """
        if not isinstance(keep, int) or keep < 1:
            raise HeddleError(f"keep={keep!r} is not a number of versions of at least 1")
        extra = {} if extra is None else extra
        try:
            json.dumps(extra)
        except (TypeError, ValueError) as error:
            raise HeddleError(f"extra cannot be written as JSON: {error}") from None
        self.wait_for_checkpoint()
        shards = None
        if self._processes is None:
            state = self._host_state()
        else:
            writer, rank = self._writer_of(), self._processes.rank
            state = self._host_state(mine=lambda *entry: writer[entry] == rank)
            shards = checkpoint.Shards(self._processes)
        weights = self._weights(state) if shards is None or shards.first else {}
        state.update({("untouched", name): tensor for name, tensor in self._untouched.items() if shards is None or shards.first})
        arguments = (folder, self.global_step, weights, state, self._skeleton, extra, keep, shards)
        if wait:
            return checkpoint.save(*arguments)

        self._writer.start(lambda: checkpoint.save(*arguments))
        return pathlib.Path(folder) / f"step-{self.global_step:08d}"

    def wait_for_checkpoint(self):
        """Returns when a version written with wait=False is durable; raises what went wrong with it."""
        self._writer.wait()

    def load_checkpoint(self, folder):
        """Takes the latest version in `folder` (or `folder` itself, if it is a version): weights, moments, step count. Returns its `extra`. A bad version changes nothing."""
        self.wait_for_checkpoint()
        entries = [(entry["kind"], entry["names"], entry["shape"]) for entry in self._entries if entry["kind"] in _KEPT and (entry["kind"] != "buffer" or entry["persistent"])]
        read = lambda: checkpoint.load(folder, entries, self._unchanging())  # noqa: E731
        number, state, untouched, extra = read() if self._processes is None else self._processes.together(read, "checkpoint")
        with uninterrupted():
            for (kind, name), tensor in state.items():
                self._executable.set_state(kind, name, tensor)
                if kind == "master":
                    self._executable.set_state("parameter", name, tensor)
            for entry in self._entries:
                if entry["kind"] == "scaler" and ("scaler", entry["names"][0]) not in state:
                    self._executable.set_state("scaler", entry["names"][0], torch.tensor(entry["initial"]))
            self._keep_untouched({**self._untouched, **untouched})
            self.global_step, self._loaded = number, True
        return extra

    def save(self, path):
        """Writes the plan for `heddle-run`. Raises for a schedule that is Python code."""
        if self.schedule is not None and not hasattr(self.schedule, "config"):
            raise HeddleError("a callable schedule cannot be saved into a plan; use one of heddle.schedules")
        path = pathlib.Path(path)
        with checkpoint.named_errors(path):
            _write_atomically(path, lambda file: pathlib.Path(file).write_bytes(self._plans.first.recorded.data))

    def explain(self) -> dict:
        """What was compiled: operators and guards of the program; ranks; FLOPs, bytes moved and collectives by section (a micro-batch runs micro_first or micro_next, an update
        boundary); the buckets that collectives carry, their elements and how many of those are padding; and memory in bytes, all of one rank; the streams that work is spread over; how the loss is averaged; which sections run as CUDA graphs, and why others do not;
        which composites run as kernels and which as captured operators; how many matrices Newton-Schulz orthogonalises in an update, on each rank."""
        stats, memory = self._executable.stats(), collections.Counter()
        for entry in self._entries:
            memory[f"state: {entry['kind']}"] += entry["bytes"]
        memory.update({arena: stats[f"{arena}_bytes"] for arena in ("scratch", "constant", "input")})
        orthogonalised = [rank["newton_schulz"] for rank in stats["per_rank"]]
        return {
            "device": self.device,
            "ranks": stats["ranks"],
            "precision": self.plan.precision,
            "operators": self._plans.first.recorded.operators,
            "guards": self._plans.first.recorded.guards,
            "plans": len(self._plans.all),
            "loss_average": stats["config"]["loss_average"],
            "fusion": stats["config"].get("fusion"),
            "flops": {name: section["flops"] for name, section in stats["sections"].items()},
            "bytes": {name: section["bytes"] for name, section in stats["sections"].items()},
            "buckets": stats["config"].get("buckets"),
            "gradients": stats["config"].get("gradients"),
            "kept_gathered": stats["config"].get("kept_gathered"),
            "collectives": {name: section["collectives"] for name, section in stats["sections"].items()},
            "overlap": stats["streams"],
            "memory": dict(memory),
            "sections": stats["sections"],
            "cuda_graph": {name: section["cuda_graph"] for name, section in stats["sections"].items()},
            "newton_schulz": {"matrices": sum(orthogonalised), "by_rank": orthogonalised},
            "evaluation": self._plans.first.no_evaluation or "captured",
        }


def _outputs(results):
    return {name.partition(":")[2]: tensor for name, tensor in results.items() if name.startswith("output:")}


def _rounded(value, dtype):
    """`value` as the loss's dtype has it: what one division in that dtype would give."""
    return float(torch.tensor(value, dtype=torch.float64).to(dtype))
