"""This process as one of a plan's ranks, among those that torchrun started.

Rank 0 records and compiles, and its plan is everyone's: N processes would do N times the work, prices measured on one machine could differ on the next, and two plans that differ in
a bit would meet in collectives that do not belong together. Before that all ranks compare what they were asked for, line by line.

Invariant: every process makes the same calls here in the same order. What would break it: a call under a condition that only some ranks meet; where one may fail, `together` lets all know.
"""

import atexit
import json
import os
import sys
import zlib

import torch

from . import _native, errors
from .compiler import _named, _tensor
from .errors import GuardError, HeddleError

_the = None


def world_size() -> int:
    """How many processes the launcher has started; 1 without one."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdigit() or int(text) < 1:
        raise HeddleError(f"the environment variable WORLD_SIZE is '{text}', not a number of processes")
    return int(text)


def connect(plan):
    """The processes of this run, or None where this one has all ranks. The first call meets the others; deadline and dump folder are that call's."""
    global _the
    if world_size() == 1:
        return None
    if _the is None:
        _the = Processes(_named(_native.ops.meet_processes, float(plan.deadline or 0), str(plan.dumps or "")))
    return _the


def existing():
    """The processes of this run where `connect` has met them, or None."""
    return _the


class Processes:
    """What ranks say to each other beside a plan's collectives. A rank that does not answer ends every process, as in a collective."""

    def __init__(self, world):
        self._world, self._number = world, 0
        self.rank, self.size, self.local_rank = world.rank(), world.size(), world.local_rank()
        atexit.register(world.leave)
        before = sys.excepthook

        def failed(kind, error, trace):
            before(kind, error, trace)
            if issubclass(kind, Exception):
                sys.stderr.flush()
                self.fail(f"{kind.__name__}: {error}")

        # A process that ends by an exception is a failed rank: the others are told why, and do not wait for it.
        sys.excepthook = failed

    def _key(self, what):
        self._number += 1
        return f"{what}/{self._number}"

    def fail(self, why):
        """Ends this process and every other one with the verdict."""
        _named(self._world.fail, why)

    def agree(self, lines):
        """Raises on all ranks, naming the first that differs from rank 0 and the line, unless all have given the same text."""
        _named(self._world.agree, "\n".join(lines))

    def publish(self, key, data: bytes):
        _named(self._world.publish, key, _tensor(data))

    def await_value(self, key, rank) -> bytes:
        """What `rank` publishes under `key`; waits as long as its process lives."""
        return _named(self._world.await_value, key, rank).numpy().tobytes()

    def gather(self, numbers, what):
        """Every rank's numbers, by rank; each gives as many."""
        return [row.tolist() for row in _named(self._world.gather, torch.tensor(numbers, dtype=torch.float64), what)]

    def share(self, root, make, what):
        """`make()` of rank `root`, which is (something for JSON, bytes), on every rank; its HeddleError is raised on each."""
        key = self._key(what)
        if self.rank != root:
            head, _, data = self.await_value(key, root).partition(b"\0")
            head = json.loads(head)
            if "error" in head:
                raise getattr(errors, head["kind"])(head["error"])
            return head["value"], data
        try:
            value, data = make()
        except HeddleError as error:
            self.publish(key, json.dumps({"kind": type(error).__name__, "error": str(error)}).encode())
            raise
        self.publish(key, json.dumps({"value": value}).encode() + b"\0" + data)
        return value, data

    def exchange(self, value, what):
        """Every rank's value (for JSON), by rank. Slower than `gather`, and for any size."""
        key = self._key(what)
        own = json.dumps(value).encode()
        self.publish(f"{key}/{self.rank}", own)
        return [json.loads(own if rank == self.rank else self.await_value(f"{key}/{rank}", rank)) for rank in range(self.size)]

    def together(self, work, what):
        """`work()` on every rank: its value, or where it fails on any rank a HeddleError on all."""
        error, value = None, None
        try:
            value = work()
        except HeddleError as raised:
            error = raised
        if any(row[0] for row in self.gather([error is not None], what)):
            messages = self.exchange(None if error is None else str(error), what)
            if error is not None:
                raise error
            rank = next(rank for rank, message in enumerate(messages) if message is not None)
            raise HeddleError(f"rank {rank}: {messages[rank]}")
        return value

    def choose(self, plans, micros):
        """For every micro-batch a plan that lets it through on all ranks, and this rank's label counts in it: [(plan, counts)]. Where no known plan does, one is compiled from the
        micro-batch of a rank whose guards refused, and is everyone's."""

        def known():
            return [plans.known(micro) for micro in micros]

        found = self._picked(plans, known)
        counts = self.exchange(len(micros), "micro-batches") if found is None else None
        if counts is None:
            return found
        for rank, count in enumerate(counts):
            if count != counts[0]:
                raise HeddleError(f"rank {rank} has {count} micro-batches and rank 0 has {counts[0]}: every rank takes as many")
        return [self._choose_one(plans, micro) for micro in micros]

    def _picked(self, plans, known):
        """The ranks' own picks where all have made the same ones; else None."""
        error, picks = None, []
        try:
            picks = known()
        except HeddleError as raised:
            error = raised
        signature = zlib.crc32(repr([plans.all.index(plan) if plan is not None else -1 for plan, _ in picks]).encode())
        complete = error is None and all(plan is not None for plan, _ in picks)
        rows = self.gather([error is not None, complete, len(picks), signature], "plans of the micro-batches")
        if any(row[0] for row in rows):

            def own():
                if error is not None:
                    raise error

            self.together(own, "plans of the micro-batches")
        if not all(row[1] and row == rows[0] for row in rows):
            return None
        for plan, _ in picks:
            plans.used(plan)
        return picks

    def _choose_one(self, plans, micro):
        shapes = self.exchange(micro.shapes, "shapes")
        for rank, theirs in enumerate(shapes):
            for (name, shape, _), (_, other, _) in zip(shapes[0], theirs):
                if shape != other:
                    raise HeddleError(f"'{name}' has shape {tuple(shape)} on rank 0 and {tuple(other)} on rank {rank}: ranks run micro-batches of one shape together; order the batches so, or pad")
        fits, refused = {}, None
        for index, plan in enumerate(plans.all):
            if plan.shapes == micro.shapes:
                try:
                    fits[index] = plan.labels_of_ranks(micro)
                except GuardError as error:
                    refused = refused or error
        each = self.exchange(list(fits), "plans that fit")
        common = [index for index in each[0] if all(index in mine for mine in each)]
        if common:
            plan = next(plan for plan in plans.recent if plans.all.index(plan) in common)
            plans.used(plan)
            return plan, fits[plans.all.index(plan)]
        blamed = next((rank for rank, mine in enumerate(each) if not mine), 0)
        reason = self.exchange(plans.reason(micro, refused), "reasons")[blamed]
        plan = plans.another(micro, reason, blamed)

        def attempt():
            return plan.labels_of_ranks(micro)

        return plan, self.together(attempt, "the new plan")
