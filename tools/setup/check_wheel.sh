#!/bin/bash
# check_wheel.sh WHEEL: installs it into a new environment that sees .venv's
# packages through a .pth file (torch is not installed a second time), then
# captures and checks a step and starts every tool.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
wheel=$(realpath "$1")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$repository/.venv/bin/python" -m venv --without-pip "$scratch/venv"
packages=$("$scratch/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
"$repository/.venv/bin/python" -m pip --python "$scratch/venv/bin/python" install -q \
  --disable-pip-version-check --no-deps "$wheel"
# torch has to lie beside heddle, as pip would put it: $ORIGIN/../../torch/lib.
for entry in "$repository"/.venv/lib/python3.11/site-packages/*; do
  [[ -e $packages/$(basename "$entry") ]] || ln -s "$entry" "$packages/"
done
cd "$scratch"
env -u PYTHONPATH -u HEDDLE_LIB_DIR "$scratch/venv/bin/python" "$repository/tools/setup/wheel/wheel_smoke.py"
