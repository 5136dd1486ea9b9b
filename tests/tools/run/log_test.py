"""What heddle-run says of every step, to people, to programs and to TensorBoard."""

import json
import os
import pty
import re
import struct
import subprocess

import pytest
from token_model import command, inspect, logged, model, run  # noqa: F401


def test_one_line_a_step(model):
    result = run(model, "--log", model / "log", "--peak-tflops", "0.001")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 4 and all(re.fullmatch(r"step \d/4  loss \S+  grad_norm \S+  lr \S+  \d+ tok/s  MFU [\d.]+%  memory [\d.]+ GiB", line) for line in lines), lines
    entries = logged(model / "log")
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    assert set(entries[0]) == {"step", "loss", "grad_norm", "lr", "tokens_per_second", "mfu", "memory_bytes", "skipped"}


def test_without_a_peak_there_is_no_mfu(model):
    result = run(model, "--log", model / "log")
    assert result.returncode == 0 and "MFU -" in result.stdout
    assert all(entry["mfu"] is None for entry in logged(model / "log"))


def test_a_resumed_run_drops_lines_of_steps_it_repeats(model):
    assert run(model, "--log", model / "log", "--checkpoint", model / "out", steps=2).returncode == 0
    with open(model / "log", "a") as log:
        log.write('{"step": 3, "loss": 77}\n{"step": 4, "lo')
    assert run(model, "--log", model / "log", "--checkpoint", model / "out", "--resume", steps=4).returncode == 0
    entries = logged(model / "log")
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4] and entries[2]["loss"] != 77


def test_a_terminal_gets_a_bar(model):
    parent, child = pty.openpty()
    process = subprocess.Popen(command(model, steps=3), stdout=child)
    os.close(child)
    text = b""
    try:
        while piece := os.read(parent, 4096):
            text += piece
    except OSError:
        pass  # the other end is closed
    assert process.wait() == 0
    assert b"2/3" in text and b"[####################" in text and text.endswith(b"\n"), text


# An independent reader: record framing and the wire format, with checksums computed bit by bit.


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    at = 0
    while at < len(data):
        length, check = struct.unpack_from("<QI", data, at)
        assert check == masked(data[at : at + 8])
        body = data[at + 12 : at + 12 + length]
        assert len(body) == length and struct.unpack_from("<I", data, at + 12 + length)[0] == masked(body)
        yield body
        at += 16 + length


def fields(data):
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, varint()
        else:
            size = {1: 8, 5: 4}.get(wire) or varint()
            yield number, data[at : at + size]
            at += size


def test_crc32c_of_this_test_is_the_standards():
    assert crc32c(b"123456789") == 0xE3069283


def test_tensorboard_events(model):
    result = run(model, "--tensorboard", model / "tb", "--log", model / "log", "--peak-tflops", 1, steps=3)
    assert result.returncode == 0, result.stderr
    (path,) = (model / "tb").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    events = [list(fields(record)) for record in records(path.read_bytes())]
    assert dict(events[0])[3] == b"brain.Event:2"
    entries = logged(model / "log")
    assert len(events) == 4
    for event, entry in zip(events[1:], entries):
        event = dict(event)
        assert event[2] == entry["step"] and struct.unpack("<d", event[1])[0] > 1.6e9
        scalars = {}
        for number, value in fields(event[5]):
            assert number == 1
            value = dict(fields(value))
            scalars[value[1].decode()] = struct.unpack("<f", value[2])[0]
        assert scalars["train/loss"] == pytest.approx(entry["loss"], rel=1e-6)
        assert scalars["train/lr"] == pytest.approx(entry["lr"], rel=1e-6)
        assert scalars["train/memory_bytes"] == pytest.approx(entry["memory_bytes"], rel=1e-6)
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    except ImportError:
        return  # the reader above has read it
    assert len(list(EventFileLoader(str(path)).Load())) == 4


def test_measured_costs_price_the_plan(model):
    """The run's losses are those of a run that is not measured; every operator of a section that ran has a time, and heddle-inspect predicts from them."""
    plain, measured = run(model, "--log", model / "plain.jsonl"), run(model, "--measure", "--log", model / "measured.jsonl")
    assert plain.returncode == 0 and measured.returncode == 0, measured.stderr
    assert [line["loss"] for line in logged(model / "plain.jsonl")] == [line["loss"] for line in logged(model / "measured.jsonl")]
    costs = json.loads((model / "token.plan.costs.json").read_text())
    assert costs["format"] == "heddle.costs" and costs["version"] == 1
    assert all(entry["runs"] >= 4 and entry["microseconds"] > 0 for entry in costs["operators"])
    assert costs["memory"]["workspaces"] > 0 and costs["memory"]["products"] == 0
    assert any(entry["operator"].startswith("aten::embedding ") and " -> " in entry["operator"] for entry in costs["operators"])
    assert "collectives" not in costs
    priced = inspect(model / "token.plan", "--costs", model / "token.plan.costs.json")
    assert priced.returncode == 0 and "ops as measured" in priced.stdout and "as measured" not in inspect(model / "token.plan").stdout
    (model / "old.json").write_text(json.dumps({**costs, "version": 0}))
    (model / "other.json").write_text("[]")
    for name, message in (("old.json", "costs of version 0, this reads 1"), ("other.json", "not what heddle-run --measure writes"), ("none.json", "cannot read")):
        refused = inspect(model / "token.plan", "--costs", model / name)
        assert refused.returncode == 1 and message in refused.stderr
