"""api/python/heddle and the libraries of a `--config=wheel` build -> dist/*.whl.

The wheel is not tied to a Python version: its libraries are loaded by path and
find libtorch in ../../torch/lib, where pip puts torch beside heddle. MLIR lies
in it once, in libheddle_compiler.so; tools that need it call into that library.
"""

import argparse
import base64
import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

_MAX_BYTES = 60 << 20
_SYSTEM_LIBRARIES = pathlib.Path("/usr/lib/x86_64-linux-gnu")
_LIBRARIES = [
    "capture/libheddle_capture.so",
    "runtime/torch/libheddle_runtime.so",
    "tools/setup/wheel/libheddle_compiler.so",
]
_TOOLS = ["heddle-opt", "heddle-inspect", "heddle-run"]
_SCRIPT = """#!python
import importlib.util
import os
import sys

package = os.path.dirname(importlib.util.find_spec("heddle").origin)
tool = os.path.join(package, "_lib", "{name}")
os.execv(tool, [tool] + sys.argv[1:])
"""
_METADATA = """Metadata-Version: 2.1
Name: heddle
Version: {version}
Summary: Compiles whole PyTorch training steps
Requires-Python: >=3.10
Requires-Dist: torch ==2.11.*
Requires-Dist: numpy
Requires-Dist: safetensors
"""
_WHEEL = """Wheel-Version: 1.0
Generator: heddle
Root-Is-Purelib: false
Tag: py3-none-linux_x86_64
"""
# A text that every binary with MLIR's parser in it holds.
_MLIR_MARK = b"custom op '"


def version_of(package):
    match = re.search(r'^__version__ = "([^"]+)"', (package / "__init__.py").read_text(), re.M)
    if not match:
        sys.exit(f'wheel: {package / "__init__.py"} has no line __version__ = "..."')
    return match.group(1)


def stripped(path):
    if not path.exists():
        sys.exit(f"wheel: the build did not make {path}")
    with tempfile.NamedTemporaryFile() as copy:
        subprocess.run(["strip", "--strip-unneeded", "-o", copy.name, str(path)], check=True)
        return pathlib.Path(copy.name).read_bytes()


def shared_abseil(data):
    """Debian's libabsl_*.so that a binary needs, with what those need in turn."""
    found, open_list = {}, [data]
    while open_list:
        for name in re.findall(rb"\0(libabsl_\w+\.so\.[0-9]+)(?=\0)", open_list.pop()):
            name = name.decode()
            if name not in found:
                found[name] = stripped(_SYSTEM_LIBRARIES / name)
                open_list.append(found[name])
    return found


def tool(name, built):
    """The tool itself, or the launcher of the library's function if MLIR is linked into it."""
    binary = stripped(built / "tools" / name / name)
    if _MLIR_MARK not in binary:
        return binary
    library = built / "tools/setup/wheel/libheddle_compiler.so"
    symbols = subprocess.check_output(["nm", "-D", "--defined-only", str(library)], text=True)
    function = name.replace("-", "_") + "_main"
    if not re.search(rf"\b{function}$", symbols, re.M):
        sys.exit(f"wheel: {name} links MLIR, so libheddle_compiler.so has to export {function}")
    return stripped(built / "tools/setup/wheel/launcher")


def collect(package, built):
    """name in the wheel -> (bytes, mode)."""
    files = {}
    for path in sorted(package.rglob("*")):
        relative = path.relative_to(package.parent)
        if path.is_file() and "__pycache__" not in relative.parts and path.name != "BUILD":
            files[str(relative)] = (path.read_bytes(), 0o644)
    for library in _LIBRARIES:
        files["heddle/_lib/" + pathlib.Path(library).name] = (stripped(built / library), 0o755)
    for name in _TOOLS:
        files["heddle/_lib/" + name] = (tool(name, built), 0o755)
    for data, _ in list(files.values()):
        for name, library in shared_abseil(data).items():
            files["heddle/_lib/" + name] = (library, 0o755)
    holders = [name for name, (data, _) in files.items() if _MLIR_MARK in data]
    if holders != ["heddle/_lib/libheddle_compiler.so"]:
        sys.exit(f"wheel: MLIR belongs into libheddle_compiler.so alone, found it in {holders}")
    return files


def write(files, version, dist):
    info = f"heddle-{version}.dist-info"
    for name in _TOOLS:
        script = f"heddle-{version}.data/scripts/{name}"
        files[script] = (_SCRIPT.format(name=name).encode(), 0o755)
    files[f"{info}/METADATA"] = (_METADATA.format(version=version).encode(), 0o644)
    files[f"{info}/WHEEL"] = (_WHEEL.encode(), 0o644)
    record = []
    for name, (data, _) in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(data)}")
    record.append(f"{info}/RECORD,,")
    files[f"{info}/RECORD"] = (("\n".join(record) + "\n").encode(), 0o644)

    dist.mkdir(parents=True, exist_ok=True)
    path = dist / f"heddle-{version}-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel:
        for name, (data, mode) in files.items():
            entry = zipfile.ZipInfo(name)  # dated 1980: the same build gives the same bytes
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
    return path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--dist", type=pathlib.Path, required=True)
    options = parser.parse_args()
    package = pathlib.Path("api/python/heddle")
    path = write(collect(package, options.bin), version_of(package), options.dist)
    size = path.stat().st_size
    print(f"{path}: {size / 2**20:.1f} MiB")
    if size > _MAX_BYTES:
        sys.exit(f"wheel: {size} bytes is more than {_MAX_BYTES}")


main()
