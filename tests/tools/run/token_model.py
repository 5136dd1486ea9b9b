"""A model of one embedding, and heddle-run on its plans: what the tests of heddle-run share."""

import json
import os
import pathlib
import subprocess

import pytest
import torch
from safetensors.torch import save_file

LIBRARIES = pathlib.Path(os.environ["HEDDLE_LIB_DIR"])


@pytest.fixture
def model(tmp_path):
    """A folder of plans, `weights` and `data.safetensors`, 24 rows of 8 tokens."""
    subprocess.run([LIBRARIES / "write_plans", tmp_path], check=True)
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)
    save_file({"embed.weight": torch.randn(16, 4)}, tmp_path / "weights/model.safetensors", metadata={"format": "pt"})
    (tmp_path / "weights/config.json").write_text(json.dumps({"vocab_size": 16}))
    save_file({"input_ids": torch.randint(0, 16, (24, 8), dtype=torch.int32)}, tmp_path / "data.safetensors")
    return tmp_path


def command(model, *more, steps=4, plan="token.plan"):
    return [str(LIBRARIES / "heddle-run"), str(model / plan), "--weights", str(model / "weights"), "--data", str(model / "data.safetensors"), "--steps", str(steps), *map(str, more)]


def run(model, *more, **options):
    return subprocess.run(command(model, *more, **options), capture_output=True, text=True)


def inspect(*arguments):
    return subprocess.run([str(LIBRARIES / "heddle-inspect"), *map(str, arguments)], capture_output=True, text=True)


def logged(path):
    """What --log wrote, step by step."""
    return [json.loads(line) for line in path.read_text().splitlines()]
