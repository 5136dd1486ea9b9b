"""Versions of a training run on disk, in the layout that `heddle-run` reads and writes too.

DIR/step-N holds model.safetensors and config.json (what `from_pretrained` loads), optimizer.safetensors (tensors named "kind/NAME"; optimizer-00001-of-00004.safetensors and so on
where several processes wrote it), trainer.json, and manifest.json with every file's size and CRC-32. A version is written under a temporary name, synced and renamed; then DIR/latest, a link, is moved to it. Whatever happens, `latest` names a whole version.
"""

import atexit
import contextlib
import copy
import json
import os
import pathlib
import re
import shutil
import sys
import threading
import weakref
import zlib

import safetensors
import safetensors.torch
import torch

from ._names import nearest
from .errors import HeddleError

FORMAT_VERSION = 1
_VERSION = re.compile(r"step-\d{8,}(?:\.\d+)?")


def skeleton(model):
    """A copy of a Hugging Face model with its tensors on the meta device: what `save_pretrained` needs besides a state dict. None for other models."""
    if not hasattr(model, "save_pretrained"):
        return None
    memo = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        meta = tensor.detach().to("meta")
        memo[id(tensor)] = torch.nn.Parameter(meta, requires_grad=tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else meta
    return copy.deepcopy(model, memo)


@contextlib.contextmanager
def named_errors(folder):
    """File-system trouble as an error that says where, and what to do about a full disk."""
    try:
        yield
    except OSError as error:
        remedy = "; free some space or write elsewhere" if error.errno == 28 else ""
        raise HeddleError(f"{error.filename or folder}: {error.strerror or error}{remedy}") from error
    except safetensors.SafetensorError as error:
        remedy = "; free some space or write elsewhere" if "os error 28" in str(error) else ""
        raise HeddleError(f"{folder}: {error}{remedy}") from error


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_model(folder, tensors, model_skeleton):
    """Writes weights, and config where there is a Hugging Face model, so that `from_pretrained(folder)` loads them. `tensors`: by name, tied names all present."""
    folder = pathlib.Path(folder)
    with named_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if model_skeleton is None:
            once, seen = {}, set()
            for name, tensor in tensors.items():
                if tensor.data_ptr() not in seen or not tensor.numel():
                    seen.add(tensor.data_ptr())
                    once[name] = tensor.contiguous()
            safetensors.torch.save_file(once, folder / "model.safetensors", {"format": "pt"})
            return
        from transformers.utils import logging

        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            model_skeleton.save_pretrained(folder, state_dict=dict(tensors))
        finally:
            if bars:
                logging.enable_progress_bar()


def replace_model(folder, tensors, model_skeleton):
    """`write_model` beside the files that may be there, which are replaced only when the new ones are whole."""
    folder = pathlib.Path(folder)
    with named_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".writing-model-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            write_model(temporary, tensors, model_skeleton)
            for path in temporary.iterdir():
                _sync(path)
            for path in sorted(temporary.iterdir(), key=lambda path: path.name == "model.safetensors.index.json"):
                os.replace(path, folder / path.name)
            _sync(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _saved_tensors(folder):
    """name -> (file, dtype, shape) of every tensor of the model's files in `folder`."""
    found = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safetensors.safe_open(path, "pt") as file:
            for name in file.keys():
                part = file.get_slice(name)
                found[name] = (path, part.get_dtype(), tuple(part.get_shape()))
    return found


def _tensor(path, name):
    with safetensors.safe_open(path, "pt") as file:
        return file.get_tensor(name)


def _order(version):
    return version.stat().st_mtime_ns


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove_old(folder, keep, current):
    """Keeps the newest versions; also removes what processes left that were killed while they wrote or removed one. A version that goes is renamed first: what has a version's name is whole."""
    versions = sorted((p for p in folder.iterdir() if _VERSION.fullmatch(p.name) and p.is_dir() and p != current), key=_order, reverse=True)
    for version in versions[max(0, keep - 1) :]:
        with contextlib.suppress(OSError):
            os.rename(version, folder / f".removing-{version.name}")
    for path in folder.glob(".removing-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (*folder.glob(".writing-*"), *folder.glob(".latest-*")):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and not _alive(int(pid)):
            path.unlink(missing_ok=True) if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)


def _checksum(path):
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return {"bytes": path.stat().st_size, "crc32": crc}


def _write_manifest(version, step):
    files = {path.name: _checksum(path) for path in sorted(version.iterdir())}
    (version / "manifest.json").write_text(json.dumps({"format_version": FORMAT_VERSION, "step": step, "files": files}, indent=2) + "\n")


def check_manifest(version):
    """Raises for the first file of `version` that is gone, has another size or other bytes than when it was written."""
    path = version / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        format_version, files = manifest["format_version"], dict(manifest["files"])
    except FileNotFoundError:
        raise HeddleError(f"{path}: there is no such file; the version was not written whole, load another one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise HeddleError(f"{path}: not the manifest of a checkpoint ({type(error).__name__}: {error})") from None
    if format_version != FORMAT_VERSION:
        raise HeddleError(f"{path}: manifest format version {format_version} cannot be read, this Heddle reads version {FORMAT_VERSION}")
    for name, entry in files.items():
        found = _checksum(version / name)
        for key, what in (("bytes", "size in bytes"), ("crc32", "CRC-32")):
            if not isinstance(entry, dict) or entry.get(key) != found[key]:
                raise HeddleError(f"{version / name}: its {what} is {found[key]} and the manifest says {entry.get(key) if isinstance(entry, dict) else entry!r}; it has changed since it was written, load another version")


class Shards:
    """How the processes of a run write one version together: rank 0 makes its folder and finishes it, each of the others puts one file there. They talk through the ranks' store, so
    that a writer on a thread is in nobody's way, and wait for each other as long as their processes live."""

    def __init__(self, processes):
        self._processes, self._key = processes, processes._key("checkpoint")
        self.first = processes.rank == 0
        self.file = f"optimizer-{processes.rank + 1:05d}-of-{processes.size:05d}.safetensors"

    def _say(self, what, value):
        self._processes.publish(f"{self._key}/{what}", json.dumps(value).encode())

    def _hear(self, what, rank):
        value = json.loads(self._processes.await_value(f"{self._key}/{what}", rank))
        if isinstance(value, dict):
            raise HeddleError(f"rank {rank}: {value['error']}")
        return value

    @contextlib.contextmanager
    def _told(self, what):
        """Lets the others know of an error."""
        try:
            yield
        except Exception as error:
            self._say(what, {"error": f"{error}"})
            raise

    def write(self, tensors):
        """What every rank but the first does. Returns the version's path when it is there."""
        temporary = pathlib.Path(self._hear("folder", 0))
        with self._told(self.file), named_errors(temporary):
            if not temporary.is_dir():
                raise HeddleError(f"{temporary}: rank {self._processes.rank} does not see the folder that rank 0 has made; checkpoints need one file system for all ranks")
            safetensors.torch.save_file(tensors, temporary / self.file)
            _sync(temporary / self.file)
        self._say(self.file, "written")
        return pathlib.Path(self._hear("version", 0))

    def others(self, temporary):
        """Waits for the files of all other ranks."""
        self._say("folder", str(temporary))
        for rank in range(1, self._processes.size):
            self._hear(self.file.replace("-00001-", f"-{rank + 1:05d}-"), rank)

    def done(self, version):
        self._say("version", str(version))


def save(folder, step, weights, state, model_skeleton, extra, keep, shards=None):
    """Writes one version and returns its path. `shards`: this process's part in it, where a run has several; `state` is then what it writes.

    `weights`: what `from_pretrained` is to load, {name: tensor}; `state`: {(kind, name): tensor}, everything that the plan's state holds. Of it whatever the model's files do
    not hold bit for bit (moments, masters, parameters that Hugging Face stores in another form) goes to optimizer.safetensors.
    """
    folder = pathlib.Path(folder)
    if shards is not None:
        if not shards.first:
            return shards.write(_rest(state, weights, {}))
        with shards._told("folder"), shards._told("version"):
            version = _save(folder.absolute(), step, weights, state, model_skeleton, extra, keep, shards)
        shards.done(version)
        return version
    return _save(folder, step, weights, state, model_skeleton, extra, keep, None)


def _rest(state, weights, saved):
    """What the model's files, with tensors `saved` of `weights`, do not hold bit for bit."""
    rest = {}
    for (kind, name), tensor in state.items():
        stored = kind in ("parameter", "buffer", "untouched") and name in saved and name in weights and weights[name].dtype == tensor.dtype and saved[name][2] == tuple(tensor.shape)
        if not stored and not (kind == "parameter" and ("master", name) in state):
            rest[f"{kind}/{name}"] = tensor.contiguous()
    return rest


def _save(folder, step, weights, state, model_skeleton, extra, keep, shards):
    trainer = json.dumps({"format_version": FORMAT_VERSION, "step": step, "extra": extra}, indent=2)
    with named_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".writing-step-{step:08d}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            write_model(temporary, weights, model_skeleton)
            rest = _rest(state, weights, _saved_tensors(temporary))
            safetensors.torch.save_file(rest, temporary / ("optimizer.safetensors" if shards is None else shards.file))
            if shards is not None:
                shards.others(temporary)
            (temporary / "trainer.json").write_text(trainer + "\n")
            _write_manifest(temporary, step)
            for path in temporary.iterdir():
                _sync(path)
            _sync(temporary)
            version, again = folder / f"step-{step:08d}", 0
            while version.exists():
                again += 1
                version = folder / f"step-{step:08d}.{again}"
            os.rename(temporary, version)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        link = folder / f".latest-{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(version.name)
        os.replace(link, folder / "latest")
        _sync(folder)
        _remove_old(folder, keep, version)
    return version


class Writer:
    """Writes versions on a thread, one at a time. What went wrong with one is raised by whoever asks next; if nobody does, the process says it when it ends."""

    def __init__(self):
        self.thread, self._error, self._reports = None, None, False

    def start(self, write):
        self.wait()
        if not self._reports:
            self._reports = True
            atexit.register(_report, weakref.ref(self))
        self.thread = threading.Thread(target=self._run, args=(write,), name="heddle-checkpoint")
        self.thread.start()

    def _run(self, write):
        try:
            write()
        except BaseException as error:
            self._error = error

    def wait(self):
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        self.raise_error()

    def raise_error(self):
        error, self._error = self._error, None
        if error is not None:
            raise HeddleError(f"the checkpoint in the background was not written: {error}") from error


def _report(writer):
    writer = writer()
    if writer is not None and writer._error is not None:
        print(f"heddle: the checkpoint in the background was not written: {writer._error}", file=sys.stderr)


def load(folder, entries, unchanging):
    """(step, {(kind, name): tensor}, {name: tensor}, extra) of `folder`'s latest version, or of `folder` where it is a version itself.

    `entries`: the plan's state, (kind, names, shape) each; all of it is found and checked before anything is returned. The second dict holds what the version has of the names
    in `unchanging`, in the precision it was given in.
    """
    folder = pathlib.Path(folder)
    version = folder if (folder / "trainer.json").exists() else folder / "latest"
    if not (version / "trainer.json").exists():
        raise HeddleError(f"{folder}: there is no checkpoint here (neither 'latest' nor trainer.json)")
    with named_errors(version):
        try:
            trainer = json.loads((version / "trainer.json").read_text())
            format_version, step = trainer["format_version"], trainer["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise HeddleError(f"{version / 'trainer.json'}: not a checkpoint's description ({type(error).__name__}: {error})") from None
        if format_version != FORMAT_VERSION:
            raise HeddleError(f"{version}: checkpoint format version {format_version} cannot be read, this Heddle reads version {FORMAT_VERSION}")
        if not isinstance(step, int) or step < 0:
            raise HeddleError(f"{version / 'trainer.json'}: step {step!r} is no number of updates")
        check_manifest(version)
        model, rest = _saved_tensors(version), {}
        for path in sorted(version.glob("optimizer*.safetensors")):
            with safetensors.safe_open(path, "pt") as file:
                rest.update({name: file.get_tensor(name) for name in file.keys()})
        state, masters = {}, {names[0] for kind, names, _ in entries if kind == "master"}
        for kind, names, shape in entries:
            tensor = next((rest[f"{kind}/{name}"] for name in names if f"{kind}/{name}" in rest), None)
            if tensor is None and kind == "parameter" and names[0] in masters:
                continue  # follows from its master
            if tensor is None and kind in ("parameter", "buffer"):
                tensor = next((_tensor(model[name][0], name) for name in names if name in model), None)
            if tensor is None and kind == "scaler":
                continue  # a run that did not scale its loss: the scale begins anew
            if tensor is None:
                known = [*rest, *(f"parameter/{name}" for name in model)]
                raise HeddleError(f"{version}: there is no {kind} of '{names[0]}'{nearest(f'{kind}/{names[0]}', known)}; is this a checkpoint of the same model?")
            if tuple(tensor.shape) != tuple(shape):
                raise HeddleError(f"{version}: the {kind} of '{names[0]}' has shape {tuple(tensor.shape)} and the plan needs {tuple(shape)}")
            state[kind, names[0]] = tensor
        untouched = {name: rest[f"untouched/{name}"] if f"untouched/{name}" in rest else _tensor(model[name][0], name) for name in unchanging if f"untouched/{name}" in rest or name in model}
        return step, state, untouched, trainer.get("extra", {})
