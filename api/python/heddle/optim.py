"""Optimizers as the compiler takes them: numbers and parameter groups, no state."""

import collections.abc
import fnmatch

import torch

from ._names import choice, nearest, number, options
from .capture import PRECISIONS
from .errors import HeddleError

_GROUP_KEYS = ("params", "lr", "betas", "eps", "weight_decay")


@options
class AdamW:
    """Decoupled weight decay (Loshchilov and Hutter, 2019) with the arithmetic of `torch.optim.AdamW(foreach=False)`.

    Args:
      lr: the base learning rate; a schedule's factor multiplies it.
      betas, eps, weight_decay: as in torch.
      state_dtype: "fp64", "fp32", "bf16", "fp16" of the moments; None: max(fp32, precision).
      params: None (every trainable parameter) or a list of groups, dicts whose "params" are parameters, names or globs over names, with `lr`, `betas`, `eps`,
        `weight_decay` of their own. The first group that takes a parameter has it; one that no group takes is an error, as is an entry that takes nothing.
    """

    lr: float = 1e-4
    betas: tuple = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    state_dtype: str | None = None
    params: list | None = None

    def __post_init__(self):
        _check_numbers("heddle.AdamW", self.lr, self.betas, self.eps, self.weight_decay)
        choice("heddle.AdamW", "state_dtype", self.state_dtype, PRECISIONS)

    def compiler_options(self, names) -> dict:
        """What the compiler takes. `names` maps the parameters' names to the parameters (or to None where there is only a program)."""
        whole = {"kind": "adamw", "betas": list(self.betas), "eps": self.eps, "weight_decay": self.weight_decay}
        if self.params is not None:
            whole["groups"] = [self._group(i, group, names) for i, group in enumerate(_groups(self.params))]
        return whole

    def _group(self, index, group, names):
        owner = f"heddle.AdamW: group {index}"
        for key in group:
            if key not in _GROUP_KEYS:
                raise HeddleError(f"{owner} has no option '{key}'{nearest(key, _GROUP_KEYS)}")
        if "params" not in group:
            raise HeddleError(f"{owner} has no 'params'")
        settings = {"lr": self.lr, "betas": self.betas, "eps": self.eps, "weight_decay": self.weight_decay, **group}
        _check_numbers(owner, settings["lr"], settings["betas"], settings["eps"], settings["weight_decay"])
        if self.lr == 0 and settings["lr"] != 0:
            raise HeddleError(f"{owner} has lr={settings['lr']} and the base lr is 0: give heddle.AdamW the lr that the schedule multiplies")
        entries = group["params"]
        entries = [entries] if isinstance(entries, (str, torch.Tensor)) else list(entries)
        return {
            "params": [_name_of(owner, entry, names) for entry in entries],
            "lr_scale": settings["lr"] / self.lr if self.lr else 1.0,
            "betas": list(settings["betas"]),
            "eps": settings["eps"],
            "weight_decay": settings["weight_decay"],
        }


def _check_numbers(owner, lr, betas, eps, weight_decay):
    number(owner, "lr", lr, 0)
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise HeddleError(f"{owner}: betas={betas!r} is not a pair of numbers")
    for beta in betas:
        number(owner, "a beta", beta, 0, 1)
    number(owner, "eps", eps, 0)
    number(owner, "weight_decay", weight_decay, 0)


def _groups(params):
    """`params` as a list of groups: torch's habit of one plain list of parameters is one group."""
    if isinstance(params, (dict, str, torch.Tensor)):
        params = [params]
    if not isinstance(params, collections.abc.Iterable):
        raise HeddleError(f"heddle.AdamW: params={params!r} is not a list of groups")
    params = list(params)
    if not params:
        raise HeddleError("heddle.AdamW: params is empty, so there is nothing to train")
    plain = [entry for entry in params if not isinstance(entry, dict)]
    if plain and len(plain) != len(params):
        raise HeddleError("heddle.AdamW: params mixes groups (dicts) and parameters; put the parameters in a group of their own")
    return [{"params": plain}] if plain else params


def _name_of(owner, entry, names):
    """The name or glob under which the compiler finds `entry`."""
    if isinstance(entry, torch.Tensor):
        for name, parameter in names.items():
            if parameter is entry:
                return name
        raise HeddleError(f"{owner}: a tensor of shape {tuple(entry.shape)} is no parameter of the model")
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str):
        entry = entry[0]  # what named_parameters() yields
    if not isinstance(entry, str):
        raise HeddleError(f"{owner}: {entry!r} is no parameter, name or glob")
    if not any(fnmatch.fnmatchcase(name, entry) for name in names):
        raise HeddleError(f"{owner}: '{entry}' takes no parameter{nearest(entry, names)}")
    return entry
