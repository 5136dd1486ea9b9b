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

# A folder of flight records: rank 1 of 2 never came to the second collective.
mkdir records none
record() { echo "{\"group\":\"dp\",\"sequence\":$1,\"collective\":\"all_gather f32 8\",\"bytes\":64,\"op\":\"zero.gather\",\"module\":\"model.layers.3\",\"source\":\"model.py:88\",\"state\":\"$2\",\"enqueued_ns\":1,\"started_ns\":1,\"finished_ns\":0}"; }
dump() { echo "{\"format\":\"heddle.flight_recorder\",\"version\":1,\"rank\":$1,\"world\":2,\"backend\":\"gloo\",\"written_ns\":2000000001,\"failure\":\"\",\"verdict\":\"\",\"left\":false,\"groups\":[{\"name\":\"dp\",\"ranks\":[0,1],\"issued\":$2,\"started\":$2,\"finished\":1}],\"records\":[$3]}"; }
dump 0 2 "$(record 1 finished),$(record 2 started)" >records/flight-recorder.rank0.json
expect 0 'rank 1: left no record' records
dump 1 1 "$(record 1 finished)" >records/flight-recorder.rank1.json
expect 0 'Verdict: rank 1 is missing: all_gather f32 8 #2 of group dp \[0,1\] \(64 bytes; zero.gather in model.layers.3 at model.py:88\) has waited 2.0 s on rank 0' records
expect 1 'takes no option' records --json x.json
expect 1 'none holds no flight-recorder' none
# A damaged record is named; the others are judged without it, as long as there are any.
dump 1 1 "$(record 1 finished)" | head -c 150 >records/flight-recorder.rank1.json
expect 0 'Verdict: rank 1 is missing|rank 1: left no record that can be read' records
expect 0 'damaged: flight-recorder.rank1.json: ' records
expect 0 'Verdict without what is damaged: rank 1' records
echo '{}' >records/flight-recorder.rank1.json
expect 0 "rank1.json: not a flight recorder's dump" records
rm records/flight-recorder.rank0.json
expect 1 "rank1.json: not a flight recorder's dump" records

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
expect 1 'holds no flight-recorder' .
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
