"""The virtual environment has what the tests import."""

import torch
import transformers


def test_versions():
    assert torch.__version__.startswith("2.11.0")
    assert transformers.__version__ == "5.17.0"
