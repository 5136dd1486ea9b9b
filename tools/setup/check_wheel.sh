#!/bin/bash
# check_wheel.sh WHEEL [PYTHON]: installs it with pip into a new environment
# that sees PYTHON's packages (.venv's if it is left out) through links (torch
# is not installed a second time), then captures and checks a step and starts
# every tool.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
wheel=$(realpath "$1")
python=${2:-$repository/.venv/bin/python}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

site=$("$python" -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')
"$python" -m venv --without-pip "$scratch/venv"
packages=$("$scratch/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
"$python" -m pip --python "$scratch/venv/bin/python" install -q \
  --disable-pip-version-check --no-deps "$wheel"
# torch has to lie beside heddle, as pip would put it: $ORIGIN/../../torch/lib.
for entry in "$site"/*; do
  [[ -e $packages/$(basename "$entry") ]] || ln -s "$entry" "$packages/"
done
cd "$scratch"
env -u PYTHONPATH -u HEDDLE_LIB_DIR -u LD_LIBRARY_PATH "$scratch/venv/bin/python" "$repository/tools/setup/wheel/wheel_smoke.py"
