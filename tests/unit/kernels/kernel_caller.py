"""`call(kernel, tensors, results, scalars)`: one kernel of the registry on torch tensors, wherever they lie.

The library is $HEDDLE_LIB_DIR/libkernel_caller.so (bazel build //tests/unit/kernels:kernel_caller)."""

import ctypes
import functools
import os

import torch

_ELEMENTS = {torch.bool: 0, torch.int64: 1, torch.float16: 2, torch.bfloat16: 3, torch.float32: 4, torch.float64: 5}


class _Tensor(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("element", ctypes.c_int32), ("rank", ctypes.c_int32), ("sizes", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64))]


class _Scalar(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("value", ctypes.c_double), ("address", ctypes.c_void_p), ("text", ctypes.c_char_p), ("integers", ctypes.POINTER(ctypes.c_int64)), ("count", ctypes.c_int32)]


def _tensor(name, tensor):
    if tensor is None:
        return _Tensor(name, None, 0, 0, None, None)
    shape = lambda numbers: (ctypes.c_int64 * len(numbers))(*numbers)
    return _Tensor(name, tensor.data_ptr(), _ELEMENTS[tensor.dtype], tensor.dim(), shape(tensor.shape), shape(tensor.stride()))


def _scalar(name, value):
    if isinstance(value, torch.Tensor):
        return _Scalar(name, 0, value.data_ptr(), None, None, -1)
    if isinstance(value, str):
        return _Scalar(name, 0, None, value.encode(), None, -1)
    if isinstance(value, list):
        return _Scalar(name, 0, None, None, (ctypes.c_int64 * len(value))(*value), len(value))
    return _Scalar(name, value, None, None, None, -1)


@functools.cache
def load(path):
    """heddle_call_kernel of one library; the folder's of $HEDDLE_LIB_DIR is what `call` takes."""
    function = ctypes.CDLL(path).heddle_call_kernel
    function.restype = ctypes.c_char_p
    tensors, number = ctypes.POINTER(_Tensor), ctypes.c_int
    function.argtypes = [ctypes.c_char_p, number, tensors, number, tensors, number, ctypes.POINTER(_Scalar), number]
    function.argtypes += [ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(ctypes.c_int64), ctypes.c_void_p]
    return function


def call(kernel, tensors, results, library=None, **scalars):
    """`tensors`: {name: tensor or list}. `results`: tensors that are written, None where nobody reads. `scalars`: numbers, texts, lists of integers, or float64 tensors on the GPU. `library`: another path than $HEDDLE_LIB_DIR's.

    A workspace is PyTorch's, so that a graph of PyTorch's that records the call keeps it."""
    function = load(library or os.path.join(os.environ["HEDDLE_LIB_DIR"], "libkernel_caller.so"))
    flat = [(name.encode(), t) for name, value in tensors.items() for t in (value if isinstance(value, list) else [value])]
    inputs = (_Tensor * len(flat))(*(_tensor(name, t) for name, t in flat))
    outputs = (_Tensor * len(results))(*(_tensor(None, t) for t in results))
    numbers = (_Scalar * len(scalars))(*(_scalar(n.encode(), v) for n, v in scalars.items()))
    device = next(t.is_cuda for _, t in flat)
    stream = torch.cuda.current_stream().cuda_stream if device else None
    arguments = (kernel.encode(), device, inputs, len(flat), outputs, len(results), numbers, len(scalars))
    needed = ctypes.c_int64(0)
    error = function(*arguments, None, 0, ctypes.byref(needed), stream)
    if not error:
        workspace = torch.empty(needed.value, dtype=torch.uint8, device="cuda") if needed.value else None
        error = function(*arguments, workspace.data_ptr() if needed.value else None, needed.value, None, stream)
    if error:
        raise RuntimeError(error.decode())
