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

    @property
    def moments_dtype(self):
        return self.state_dtype

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


_MUON_KEYS = ("momentum", "nesterov", "momentum_form", "ns", "coefficients", "ns_steps", "ns_dtype", "scale", "split", "eps", "norm_eps", "state_dtype")
_MUON_CHOICES = {
    "momentum_form": ("torch", "ema"),
    "ns": ("gram", "standard"),
    "scale": ("match_rms", "original", "spectral", "none"),
    "norm_eps": ("add", "clamp"),
    "ns_dtype": PRECISIONS,
    "state_dtype": PRECISIONS,
}
_COEFFICIENTS = ("keller_jordan", "you", "polar_express")


@options
class Muon:
    """Momentum orthogonalised by Newton-Schulz (Jordan, 2024) for matrices, AdamW for the rest.

    Each matrix, and each matrix of a stack [E, m, n], is updated by itself: `p = p (1 - lr weight_decay) - lr scale U` with U near the orthogonal factor of its momentum.

    Args:
      lr: the base learning rate; a schedule's factor multiplies it, and `adamw`'s keeps its ratio to it.
      adamw: heddle.AdamW for embeddings, head, norms, biases and router biases.
      momentum, nesterov, momentum_form: "torch" is m = momentum m + g (torch.optim.Muon before 2.9, Moonlight), "ema" m = lerp(m, g, 1 - momentum) (Keller Jordan,
        torch.optim.Muon since).
      weight_decay: decoupled.
      ns: "gram" iterates on the Gram matrix, restarted where rounding would grow; "standard" is the quintic iteration itself. Square matrices take the latter.
      coefficients: "keller_jordan", "you", "polar_express" or a list of (a, b, c), one an iteration, the last repeated up to `ns_steps`.
      ns_dtype: of the iterates; None: fp64 and fp32 plans their own, else fp16 for "gram" and bf16 for "standard".
      scale: "match_rms" 0.2 sqrt(max(m, n)) (Moonlight), "original" sqrt(max(1, m / n)), "spectral" sqrt(m / n), "none".
      split: {name glob: number of blocks of rows} for matrices that are several: heads of a projection, gate and up in one.
      eps, norm_eps: the norm is taken as |g| + eps ("add") or max(|g|, eps) ("clamp", torch.optim.Muon).
      state_dtype: of the momentum; None: max(fp32, precision).
      params: None (2-D weights and stacks by Muon, the rest by `adamw`), or a list of groups, dicts with "params" and any setting of their own; `use_muon=False` gives a group
        to AdamW (then `lr`, `betas`, `eps`, `weight_decay`). No parameter may be in two groups.
    """

    lr: float
    adamw: AdamW
    momentum: float = 0.95
    nesterov: bool = True
    momentum_form: str = "torch"
    weight_decay: float = 0.1
    ns: str = "gram"
    coefficients: str | list = "keller_jordan"
    ns_steps: int = 5
    ns_dtype: str | None = None
    scale: str = "match_rms"
    split: dict | None = None
    eps: float = 1e-7
    norm_eps: str = "add"
    state_dtype: str | None = None
    params: list | None = None

    def __post_init__(self):
        if not isinstance(self.adamw, AdamW):
            raise HeddleError(f"heddle.Muon: adamw={self.adamw!r} is no heddle.AdamW")
        if self.adamw.params is not None and self.params is not None:
            raise HeddleError("heddle.Muon: both it and its adamw have params; put all groups into Muon's, with use_muon=False for AdamW's")
        self._check("heddle.Muon", {name: getattr(self, name) for name in (*_MUON_KEYS, "lr", "weight_decay")})

    @staticmethod
    def _check(owner, settings):
        number(owner, "lr", settings["lr"], 0)
        number(owner, "weight_decay", settings["weight_decay"], 0)
        number(owner, "momentum", settings["momentum"], 0, 1)
        number(owner, "eps", settings["eps"], 0)
        for name, known in _MUON_CHOICES.items():
            choice(owner, name, settings[name], known)
            if settings[name] is None and not name.endswith("dtype"):
                raise HeddleError(f"{owner}: {name} is None; use one of {', '.join(known)}")
        steps, coefficients, split = settings["ns_steps"], settings["coefficients"], settings["split"]
        if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= 32:
            raise HeddleError(f"{owner}: ns_steps={steps!r} is not in 1 to 32")
        if not isinstance(settings["nesterov"], bool):
            raise HeddleError(f"{owner}: nesterov={settings['nesterov']!r} is neither True nor False")
        if isinstance(coefficients, str):
            choice(owner, "coefficients", coefficients, _COEFFICIENTS)
        elif not coefficients or any(len(triple) != 3 for triple in coefficients):
            raise HeddleError(f"{owner}: coefficients={coefficients!r} is neither a name nor a list of (a, b, c)")
        else:
            for triple in coefficients:
                for value in triple:
                    number(owner, "a coefficient", value)
        for name, blocks in (split or {}).items():
            if not isinstance(blocks, int) or isinstance(blocks, bool) or blocks < 1:
                raise HeddleError(f"{owner}: split of '{name}' is {blocks!r}, not a number of blocks")

    @property
    def moments_dtype(self):
        """Of AdamW's moments; the momentum's own goes with its group."""
        return self.adamw.state_dtype

    def compiler_options(self, names) -> dict:
        """What the compiler takes; see AdamW.compiler_options."""
        rest = self.adamw.compiler_options(names)
        whole = {"kind": "muon", **{key: rest[key] for key in ("betas", "eps", "weight_decay")}}
        if self.params is None:
            scale = self._ratio(self.adamw.lr)
            others = [{**group, "lr_scale": group["lr_scale"] * scale} for group in rest.get("groups", [{"params": ["*"], "lr_scale": 1.0}])]
            whole["groups"] = [{**self._muon_group("heddle.Muon", {"params": ["*"]}, names), "roles": ["matrix", "stack"]}, *others]
            return whole
        whole["groups"] = []
        taken = {}
        for index, group in enumerate(_groups(self.params)):
            owner = f"heddle.Muon: group {index}"
            found = self._muon_group(owner, group, names) if group.get("use_muon", True) else self._adamw_group(owner, group, names)
            for name in names:
                if any(fnmatch.fnmatchcase(name, glob) for glob in found["params"]):
                    if name in taken:
                        raise HeddleError(f"{owner} takes '{name}', which group {taken[name]} has; groups must not overlap")
                    taken[name] = index
            whole["groups"].append(found)
        return whole

    def _ratio(self, lr):
        if self.lr == 0 and lr != 0:
            raise HeddleError(f"heddle.Muon: a group has lr={lr} and the base lr is 0: give heddle.Muon the lr that the schedule multiplies")
        return lr / self.lr if self.lr else 1.0

    def _names(self, owner, group, names, known):
        for key in group:
            if key not in known:
                raise HeddleError(f"{owner} has no option '{key}'{nearest(key, known)}")
        if "params" not in group:
            raise HeddleError(f"{owner} has no 'params'")
        entries = group["params"]
        entries = [entries] if isinstance(entries, (str, torch.Tensor)) else list(entries)
        return [_name_of(owner, entry, names) for entry in entries]

    def _muon_group(self, owner, group, names):
        params = self._names(owner, group, names, ("params", "use_muon", "lr", "weight_decay", *_MUON_KEYS))
        settings = {**{key: getattr(self, key) for key in (*_MUON_KEYS, "lr", "weight_decay")}, **group}
        self._check(owner, settings)
        for glob in settings["split"] or {}:
            _name_of(f"{owner}: split", glob, names)
        muon = {key: settings[key] for key in _MUON_KEYS if settings[key] is not None}
        if not isinstance(settings["coefficients"], str):
            muon["coefficients"] = [[float(value) for value in triple] for triple in settings["coefficients"]]
        return {"params": params, "weight_decay": settings["weight_decay"], "lr_scale": self._ratio(settings["lr"]), "muon": muon}

    def _adamw_group(self, owner, group, names):
        params = self._names(owner, group, names, ("use_muon", *_GROUP_KEYS))
        base = self.adamw
        settings = {"lr": base.lr, "betas": base.betas, "eps": base.eps, "weight_decay": base.weight_decay, **group}
        _check_numbers(owner, settings["lr"], settings["betas"], settings["eps"], settings["weight_decay"])
        return {"params": params, "lr_scale": self._ratio(settings["lr"]), "betas": list(settings["betas"]), "eps": settings["eps"], "weight_decay": settings["weight_decay"]}


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
