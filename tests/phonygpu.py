"""An accelerator that any laptop has: it computes on the CPU, and only with what was moved to it.

Its tensors hold real numbers, so results can be compared with the CPU's. As on a GPU, an operation
on tensors of both is an error, and so are `.numpy()` of its tensors and generators of the CPU.
It cannot be unregistered: import this module only in a process of its own.
"""

import torch
from torch.library import Library, fallthrough_kernel
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("phonygpu")
torch.phonygpu.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
DEVICE, CPU = torch.device("phonygpu:0"), torch.device("cpu")
aten = torch.ops.aten
#: What a GPU does with tensors of both: copies, and picking by indices that are on the CPU.
_COPIES = (aten._to_copy.default, aten.copy_.default)
_PICKS = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)
#: What CUDA's autocast computes in 16 bit, of what our networks use.
_HALVED = (
    "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv1d", "conv2d",
    "conv_transpose2d.input", "scaled_dot_product_attention",
)  # fmt: skip
#: And in 32 bit.
_WIDENED = (
    "layer_norm", "softmax.int", "log_softmax.int", "cosine_similarity", "exp", "rsqrt",
    "binary_cross_entropy_with_logits", "sum", "sum.dim_IntList",
)  # fmt: skip


class OnPhonyGpu(torch.Tensor):
    """A tensor of the device; `inner` holds its numbers."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner: torch.Tensor):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        here = [t for t in tensors if not isinstance(t, cls) and t.ndim]
        picks = operation in _PICKS and isinstance(args[0], cls)
        if here and operation not in _COPIES and not picks:
            raise RuntimeError(f"{operation}: expected all tensors to be on the same device")
        if kwargs.get("generator") is not None:
            raise RuntimeError(f"{operation}: expected a generator of {DEVICE}")
        there = torch.device(kwargs.get("device") or DEVICE).type == DEVICE.type
        if operation is aten.copy_.default:
            there = isinstance(args[0], cls)
        own = kwargs | ({"device": CPU} if "device" in kwargs else {})
        out = operation(*tree_map(_numbers, args), **tree_map(_numbers, own))
        if not there:
            return args[0] if operation is aten.copy_.default else out
        with torch.inference_mode(False):  # a view of weights is no inference tensor
            wrapped = tree_map(lambda t: cls(t) if isinstance(t, torch.Tensor) else t, out)
        return return_and_correct_aliasing(operation, args, kwargs, wrapped)

    def tolist(self):
        return self.inner.tolist()

    def __repr__(self):
        return f"OnPhonyGpu({self.inner})"


def _numbers(value):
    return value.inner if isinstance(value, OnPhonyGpu) else value


def _empty(size, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    shape = memory_format or torch.contiguous_format
    return OnPhonyGpu(torch.empty(size, dtype=dtype, memory_format=shape, device=CPU))


def _empty_strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    return OnPhonyGpu(torch.empty_strided(size, stride, dtype=dtype, device=CPU))


def _made_here(operation):
    """A factory that would size its tensor only after making it."""

    def kernel(*args, device=None, **kwargs):
        return OnPhonyGpu(operation(*args, device=CPU, **kwargs))

    return kernel


def _copy_from(source, target, non_blocking=False):
    _numbers(target).copy_(_numbers(source))
    return target


def _autocast(name: str, pick_dtype) -> None:
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(aten, packet), overload or "default")
    autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(value):
        floating = isinstance(value, torch.Tensor) and value.dtype.is_floating_point
        is_double = floating and value.dtype == torch.float64
        return value.to(pick_dtype()) if floating and not is_double else value

    def kernel(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(autocast):
            return operation(*tree_map(cast, args), **tree_map(cast, kwargs))

    _ATEN.impl(name, kernel, "AutocastPrivateUse1")


_ATEN, _ANY = Library("aten", "IMPL"), Library("_", "IMPL")
for _name, _kernel in {
    "empty.memory_format": _empty, "empty_strided": _empty_strided, "_copy_from": _copy_from,
    "arange.start": _made_here(aten.arange.start), "eye": _made_here(aten.eye.default),
}.items():  # fmt: skip
    _ATEN.impl(_name, _kernel, "PrivateUse1")
_ANY.fallback(fallthrough_kernel, "AutocastPrivateUse1")
for _name in _HALVED:
    _autocast(_name, lambda: torch.get_autocast_dtype(DEVICE.type))
for _name in _WIDENED:
    _autocast(_name, lambda: torch.float32)


class Moves:
    """Counts the arrays and weights that are moved to the device, and leaves one of them behind.

    Args:
        monkeypatch: Of pytest.
        left_behind: Number of the one that stays on the CPU; None leaves none.
    """

    def __init__(self, monkeypatch, left_behind: int | None = None):
        self.count, move = 0, torch.Tensor.to

        def to(tensor, *args, **kwargs):
            moved = move(tensor, *args, **kwargs)
            if tensor.device == CPU and moved.device == DEVICE and moved.ndim:
                self.count += 1
                if self.count - 1 == left_behind:
                    return tensor
            return moved

        monkeypatch.setattr(torch.Tensor, "to", to)
