"""The plans of one step: the example's, and those that batches of other shapes or other host values needed, all on one state.

Invariant: every plan has the same state layout (checked when it is loaded) and averages losses the same way, so the micro-batches of one update may run in different ones.
"""

import copy
import dataclasses
import logging
import re

import torch

from ._reading import Reading
from .compiler import Executable
from .errors import GuardError, HeddleError

log = logging.getLogger("heddle")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What is left of a program when it has become a plan. `inputs`: names that its sections read; `no_evaluation`: why it has no evaluation section, or None."""

    data: bytes
    inputs: list
    no_evaluation: str | None
    operators: int
    guards: int

    @staticmethod
    def of(program, data, no_evaluation):
        operators = len(re.findall(r"^ *(?:%[\w:, %]+ = )?\"graph\.(?!step|return|guard)", program.mlir, re.M))
        return Recorded(data, sorted(inputs_of(program)), no_evaluation, operators, program.mlir.count('"graph.guard"('))

    def parts(self):
        """(something for JSON, bytes), of which `Recorded(data=..., **value)` makes it again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "data"}, self.data


@dataclasses.dataclass
class Compiled:
    """A loaded plan and what it was compiled for."""

    executable: Executable
    recorded: Recorded
    shapes: tuple

    def __post_init__(self):
        stats = self.executable.stats()
        self.has_prologue = "prologue" in stats["sections"]
        self.loss_average = stats["config"].get("loss_average")
        self.no_evaluation, self.inputs = self.recorded.no_evaluation, frozenset(self.recorded.inputs)

    def _inputs(self, micro):
        return [{name: tensor for name, tensor in part.items() if name in self.inputs} for part in micro.parts]

    def run(self, section, micro):
        return self.executable.run(section, self._inputs(micro))

    def run_ranks(self, section, micro):
        """The results of each rank."""
        return self.executable.run_ranks(section, self._inputs(micro))

    def labels_of_ranks(self, micro):
        """Valid labels of a micro-batch by rank, as Readings; None where the average is not over labels. Raises GuardError where this plan is not for it."""
        if not self.has_prologue:
            return [None] * len(micro.parts)
        counts = [results.get("output:label_count") for results in self.run_ranks("prologue", micro)]
        return [None if count is None else Reading(count) for count in counts]


def inputs_of(program):
    return frozenset(re.findall(r'#graph\.input<"((?:[^"\\]|\\.)*)">', program.mlir))


def weightless(model):
    """A copy of `model` whose parameters lie on meta, from which its step can be recorded again; buffers keep their values. Also the reason where there can be none."""
    memo = {id(tensor): torch.nn.Parameter(tensor.detach().to("meta"), requires_grad=tensor.requires_grad) for tensor in model.parameters()}
    memo.update((id(tensor), tensor.detach().clone()) for tensor in model.buffers())
    try:
        return copy.deepcopy(model, memo), None
    except Exception as error:
        return None, f"the model cannot be copied ({type(error).__name__}: {error})"


class Plans:
    """`compile_for(batch, rank)` makes a Recorded from a micro-batch of `rank`, or raises HeddleError."""

    def __init__(self, first, compile_for, seed, limit, strict):
        self.all = [first]
        self.compile_for, self.seed, self.limit, self.strict = compile_for, seed, limit, strict
        # Last used first.
        self.recent = [first]

    @property
    def first(self):
        return self.all[0]

    def used(self, plan):
        self.recent.remove(plan)
        self.recent.insert(0, plan)

    def known(self, micro):
        """(plan, its label counts) for the first known plan whose guards let the micro-batch through; (None, None) where none does. With `strict` that is an error."""
        for plan in self.recent:
            if plan.shapes != micro.shapes:
                continue
            try:
                return plan, plan.labels_of_ranks(micro)
            except GuardError:
                if self.strict:
                    raise
        return None, None

    def choose(self, micro, attempt):
        """(plan, attempt(plan)) for the first plan whose guards let `attempt` through; where none does, another one is compiled from `micro`."""
        refused = None
        for plan in self.recent:
            if plan.shapes != micro.shapes:
                continue
            try:
                result = attempt(plan)
            except GuardError as error:
                if self.strict:
                    raise
                # The guard that gets furthest is not known; the one of the plan used last is what changed since.
                refused = refused or error
                micro.blame(refused)
                continue
            self.used(plan)
            return plan, result
        plan = self.another(micro, self.reason(micro, refused))
        return plan, attempt(plan)

    def reason(self, micro, refused):
        if refused is not None:
            return str(refused).partition("; compile another plan")[0]
        known = dict((name, shape) for name, shape, _ in self.first.shapes)
        changed = [f"'{name}' has shape {shape} and was {known.get(name)}" for name, shape, _ in micro.shapes if known.get(name) != shape]
        return ", ".join(changed)

    def another(self, micro, reason, rank=0):
        """A plan for the micro-batch; of ranks that are processes, for the one of `rank`."""
        if len(self.all) >= self.limit:
            raise HeddleError(f"{reason}: the step has {len(self.all)} plans already, as many as heddle.Plan(max_plans={self.limit}) allows; pad batches to a few shapes, keep what Python reads "
                              "from a batch to a few values, or allow more plans")
        log.warning("compiling plan %d of at most %d on the same state: %s", len(self.all) + 1, self.limit, reason)
        recorded = self.compile_for(micro.batch, rank)
        try:
            executable = self.first.executable.sharing(recorded.data, self.seed)
        except HeddleError as error:
            raise HeddleError(f"a plan for this batch cannot share the step's state, because the batch leads to another set of trained parameters or buffers ({reason}): {error}") from None
        plan = Compiled(executable, recorded, micro.shapes)
        if plan.loss_average != self.first.loss_average:
            raise HeddleError(f"a plan for this batch averages the loss over {plan.loss_average} and the step's first one over {self.first.loss_average} ({reason}); name one in heddle.Plan(loss_average=...)")
        self.all.append(plan)
        self.recent.insert(0, plan)
        return plan

    def set_scalars(self, scalars):
        for plan in self.all:
            for name, value in scalars.items():
                plan.executable.set_scalar(name, value)

    def recover(self):
        """After a failed run an executable refuses to go on; nothing of an update was written, so fresh ones take the state over."""
        for plan in self.all:
            plan.executable = plan.executable.sharing(plan.recorded.data, self.seed)
