#!/bin/bash
# The command line of heddle-inspect: exit codes, messages, files whole or absent.
# cli_test.sh HEDDLE_INSPECT STEP_MLIR WRITE_PLANS
set -u
inspect="$PWD/$1" step="$PWD/$2" write_plans="$PWD/$3"
cd "$TEST_TMPDIR" || exit 1
failures=0

# expect CODE PATTERN ARGUMENT...: exit code, and an extended regular expression found in what is printed.
expect() {
  local code=$1 pattern=$2 text got
  shift 2
  text=$("$inspect" "$@" 2>&1)
  got=$?
  if [[ $got -ne $code ]] || ! grep -Eq -- "$pattern" <<<"$text"; then
    echo "FAILED: heddle-inspect $*"
    echo "  exit code $got (wanted $code), wanted /$pattern/ in:"
    head -20 <<<"$text" | sed 's/^/  | /'
    failures=$((failures + 1))
  fi
}

"$write_plans" . || exit 1
cp "$step" step.mlir

expect 0 'Parameters by module' step.mlir
expect 0 'closed form' step.mlir
expect 0 'Section micro_next' train.plan
expect 0 'wrote step.json' step.mlir --json step.json --trace=step.trace.json --dot step.dot --html step.html
for file in step.json step.trace.json step.dot step.html; do
  [[ -s $file ]] || { echo "FAILED: $file was not written"; failures=$((failures + 1)); }
done
expect 0 'displayTimeUnit.*wrote /dev/stdout|traceEvents' train.plan --trace /dev/stdout
[[ -c /dev/null ]] && expect 0 'wrote /dev/null' train.plan --html /dev/null && [[ ! -c /dev/null ]] && { echo "FAILED: a device was replaced by a file"; failures=$((failures + 1)); }
expect 0 'no difference' step.mlir --diff step.mlir
expect 0 'Ops by name' step.mlir --diff train.plan
expect 0 '^usage:' --help

# What bad input gets.
: >empty.mlir
printf 'not a program' >words.mlir
printf '\x7fELF\x02\x01\x01\x00' >library.so
printf '{"a": 1}' >config.json
printf '\x10\0\0\0\0\0\0\0{"a":{}}        ' >weights.safetensors
printf 'PK\x03\x04abcd' >model.pt
sed 's/format_version = 1/format_version = 3/' step.mlir >later.mlir
head -c 9000 step.mlir >cut.mlir
head -c 700 train.plan >cut.plan
printf 'module {\n}\n' >nothing.mlir
expect 1 'no file given' 
expect 1 "unknown option '--jsn'" step.mlir --jsn x
expect 1 '--json needs a file' step.mlir --json
expect 1 'compare them with --diff' step.mlir train.plan
expect 1 'goes with no other output' step.mlir --diff step.mlir --html x.html
expect 1 'missing.mlir: No such file' missing.mlir
expect 1 'is a directory' .
expect 1 'empty.mlir' empty.mlir
expect 1 'words.mlir: no program of Heddle' words.mlir
expect 1 'ELF' library.so
expect 1 'is JSON' config.json
expect 1 'safetensors' weights.safetensors
expect 1 'zip archive' model.pt
expect 1 'format version 3; this build reads version 1' later.mlir
expect 1 'cut.mlir' cut.mlir
expect 1 'cut.plan: plan:' cut.plan
expect 1 'neither a graph.step nor a sched.plan' nothing.mlir
expect 1 '"error":' words.mlir --json-errors
expect 1 'cannot write no/such/place.html' step.mlir --html no/such/place.html
if compgen -G '*.new' >/dev/null; then
  echo "FAILED: a temporary file was left behind"
  failures=$((failures + 1))
fi
if [[ -w /dev/full ]]; then
  "$inspect" step.mlir >/dev/full 2>error.txt
  [[ $? -eq 1 ]] && grep -q 'cannot write to stdout' error.txt || { echo "FAILED: a full device goes unnoticed"; failures=$((failures + 1)); }
fi

[[ $failures -eq 0 ]] && echo "all passed"
exit "$((failures > 0))"
