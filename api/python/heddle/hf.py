"""heddle.hf.Trainer: transformers.Trainer whose optimizer step is one compiled step over its gradient_accumulation_steps micro-batches.

The loop, data, callbacks, logging, evaluation and files are transformers' own. Heddle holds weights and moments while training: `optimizer` is a view on them, `lr_scheduler` is
transformers' own scheduler on that view, and `model` is brought up to date before it is evaluated, saved or handed back.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
import warnings

import torch
import transformers
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from . import deepspeed as _deepspeed
from ._batches import flatten_batch
from .errors import HeddleError, HeddleWarning
from .optim import AdamW, Muon
from .plan import Plan
from .step import compile

# Training arguments that a compiled step cannot honour: (name, value that asks for nothing, what to do).
_REFUSED = (
    ("deepspeed", None, "pass the configuration as heddle.hf.Trainer(plan=...)"),
    ("parallelism_config", None, "Heddle does the sharding; see heddle.Plan"),
    ("torch_compile", False, "the step is compiled already"),
    ("use_liger_kernel", False, "its kernels read data pointers, which a captured step does not have"),
    ("label_smoothing_factor", 0.0, "the loss is the model's own; smooth in the model"),
    ("neftune_noise_alpha", None, "its noise is drawn outside the step"),
    ("auto_find_batch_size", False, "a compiled step plans its memory beforehand; give a batch size"),
    ("optim_target_modules", None, "Heddle trains whole parameters"),
    ("optim_args", None, "give heddle.hf.Trainer(optimizer=heddle.AdamW(...)) instead"),
)
_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")


def _check_arguments(args):
    for name, neutral, remedy in _REFUSED:
        value = getattr(args, name, neutral)
        if value != neutral and value not in (None, [], ""):
            raise HeddleError(f"TrainingArguments.{name}={value!r} cannot be honoured by a compiled step: {remedy}")
    if getattr(args, "fsdp", None):
        raise HeddleError(f"TrainingArguments.fsdp={args.fsdp!r} cannot be honoured by a compiled step: Heddle does the sharding; see heddle.Plan")
    optim = getattr(args.optim, "value", args.optim)
    if optim not in _OPTIMIZERS:
        raise HeddleError(f"TrainingArguments.optim={optim!r} is no optimizer of Heddle's; use one of {', '.join(_OPTIMIZERS)}")
    if args.n_gpu > 1:
        raise HeddleError(f"TrainingArguments has {args.n_gpu} GPUs in one process, and a rank has one: start a process for each with torchrun, or set CUDA_VISIBLE_DEVICES")


class Optimizer(torch.optim.Optimizer):
    """What transformers takes for its optimizer: groups with the model's parameters, whose moments lie in Heddle's state. `step` does nothing, the compiled step has updated."""

    def __init__(self, groups, defaults, names):
        self._names, self._step, self._pending, self._gathered = names, None, None, None
        super().__init__(groups, defaults)

    def attach(self, step):
        """From now on the moments are those of `step`; what was loaded before goes into it."""
        self._step = step
        pending, self._pending = self._pending, None
        if pending is not None:
            self._fill(pending)

    @property
    def state(self):
        if self._step is None:
            return {}
        found = self._step.optimizer_state_dict()
        count = torch.tensor(float(found["step"]))
        by_name = {name: parameter for parameter, name in self._names.items()}
        # A tied parameter's moments stand under one of its names.
        return {by_name[name]: {"step": count.clone(), **moments} for name, moments in found["state"].items() if name in by_name}

    @state.setter
    def state(self, value):
        pass  # torch gives every optimizer an empty state; Heddle's is the step's

    @torch.no_grad()
    def step(self, closure=None):
        return None if closure is None else closure()

    def zero_grad(self, set_to_none=True):
        pass  # a compiled step leaves no gradients

    def _parameters(self):
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @contextlib.contextmanager
    def gathered(self):
        """Within it one process alone may ask for `state_dict`; every process enters, since the moments lie on all of them."""
        self._gathered = self.state_dict()
        try:
            yield
        finally:
            self._gathered = None

    def state_dict(self):
        if self._gathered is not None:
            return self._gathered
        if self._step is None and self._pending is not None:
            return self._pending
        order = {id(parameter): i for i, parameter in enumerate(self._parameters())}
        groups, at = [], 0
        for group in self.param_groups:
            groups.append({**{key: value for key, value in group.items() if key != "params"}, "params": list(range(at, at + len(group["params"])))})
            at += len(group["params"])
        state = {order[id(parameter)]: dict(moments) for parameter, moments in self.state.items() if id(parameter) in order}
        if self._step is not None:
            masters = {name: tensor for kind, name, tensor in self._step._state(("master",))}
            for parameter, index in ((parameter, order[id(parameter)]) for parameter in self._parameters()):
                if self._names[parameter] in masters and index in state:
                    state[index]["master"] = masters[self._names[parameter]]
        found = {"state": state, "param_groups": groups}
        scaler = {name: tensor for kind, name, tensor in self._step._state(("scaler",))} if self._step is not None else {}
        return {**found, "scaler": scaler} if scaler else found

    def load_state_dict(self, state_dict):
        if [len(group["params"]) for group in state_dict["param_groups"]] != [len(group["params"]) for group in self.param_groups]:
            raise HeddleError("the optimizer state has other parameter groups than this model; was the checkpoint made with another model or weight decay?")
        for group, loaded in zip(self.param_groups, state_dict["param_groups"]):
            group.update({key: value for key, value in loaded.items() if key != "params"})
        if self._step is None:
            self._pending = state_dict
        else:
            self._fill(state_dict)

    def _fill(self, state_dict):
        parameters, executable, counts = self._parameters(), self._step._executable, set()
        kept = self._step.optimizer_state_dict()["state"]
        for index, entry in state_dict["state"].items():
            name = self._names[parameters[index]]
            counts.add(int(entry["step"]))
            kinds = set(entry) - {"step", "master"}
            if name in kept and kinds != set(kept[name]):
                raise HeddleError(f"the optimizer state has {', '.join(sorted(kinds))} of '{name}', which is updated with {', '.join(sorted(kept[name]))}; was the checkpoint made with another optimizer?")
            for kind in kinds:
                executable.set_state(kind, name, entry[kind])
            if "master" in entry:
                executable.set_state("master", name, entry["master"])
        if len(counts) > 1:
            raise HeddleError(f"the optimizer state has parameters of {sorted(counts)} updates; Heddle counts all of them together")
        for name, tensor in state_dict.get("scaler", {}).items():
            executable.set_state("scaler", name, tensor)
        self._step.global_step = counts.pop() if counts else 0


class Trainer(transformers.Trainer):
    """transformers.Trainer on a compiled step.

    Args (beside transformers' own):
      plan: heddle.Plan, or a DeepSpeed configuration (path or dict) whose "auto" values are taken from the TrainingArguments. None: clipping, precision and seed as the
        TrainingArguments say. `bf16=True` there is Plan(precision="bf16"): parameters are presented in bf16, masters, moments and sums are fp32. `fp16=True` is
        Plan(precision="fp16"), the same in fp16 with a dynamic loss scale, on the CPU too.
      loss: callable(outputs, batch) -> scalar, as in heddle.compile; None takes the model's own.
      optimizer: heddle.AdamW or heddle.Muon, taken as it is: its lr and decay, not those of the TrainingArguments, whose scheduler and clipping hold. None: the DeepSpeed configuration's
        Muon, else AdamW as the TrainingArguments say.

    The loss is averaged as transformers does: over all labels of an update where the model takes `num_items_in_batch`, else over its micro-batches. `model` holds the trained weights
    after `train()`, in evaluation and in what is saved; a callback that reads it in between calls `trainer.sync()` first, on every process.

    Under torchrun the processes are the ranks of the plan; data, logging and files are divided among them as transformers does.
    """

    def __init__(self, *args, plan=None, loss=None, optimizer=None, **kwargs):
        self._plan, self._loss, self._given, self.compiled, self._waiting, self._fresh = plan, loss, optimizer, None, [], True
        if optimizer is not None and not isinstance(optimizer, (AdamW, Muon)):
            raise HeddleError(f"heddle.hf.Trainer: optimizer={optimizer!r} is neither a heddle.AdamW nor a heddle.Muon")
        if kwargs.get("compute_loss_func") is not None:
            raise HeddleError("compute_loss_func cannot be recorded with the number of items; pass heddle.hf.Trainer(loss=callable(outputs, batch))")
        if any(part is not None for part in kwargs.get("optimizers") or ()) or kwargs.get("optimizer_cls_and_kwargs") is not None:
            raise HeddleError("the optimizer is Heddle's: its settings come from the TrainingArguments or heddle.hf.Trainer(optimizer=...), its scheduler from lr_scheduler_type; leave optimizers out")
        super().__init__(*args, **kwargs)
        _check_arguments(self.args)
        for method in ("compute_loss", "training_step"):
            own = Trainer if method == "training_step" else transformers.Trainer
            if getattr(type(self), method) is not getattr(own, method):
                raise HeddleError(f"{type(self).__name__}.{method} is overridden, and a compiled step does not call it; pass loss=callable(outputs, batch)")

    # What transformers creates

    def _build_accelerator_args(self, **kwargs):
        """accelerate's own loss scale would look for gradients that a compiled step does not leave."""
        args = super()._build_accelerator_args(**kwargs)
        return {**args, "mixed_precision": "no"} if self.args.fp16 else args

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        if self.accelerator.num_processes > 1:
            # Processes meet in the compiled step: wrapped for DistributedDataParallel the model would be a second meeting, and one that a capture refuses.
            self.accelerator.prepare_model = lambda model, *args, **kwargs: model

    def create_optimizer(self, model=None):
        if self.optimizer is not None:
            return self.optimizer
        args, decays = self.args, set(self.get_decay_parameter_names(self.model))
        named = [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        names, (_, chosen) = {parameter: name for name, parameter in named}, self._configuration
        if chosen is not None:
            self._base = chosen.lr
            self.optimizer = Optimizer([{"params": list(names)}], {"lr": chosen.lr, "weight_decay": chosen.weight_decay}, names)
            return self.optimizer
        groups = [
            {"params": [parameter for name, parameter in named if (name in decays) == decayed], "weight_decay": args.weight_decay if decayed else 0.0}
            for decayed in (True, False)
        ]
        defaults = {"lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
        self.optimizer = Optimizer(groups, defaults, names)
        self._base = args.learning_rate
        return self.optimizer

    @functools.cached_property
    def _configuration(self):
        """(heddle.Plan, the optimizer, or None for AdamW as the TrainingArguments say)."""
        if _deepspeed.is_configuration(self._plan):
            return self._configured(_deepspeed.read(self._plan, auto=self._auto()))
        plan = self._plan
        if plan is None:
            plan = Plan(clip=self.args.max_grad_norm or None, precision="bf16" if self.args.bf16 else "fp16" if self.args.fp16 else None, seed=self.args.seed)
        if plan.loss_average is None:
            plan = dataclasses.replace(plan, loss_average="tokens" if self.model_accepts_loss_kwargs and self._loss is None else "batches")
        return plan, self._given

    def _configured(self, found):
        for name, value, ours in (
            ("gradient_accumulation_steps", found.accumulation, self.args.gradient_accumulation_steps),
            ("train_micro_batch_size_per_gpu", found.micro_batch, self.args.per_device_train_batch_size),
        ):
            if value not in (None, ours):
                raise HeddleError(f"the DeepSpeed configuration's {name} is {value}, and the TrainingArguments say {ours}; write \"auto\" there")
        if found.optimizer is not None and self._given is not None:
            warnings.warn("heddle.hf.Trainer: optimizer= given in code is taken instead of the DeepSpeed configuration's", HeddleWarning, stacklevel=3)
        elif found.optimizer is not None:
            ours = {"lr": self.args.learning_rate, "weight_decay": self.args.weight_decay}
            if isinstance(found.optimizer, AdamW):
                ours |= {"betas": (self.args.adam_beta1, self.args.adam_beta2), "eps": self.args.adam_epsilon}
            for name, value in ours.items():
                if getattr(found.optimizer, name, None) != value:
                    raise HeddleError(f'the DeepSpeed configuration\'s optimizer has {name}={getattr(found.optimizer, name, None)!r}, and the TrainingArguments say {value!r}; write "auto" there')
        if found.schedule is not None:
            raise HeddleError("the DeepSpeed configuration has a scheduler, and the Trainer's is lr_scheduler_type; leave the scheduler out")
        return found.plan, self._given or (found.optimizer if isinstance(found.optimizer, Muon) else None)

    def _auto(self):
        """What transformers fills in for "auto"."""
        args = self.args
        return {
            "train_batch_size": args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "train_micro_batch_size_per_gpu": args.per_device_train_batch_size,
            "gradient_accumulation_steps": args.gradient_accumulation_steps,
            "gradient_clipping": args.max_grad_norm,
            "optimizer.params.lr": args.learning_rate,
            "optimizer.params.betas": [args.adam_beta1, args.adam_beta2],
            "optimizer.params.eps": args.adam_epsilon,
            "optimizer.params.weight_decay": args.weight_decay,
            "bf16.enabled": args.bf16,
            "fp16.enabled": args.fp16,
        }

    def _compile(self, example):
        plan, optimizer = self._configuration
        view = getattr(self.optimizer, "optimizer", self.optimizer)
        groups = [{"params": group["params"], "weight_decay": group["weight_decay"]} for group in view.param_groups if group["params"]]
        args = self.args
        optimizer = optimizer or AdamW(lr=self._base, betas=(args.adam_beta1, args.adam_beta2), eps=args.adam_epsilon, weight_decay=args.weight_decay, params=groups)
        # accelerate puts autocast around the forward for bf16; Heddle's precision takes its place.
        model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        model.train()
        self.compiled = compile(model, example, self._loss, optimizer, lambda _: view.param_groups[0]["lr"] / self._base if self._base else 0.0, plan, self.args.device.type)
        view.attach(self.compiled)

    # The loop's parts

    def _inner_training_loop(self, *args, **kwargs):
        # transformers starts every train() from the model's weights with a fresh or a loaded optimizer.
        self.compiled, self._waiting, self.optimizer, self._fresh = None, [], None, True
        self.__dict__.pop("_configuration", None)
        self._tokens, self._began = 0, time.perf_counter()
        return super()._inner_training_loop(*args, **kwargs)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Keeps the micro-batch; with the update's last one the compiled step runs, and its loss is returned."""
        inputs = dict(self._prepare_inputs(inputs))
        self._waiting.append(inputs)
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        if self.compiled is None:
            self._compile(inputs)
        micros, self._waiting = self._waiting, []
        self._out = self.compiled(micros)
        self._fresh = False
        self._tokens += sum(next(iter(flatten_batch(micro).values())).numel() for micro in micros)
        if hasattr(self.optimizer, "_is_overflow"):
            self.optimizer._is_overflow = self._out.skipped
        return torch.tensor(self._out.loss, device=self.args.device)

    def _clip_grad_norm(self, model):
        return self._out.grad_norm

    def _get_grad_norm(self, model, grad_norm=None):
        return self._out.grad_norm

    def log(self, logs, *args, **kwargs):
        if "loss" in logs and self.compiled is not None:
            now = time.perf_counter()
            logs["tokens_per_second"] = round(self._tokens / max(now - self._began, 1e-9), 1)
            logs["memory_gib"] = round(sum(self.compiled.explain()["memory"].values()) / 2**30, 3)
            self._tokens, self._began = 0, now
        super().log(logs, *args, **kwargs)

    # The model, whenever somebody looks

    def sync(self):
        """Brings `model` up to date with the compiled step."""
        if self.compiled is not None and not self._fresh:
            self.compiled.sync(self.model)
            self._fresh = True

    def evaluation_loop(self, *args, **kwargs):
        self.sync()
        return super().evaluation_loop(*args, **kwargs)

    # Weights and moments are gathered: every process takes part in what one of them writes.

    def save_model(self, output_dir=None, _internal_call=False):
        self.sync()
        super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir):
        with getattr(self.optimizer, "optimizer", self.optimizer).gathered():
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint):
        """Moments go into Heddle's state from the host. transformers would put them on args.device, which with several processes on the CPU is a "cpu:0" that torch.load does not know."""
        if checkpoint is None:
            return
        folder = pathlib.Path(checkpoint)
        paths = [folder / name for name in (OPTIMIZER_NAME, SCHEDULER_NAME)]
        if all(path.is_file() for path in paths):
            for owner, path in zip((self.optimizer, self.lr_scheduler), paths):
                owner.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def _finalize_training(self, *args, **kwargs):
        self.sync()
        return super()._finalize_training(*args, **kwargs)

    def _load_best_model(self):
        super()._load_best_model()
        self._fresh = True
