#!/bin/bash
# Runs pytest on one file: python_test.sh FILE LIBRARY...
# The shared objects are gathered in one directory, as a wheel has them.
set -euo pipefail
file="$1"
shift
export HEDDLE_LIB_DIR="$TEST_TMPDIR/lib"
mkdir -p "$HEDDLE_LIB_DIR"
for library in "$@"; do
  ln -sf "$PWD/$library" "$HEDDLE_LIB_DIR/"
done
export PYTHONPATH="$PWD/api/python:$PWD"
export PYTHONDONTWRITEBYTECODE=1
export HOME="${HOME:-$TEST_TMPDIR}"
exec ../venv/python.sh -m pytest -q -p no:cacheprovider --rootdir="$PWD" "$file"
