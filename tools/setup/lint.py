"""The source tree -> what breaks its rules, one line each.

Rules: clang-format; at most 600 lines a file; includes that a room must never
have (the dependency graph itself is tested by //tests/layering); no reminders
left in the code; every C++ target of a layered room is one that
//tests/layering looks at.
"""

import re
import subprocess
import sys

_MAX_LINES = 600
_CPP = (".cc", ".h", ".cu", ".cpp")
_COUNTED = _CPP + (".td", ".py", ".bzl", ".sh", ".mlir", ".fbs")
_REMINDERS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")

_TORCH = r'[<"](ATen|torch|c10|caffe2)/'
_MLIR = r'[<"](mlir|mlir-c|llvm|llvm-c)/'
_CUDA = r'[<"](cuda\w*\.h|cublas\w*\.h|nccl\.h|cutlass/|cute/)'
_FEATURES = ("zero", "expert", "sequence", "muon")

# (files, forbidden include, reason). The first path that matches `but` is exempt.
_INCLUDE_RULES = [
    (r"^(ir|passes)/", _TORCH + "|" + _CUDA, "", "ir and passes know neither LibTorch nor CUDA nor NCCL"),
    (r"^(runtime|kernels|capture)/", _MLIR, "", "runtime, kernels and capture never know MLIR"),
    (r"^(runtime|kernels)/", _TORCH, r"^runtime/torch/", "LibTorch is only in runtime/torch"),
    (r"^capture/", r'"(passes|runtime)/', "", "capture never knows passes or runtime"),
    (r"^runtime/", r'"(passes|ir|capture|api)/', "", "runtime depends on plans, not on who makes them"),
    (r"^(ir)/", r'"(passes|runtime|capture|api)/', "", "ir depends on MLIR only"),
    (r"^passes/", r'"(runtime/(?!plan/)|capture/|api/)', "", "passes know runtime/plan only"),
    (r"", r'[<"]nccl\.h', r"^runtime/comm/nccl/", "nccl.h is only in runtime/comm/nccl"),
    (r"^(?!tools/|tests/)", r'"tools/', "", "nothing depends on tools"),
] + [
    (rf"^passes/{feature}/", rf'"passes/({"|".join(f for f in _FEATURES if f != feature)})/', "",
     "feature folders meet in pipelines.cc")
    for feature in _FEATURES
]


def source_files():
    output = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], text=True)
    for path in output.split("\0"):
        if path.endswith(_COUNTED):
            try:
                with open(path, encoding="utf-8") as file:
                    yield path, file.read().splitlines()
            except FileNotFoundError:
                continue  # deleted, not yet committed


def include_problems(path, lines):
    for number, line in enumerate(lines, 1):
        if not line.lstrip().startswith("#include"):
            continue
        for where, forbidden, but, reason in _INCLUDE_RULES:
            if re.search(where, path) and re.search(forbidden, line):
                if not (but and re.search(but, path)):
                    yield f"{path}:{number}: {line.strip()}: {reason}"


def format_problems(paths):
    if not paths:
        return []
    result = subprocess.run(["clang-format-19", "--dry-run", "--ferror-limit=1", *paths],
                            capture_output=True, text=True)
    found = re.findall(r"^(\S+?):(\d+):\d+: (?:warning|error): code should be", result.stderr, re.M)
    return sorted({f"{path}: not formatted (first at line {line}): run ./dev format"
                   for path, line in reversed(found)})


def uncovered_targets():
    """Libraries of a room that no layering test looks at."""
    result = subprocess.run(
        ["bazel", "query", "--noshow_progress", "--keep_going",
         'attr("srcs", "\\[.+\\]", kind("cc_library|cc_binary",'
         " //ir/... + //passes/... + //runtime/... + //kernels/... + //capture/...))"
         ' except labels("scope", kind(genquery, //tests/layering:all))'
         ' except deps(labels("scope", kind(genquery, //tests/layering:all)))'],
        capture_output=True, text=True)
    if result.returncode not in (0, 3):
        return [f"bazel query failed: {result.stderr.strip().splitlines()[-1]}"]
    return [f"{label}: no test of //tests/layering reaches it"
            for label in result.stdout.split()]


def main():
    problems = []
    cpp = []
    for path, lines in source_files():
        if len(lines) > _MAX_LINES:
            problems.append(f"{path}: {len(lines)} lines, the limit is {_MAX_LINES}")
        for number, line in enumerate(lines, 1):
            if _REMINDERS.search(line):
                problems.append(f"{path}:{number}: a reminder left in the code: {line.strip()}")
        if path.endswith(_CPP):
            cpp.append(path)
            problems.extend(include_problems(path, lines))
    problems.extend(format_problems(cpp))
    problems.extend(uncovered_targets())
    print("\n".join(problems) if problems else "lint: clean")
    sys.exit(1 if problems else 0)


main()
