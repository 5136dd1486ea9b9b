#!/bin/bash
# Runs lit on one file with the given tools on PATH: lit_test.sh FILE TOOL...
# The file and its neighbours are copied beside the configuration, since lit
# searches its configuration in the directories above the (resolved) test.
set -euo pipefail
file="$1"
shift
bin="$TEST_TMPDIR/bin"
suite="$TEST_TMPDIR/suite"
mkdir -p "$bin" "$suite"
for tool in "$@" ../llvm/FileCheck ../llvm/not ../llvm/split-file; do
  ln -sf "$PWD/$tool" "$bin/$(basename "$tool")"
done
for neighbour in "$(dirname "$file")"/*; do
  [[ -d $neighbour || $neighbour == *.test ]] || cp -L "$neighbour" "$suite"
done
cp -L tests/lit.cfg.py "$suite"
export PATH="$bin:$PATH"
exec /usr/bin/python3 ../llvm/lit/lit.py -v "$suite/$(basename "$file")"
