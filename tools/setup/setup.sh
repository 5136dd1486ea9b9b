# Sourced by ./dev: a fresh Debian 12 -> everything a build needs.
#
# Each part first asks whether it has anything to do, so a second run costs
# well under a second. Debian packages: what dpkg lacks of packages.txt. .venv:
# a stamp in it holds the hash of requirements.txt; an environment made by hand
# is taken over if it has exactly these pins.

root_do() {
  if [[ $(id -u) -eq 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "installing Debian packages needs root or sudo: run as root: $*"
  fi
}

setup_debian() {
  local wanted missing
  wanted=$(grep -v '^#' tools/setup/packages.txt)
  # shellcheck disable=SC2086  # one word per package
  missing=$(comm -23 <(sort <<<"$wanted") \
    <(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $wanted 2>/dev/null |
      sed -n 's/^ii *//p' | sort -u))
  [[ -z $missing ]] && return
  [[ $(. /etc/os-release && echo "$ID $VERSION_ID") == "debian 12" ]] ||
    die "this is not Debian 12; its packages are needed: ${missing//$'\n'/ }"
  say "installing Debian packages:" $missing
  root_do apt-get update -q
  # shellcheck disable=SC2086
  root_do env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
}

setup_venv() {
  local stamp=.venv/heddle-requirements.sha256 hash
  hash=$(sha256sum requirements.txt | cut -d' ' -f1)
  [[ -f $stamp && $(<"$stamp") == "$hash" && -x .venv/bin/python ]] && return
  if ! venv_has_the_pins; then
    say "making .venv from requirements.txt (several GB, once)"
    [[ -x .venv/bin/python ]] || /usr/bin/python3.11 -m venv .venv
    # Everything is pinned, so there is nothing to resolve.
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -r requirements.txt
  fi
  echo "$hash" >"$stamp"
}

venv_has_the_pins() {
  [[ -x .venv/bin/python ]] || return 1
  local extra
  extra=$(comm -23 <(grep -v '^#' requirements.txt | sort) \
    <(.venv/bin/python -m pip --disable-pip-version-check freeze | sort))
  [[ -z $extra ]]
}

setup_cuda() {
  local home=${CUDA_HOME:-/usr/local/cuda}
  if [[ -x $home/bin/nvcc ]]; then
    cuda="CUDA toolkit $home: CUDA rooms are compiled"
  else
    cuda="no CUDA toolkit (\$CUDA_HOME, /usr/local/cuda): building for the CPU only"
  fi
}

setup() {
  setup_debian
  setup_venv
  setup_cuda
  say "$cuda"
}
