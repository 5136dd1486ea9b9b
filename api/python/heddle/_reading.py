"""Values that a step reports, on their way to the host while the device goes on."""

import torch


class Reading:
    """One element of a device, copied to the host where it stands now in the caller's stream; `value()` waits for that copy and for nothing that was enqueued after it."""

    def __init__(self, tensor):
        self.dtype = tensor.dtype
        self._done = None
        if tensor.is_cuda:
            self._tensor = torch.empty((), dtype=tensor.dtype, pin_memory=True)
            self._tensor.copy_(tensor, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()
        else:
            self._tensor = tensor

    def value(self):
        if self._done is not None:
            self._done.synchronize()
        return self._tensor.item()
