"""`python -m heddle.demo`: trains a small byte-level Llama on a text, the same steps in eager PyTorch beside it, and shows what was compiled.

On the CPU four ranks share each step, as threads of this process with ZeRO-3; eager PyTorch runs the whole batch at once, so that the two differ by the order of sums.

Everything that a run's losses depend on (data, sizes, seed, steps) is in its checkpoint, so `--resume` goes on to the losses of an unbroken run.
"""

import argparse
import contextlib
import copy
import hashlib
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import torch

from . import schedules
from ._names import nearest
from ._native import library_dir
from ._processes import existing, world_size
from .errors import HeddleError
from .optim import AdamW, Muon
from .plan import Plan
from .step import compile

TEXT = "/usr/share/common-licenses/GPL-3"
DEFAULTS = {"data": TEXT, "model": None, "steps": 60, "lr": 3e-3, "batch": 8, "seq": 128, "seed": 0, "device": None, "ranks": None, "zero": None, "optimizer": "adamw"}
# Keller Jordan's, what heddle.Muon iterates with.
_QUINTIC, _QUINTIC_STEPS = (3.4445, -4.7750, 2.0315), 5
CHECKPOINT_EVERY = 20
DONE, BAD_INPUT, FAILED, STOPPED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise HeddleError(message)


def _arguments(argv):
    parser = _Parser(prog="python -m heddle.demo", description="Trains a small byte-level language model beside eager PyTorch.", allow_abbrev=False)
    parser.add_argument("--data", metavar="FILE", help=f"text to learn, read as bytes (default {TEXT})")
    parser.add_argument("--model", metavar="DIR", help="Hugging Face folder with a config.json, and weights if they are to be used (default: a Llama of 1.6 million parameters)")
    parser.add_argument("--steps", type=int, help=f"updates (default {DEFAULTS['steps']})")
    parser.add_argument("--lr", type=float, help=f"peak learning rate (default {DEFAULTS['lr']})")
    parser.add_argument("--batch", type=int, help=f"sequences per step (default {DEFAULTS['batch']})")
    parser.add_argument("--seq", type=int, help=f"bytes per sequence (default {DEFAULTS['seq']})")
    parser.add_argument("--seed", type=int, help="of weights and batches (default 0)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU")
    parser.add_argument("--ranks", type=int, help="data-parallel ranks, which share the sequences of a step (default: 4, as threads of this process; on a GPU 1)")
    parser.add_argument("--zero", type=int, choices=(0, 1, 2, 3), help="ZeRO stage: what the ranks shard (default 3; of one rank 0)")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), help=f"what updates the weight matrices; AdamW always updates the rest (default {DEFAULTS['optimizer']})")
    parser.add_argument("--out", metavar="DIR", default="heddle-demo", help="checkpoints, plan, inspection page, log (default heddle-demo)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    known = [option for action in parser._actions for option in action.option_strings]
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        raise HeddleError(f"unknown argument '{unknown[0]}'{nearest(unknown[0].partition('=')[0], known)}")
    return given


def _settings(given):
    """The run's settings: the defaults under what was given, or on --resume those of the run that goes on."""
    chosen = {name: value for name in DEFAULTS if (value := getattr(given, name)) is not None}
    for name in ("data", "model"):
        if name in chosen:
            chosen[name] = os.path.abspath(chosen[name])
    if not given.resume:
        settings = {**DEFAULTS, **chosen}
        settings["device"] = settings["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        # A process has one GPU, and as many ranks of the CPU as are asked for; under torchrun every process is one.
        default = world_size() if world_size() > 1 else 1 if settings["device"] == "cuda" else 4
        settings["ranks"] = settings["ranks"] if settings["ranks"] is not None else default
        settings["zero"] = settings["zero"] if settings["zero"] is not None else 3 if settings["ranks"] > 1 else 0
        return settings
    file = pathlib.Path(given.out, "checkpoint", "latest", "trainer.json")
    try:
        settings = {**DEFAULTS, **json.loads(file.read_text())["extra"]["demo"]}
    except FileNotFoundError:
        raise HeddleError(f"{given.out}: there is no run to resume; run without --resume first, or name its folder with --out") from None
    except (ValueError, KeyError, TypeError):
        raise HeddleError(f"{file}: not the checkpoint of a demo run") from None
    for name, value in chosen.items():
        if settings.get(name) != value:
            raise HeddleError(f"--{name} {value} contradicts the run in {given.out}, which has {settings.get(name)}; leave it out, or start anew without --resume")
    return settings


def _check(settings):
    for name in ("steps", "batch", "seq", "ranks"):
        if settings[name] < 1:
            raise HeddleError(f"--{name} {settings[name]} is less than 1")
    if settings["seq"] < 2:
        raise HeddleError("--seq 1 leaves no byte to predict; it must be at least 2")
    if settings["batch"] % settings["ranks"]:
        raise HeddleError(f"--batch {settings['batch']} is no multiple of --ranks {settings['ranks']}: every rank takes as many sequences")
    if not 0 <= settings["seed"] < 2**31:
        raise HeddleError(f"--seed {settings['seed']} is not in [0, 2**31)")


def _read_text(settings):
    path = pathlib.Path(settings["data"])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HeddleError(f"--data {path}: {error.strerror}") from None
    if len(content) < settings["seq"]:
        raise HeddleError(f"--data {path} has {len(content)} bytes and one sequence needs {settings['seq']}; give a longer text or a smaller --seq")
    digest = hashlib.sha256(content).hexdigest()
    if settings.setdefault("data_sha256", digest) != digest:
        raise HeddleError(f"--data {path} has changed since the run began; its losses could not go on")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _make_model(settings):
    """A model in fp32 in training mode; random weights come from the seed."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(settings["seed"])
    folder = settings["model"]
    if folder is None:
        config = transformers.LlamaConfig(vocab_size=256, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2,
                                          max_position_embeddings=max(128, settings["seq"]), bos_token_id=None, eos_token_id=None, pad_token_id=None)
        return transformers.LlamaForCausalLM(config).float().train()
    if not os.path.isfile(os.path.join(folder, "config.json")):
        raise HeddleError(f"--model {folder}: there is no config.json; give a Hugging Face model folder")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        text = config.get_text_config()
        if getattr(text, "vocab_size", 0) < 256:
            raise HeddleError(f"--model {folder}: vocab_size is {getattr(text, 'vocab_size', None)} and bytes need at least 256")
        if getattr(text, "max_position_embeddings", settings["seq"]) < settings["seq"]:
            raise HeddleError(f"--model {folder}: max_position_embeddings is {text.max_position_embeddings}, less than --seq {settings['seq']}")
        if not any(name.endswith((".safetensors", ".safetensors.index.json")) for name in os.listdir(folder)):
            return transformers.AutoModelForCausalLM.from_config(config).float().train()
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32, output_loading_info=True)
    except HeddleError:
        raise
    except Exception as error:
        raise HeddleError(f"--model {folder}: {type(error).__name__}: {error}") from error
    if loading["missing_keys"]:
        raise HeddleError(f"--model {folder}: weights are missing: {', '.join(sorted(loading['missing_keys'])[:3])}")
    return model.train()


def _batch(text, settings, number):
    """Update `number`'s sequences: random places of the text, the same in every run of one seed."""
    generator = torch.Generator().manual_seed(settings["seed"] * 1_000_003 + number)
    starts = torch.randint(0, len(text) - settings["seq"] + 1, (settings["batch"],), generator=generator)
    ids = torch.stack([text[start : start + settings["seq"]] for start in starts.tolist()]).long().to(settings["device"])
    return {"input_ids": ids, "labels": ids}


def _part(batch):
    """This process's share of a batch; all of it where the process has all ranks."""
    processes = existing()
    return batch if processes is None else {name: tensor.chunk(processes.size)[processes.rank] for name, tensor in batch.items()}


def _any_rank(asked):
    """Whether any process was asked to stop: all stop after one and the same step."""
    processes = existing()
    return asked if processes is None else any(row[0] for row in processes.gather([asked], "stop requests"))


def _tool(name):
    places = [library_dir() / name, library_dir().parent / "bin" / name, pathlib.Path(__file__).parent / "_bin" / name]
    for path in places:
        if path.is_file():
            return path
    raise HeddleError(f"{name} is in none of {', '.join(str(path.parent) for path in places)}; build it with ./dev build, or install the wheel")


class _Eager:
    """The same steps in eager PyTorch, from the same state."""

    def __init__(self, step, model, optimizer, schedule, clip):
        self.model, self.schedule, self.clip = copy.deepcopy(model), schedule, clip
        step.sync(self.model)
        state, self.muon = step.optimizer_state_dict(), optimizer if isinstance(optimizer, Muon) else None
        adamw = optimizer.adamw if self.muon else optimizer
        # Who has momentum is Muon's.
        self.momenta = {parameter: state["state"][name]["momentum"] for name, parameter in self.model.named_parameters() if "momentum" in state["state"].get(name, ())}
        rest = [parameter for parameter in self.model.parameters() if parameter not in self.momenta]
        self.lr, self.optimizer = adamw.lr, torch.optim.AdamW(rest, lr=adamw.lr, betas=adamw.betas, eps=adamw.eps, weight_decay=adamw.weight_decay, foreach=False)
        if state["step"]:
            for name, parameter in self.model.named_parameters():
                if name in state["state"] and parameter not in self.momenta:
                    self.optimizer.state[parameter] = {"step": torch.tensor(float(state["step"])), **state["state"][name]}

    def __call__(self, batch, number):
        factor = self.schedule(number)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor
        self.model.zero_grad()
        loss = self.model(**batch, use_cache=False).loss
        loss.backward()
        # Muon's update does not depend on the gradient's size: it takes what has not been clipped.
        raw = {parameter: parameter.grad.clone() for parameter in self.momenta}
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip, foreach=False)
        self.optimizer.step()
        for parameter, gradient in raw.items():
            self._muon(parameter, gradient, self.muon.lr * factor)
        return float(loss.detach())

    @torch.no_grad()
    def _muon(self, parameter, gradient, lr):
        muon, momentum = self.muon, self.momenta[parameter].mul_(self.muon.momentum).add_(gradient)
        update = gradient + muon.momentum * momentum
        rows, columns = update.shape[-2:]
        x = update.mT if rows > columns else update
        x = x / (torch.linalg.matrix_norm(x, keepdim=True) + muon.eps)
        a, b, c = _QUINTIC
        for _ in range(_QUINTIC_STEPS):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        update = x.mT if rows > columns else x
        parameter.mul_(1 - lr * muon.weight_decay).sub_(update, alpha=lr * 0.2 * max(rows, columns) ** 0.5)

    def difference(self, step):
        """(largest absolute difference of any weight, tensors that differ, tensors)."""
        ours = step.state_dict()
        theirs = dict(self.model.named_parameters())
        gaps = [float((ours[name] - theirs[name].detach()).abs().max()) for name in theirs]
        return max(gaps), sum(gap != 0 for gap in gaps), len(gaps)


class _StopRequest:
    """The first Ctrl-C asks the loop to stop after the step it is in; the second stops at once."""

    def __init__(self):
        self.asked = False

    def __enter__(self):
        self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, *_):
        self.asked = True
        signal.signal(signal.SIGINT, self.before)

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self.before)


def _optimizer(settings):
    """AdamW, or Muon for the matrices with a rate of its own; in fp32 its standard form differs from eager PyTorch's by the order of sums only."""
    adamw = AdamW(lr=settings["lr"])
    return adamw if settings["optimizer"] == "adamw" else Muon(lr=settings["lr"], adamw=adamw, ns="standard")


def _open_log(path, done):
    """The log, holding the first `done` steps: a run that was killed may have logged more than its checkpoint knows."""
    lines = path.read_text().splitlines()[:done] if done and path.exists() else []
    log = open(path, "w")
    log.writelines(line + "\n" for line in lines)
    return log


def _train(step, eager, text, settings, out, checkpoints):
    """The loop. Returns whether it came to its end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(highlight=False, soft_wrap=True)
    tokens = settings["batch"] * settings["seq"]
    with _StopRequest() as stop, _open_log(out / "log.jsonl", step.global_step) as log, Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("training", total=settings["steps"], completed=step.global_step)
        console.print(f"{'step':>5} {'loss':>9} {'eager':>9} {'difference':>10} {'grad_norm':>9} {'lr':>9} {'tok/s':>7} {'eager tok/s':>11}")
        number = step.global_step
        while number < settings["steps"] and not _any_rank(stop.asked):
            number += 1
            batch = _batch(text, settings, number)
            begin = time.perf_counter()
            result = step(_part(batch))
            middle = time.perf_counter()
            theirs = eager(batch, number)
            end = time.perf_counter()
            ours_rate, theirs_rate = tokens / (middle - begin), tokens / (end - middle)
            line = {"step": number, "loss": result.loss, "eager_loss": theirs, "grad_norm": result.grad_norm, "lr": result.lr, "tokens_per_second": ours_rate, "eager_tokens_per_second": theirs_rate}
            log.write(json.dumps(line) + "\n")
            log.flush()
            if result.skipped:
                raise HeddleError(f"step {number} was skipped: a gradient is not finite; try a smaller --lr")
            console.print(f"{number:5d} {result.loss:9.5f} {theirs:9.5f} {abs(result.loss - theirs):10.1e} {result.grad_norm:9.4f} {result.lr:9.2e} {ours_rate:7.0f} {theirs_rate:11.0f}")
            progress.update(task, completed=number)
            if number % CHECKPOINT_EVERY == 0 and number < settings["steps"]:
                step.save_checkpoint(checkpoints, {"demo": settings}, wait=False)
        version = step.save_checkpoint(checkpoints, {"demo": settings})
    return number == settings["steps"], version


def _inspect(tool, plan, page):
    run = subprocess.run([str(tool), str(plan), "--html", str(page)], capture_output=True, text=True)
    if run.returncode:
        raise HeddleError(f"heddle-inspect could not make the page: {run.stderr.strip() or run.stdout.strip()}")


def run(argv):
    """The demo; returns the exit code. Raises HeddleError for what is wrong with the input. Of ranks that are processes the first one speaks, and writes what is not a checkpoint."""
    given = _arguments(argv)
    if world_size() == 1 or os.environ.get("RANK") == "0":
        return _run(given, pathlib.Path(given.out))
    with tempfile.TemporaryDirectory(prefix="heddle-demo-") as folder, open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return _run(given, pathlib.Path(folder))


def _run(given, out):
    settings = _settings(given)
    _check(settings)
    if world_size() > 1 and settings["device"] == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    checkpoints = pathlib.Path(given.out) / "checkpoint"
    for package in ("rich", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise HeddleError(f"the demo needs the package {package}: pip install {package}")
    inspect = _tool("heddle-inspect")
    text = _read_text(settings)
    model = _make_model(settings).to(settings["device"])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HeddleError(f"--out {out}: {error.strerror}") from None
    optimizer, clip = _optimizer(settings), 1.0
    schedule = schedules.cosine(warmup=min(10, settings["steps"]), total=settings["steps"] + 1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    ranks = f"{settings['ranks']} ranks with ZeRO-{settings['zero']} on {settings['device']}" if settings["ranks"] > 1 else f"on {settings['device']}"
    print(f"{type(model).__name__}, {parameters / 1e6:.2f} million parameters, {ranks}; {settings['optimizer']}; {settings['data']}, {len(text)} bytes", flush=True)
    begin = time.perf_counter()
    example = {name: tensor[: settings["batch"] // settings["ranks"]] for name, tensor in _batch(text, settings, 1).items()}
    plan = Plan(clip=clip, loss_average="batches", seed=settings["seed"], zero=settings["zero"], dp=settings["ranks"])
    step = compile(model, example, optimizer=optimizer, schedule=schedule, plan=plan, device=settings["device"])
    print(f"compiled in {time.perf_counter() - begin:.1f} s: {step.explain()['operators']} operators", flush=True)
    if given.resume:
        step.load_checkpoint(checkpoints)
        print(f"resumed after step {step.global_step}", flush=True)
    if step.global_step >= settings["steps"]:
        print(f"the run in {out} is complete: {step.global_step} steps")
        return DONE
    eager = _Eager(step, model, optimizer, schedule, clip)
    plan, page = out / "step.plan", out / "step.html"
    step.save(plan)
    try:
        finished, version = _train(step, eager, text, settings, out, checkpoints)
        gap, differing, count = eager.difference(step)
        print(f"after step {step.global_step}: largest difference of a weight from eager PyTorch {gap:.1e}; {differing} of {count} tensors differ")
        if differing and (settings["ranks"] > 1 or settings["optimizer"] == "muon"):
            reasons = [f"{settings['ranks']} ranks add up gradients in another order than one batch does"] * (settings["ranks"] > 1) + ["Muon's matrix products are summed by panels"] * (settings["optimizer"] == "muon")
            print(f"  ({'; '.join(reasons)}: in fp32 that is the last bits, which training carries on; --ranks 1 --optimizer adamw gives eager's bits)")
        _inspect(inspect, plan, page)
    except (HeddleError, OSError) as error:
        print(f"heddle.demo: the run failed: {error}", file=sys.stderr)
        return FAILED
    print(f"inspection page  {page.resolve()}\nplan             {plan.resolve()}\nlog              {(out / 'log.jsonl').resolve()}\ncheckpoint       {version.resolve()}")
    if not finished:
        print(f"stopped after step {step.global_step} of {settings['steps']}; go on with --resume" + (f" --out {given.out}" if given.out != "heddle-demo" else ""))
        return STOPPED
    return DONE


def main(argv=None):
    try:
        return run(sys.argv[1:] if argv is None else argv)
    except HeddleError as error:
        print(f"heddle.demo: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("heddle.demo: stopped", file=sys.stderr)
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
