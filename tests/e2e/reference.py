"""What tests of training share: batches, and eager PyTorch in float64 all through."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

IGNORED = -100


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors of these sizes gain nothing from a second thread, and lose much where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Fp64Inside(TorchFunctionMode):
    """Raises the casts to fp32 that Hugging Face does inside RMSNorm, rotary embedding and loss."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        raised = lambda value: torch.float64 if value is torch.float32 else value  # noqa: E731
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*(raised(a) for a in args), **{key: raised(value) for key, value in (kwargs or {}).items()})


def micro_batch(index, valid, batch=2, seq=16):
    """Random tokens of which the first `valid` of each row are labels."""
    ids = torch.randint(3, 320, (batch, seq), generator=torch.Generator().manual_seed(index))
    labels = ids.clone()
    labels[:, valid:] = IGNORED
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def joined(micros):
    return {name: torch.cat([micro[name] for micro in micros]) for name in micros[0]}
