"""A step compiled from a program that is changed on the way: what the tests of Heddle's invariants run to see themselves fail.

The compiler saves a phase, `edit` rewrites its text, the passes that are left run on what it gives, and the step that comes out trains like any other. Nothing else differs, so a
comparison that also holds for a mutant which breaks its property proves nothing.
"""

import pathlib
import re
import tempfile
from unittest import mock

import heddle
import heddle.step
from heddle.compiler import compile_program, run_passes


def phases(program, options, evaluation=None):
    """{phase: text} of a compilation, without its evaluation program unless that is given, and the plan."""
    with tempfile.TemporaryDirectory() as folder:
        plan = compile_program(program, {**options, "save_phases": folder}, evaluation)
        return {path.name.split(".")[1]: path.read_text() for path in pathlib.Path(folder).glob("step.*.mlir")}, plan


REFUSED = "a plan that the reader refuses"


def recorded_config(text):
    """The configuration that a schedule's text records."""
    recorded = re.search(r'config = "((?:[^"\\]|\\.)*)"', text)[1]
    return re.sub(r"\\([0-9A-F]{2})", lambda code: chr(int(code[1], 16)), recorded)


def finish(phase, text, overlap, config, verify=False, then=None, lower=""):
    """The plan's bytes from the text of a phase; `lower`: more options of graph-lower-to-sched. `verify`: let the compiler prove the schedule, which is what a mutant may not pass. `then`: an edit of the schedule as well."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "step.plan"
        if phase == "dist":
            lower = f"graph-lower-to-sched{{mode=train overlap={str(overlap).lower()} config={{{config}}} {lower}}}"
            text = run_passes(heddle.Program(text, {}), f"builtin.module(graph.step(graph-inline-composites),{lower},sched.plan(sched-plan-memory,sched-insert-events))")
        text = then(text) if then else text
        passes = ["sched-verify"] * verify + [f"sched-write-plan{{path={path}}}"]
        run_passes(heddle.Program(text, {}), f"builtin.module(sched.plan({','.join(passes)}))")
        return path.read_bytes()


def mutant(edit, phase, model, batch, *, verify=False, then=None, evaluates=False, **arguments):
    """heddle.compile(model, batch, **arguments) whose program is `edit`'s in `phase`: "dist", what the ZeRO passes leave, or "sched", what is written into the plan. It can evaluate
    only if `evaluates`, in phase "sched"."""

    def changed(program, options, evaluation=None):
        assert not program.constants, "a mutant would lose the program's constants"
        texts, _ = phases(program, options, evaluation if evaluates else None)
        text = edit(texts[phase])
        assert text != texts[phase], "the edit changed nothing"
        return finish(phase, text, options["overlap"], recorded_config(texts["sched"]), verify, then)

    with mock.patch.object(heddle.step, "compile_program", changed):
        return heddle.compile(model, batch, **arguments)


def lowered(lower, model, batch, **arguments):
    """heddle.compile(model, batch, **arguments) whose program is lowered with more options of graph-lower-to-sched. It cannot evaluate."""

    def changed(program, options, evaluation=None):
        texts, _ = phases(program, options)
        return finish("dist", texts["dist"], options["overlap"], recorded_config(texts["sched"]), verify=True, lower=lower)

    with mock.patch.object(heddle.step, "compile_program", changed):
        return heddle.compile(model, batch, **arguments)


def caught(fails, edit, phase, model, batch, **arguments):
    """Whether the mutant is refused as a plan, or `fails(step)`."""
    try:
        step = mutant(edit, phase, model, batch, **arguments)
    except heddle.CompileError as error:
        assert REFUSED in str(error), error
        return True
    return fails(step)


def compiled(model, batch, *, evaluates=False, **arguments):
    """heddle.compile(model, batch, **arguments), and {phase: text} of its program. It can evaluate only if `evaluates`."""
    found = {}

    def looked(program, options, evaluation=None):
        texts, plan = phases(program, options, evaluation if evaluates else None)
        found.update(texts)
        return plan

    with mock.patch.object(heddle.step, "compile_program", looked):
        return heddle.compile(model, batch, **arguments), found


def section(text, name):
    """(start, end) of a section in a schedule's text."""
    start = text.index(f'sched.section "{name}"')
    end = text.find("sched.section", start + 1)
    return start, end if end >= 0 else len(text)


def in_section(name, pattern, replacement):
    """An edit of every match inside one section of a schedule."""

    def edit(text):
        start, end = section(text, name)
        return text[:start] + re.sub(pattern, replacement, text[start:end]) + text[end:]

    return edit


def without_op(text, line):
    """`text` without the op of this line, its result replaced by its first operand."""
    result, operand = re.match(r'\s*(%\S+) = "[\w.]+"\((%[\w#]+)', line).groups()
    return re.sub(rf"(?<!\S){re.escape(result)}\b|(?<=[(\s]){re.escape(result)}\b", operand, text.replace(line + "\n", ""))
