# Sourced by ./dev: Bazel, the libraries that Python loads, tests, docs, wheel.

# What Python and a wheel need, as Bazel labels; each is one file in build/lib.
library_labels=(
  //capture:heddle_capture
  //runtime/torch:heddle_runtime
  //api/compiler:heddle_compiler
)
tool_labels=(
  //tools/heddle-opt:heddle-opt
  //tools/heddle-inspect:heddle-inspect
  //tools/heddle-run:heddle-run
)

run_bazel() {
  local startup=() options=(--disk_cache="${HEDDLE_CACHE:-$HOME/.cache/heddle}/bazel") verb=$1
  shift
  [[ -n ${HEDDLE_OUTPUT_BASE:-} ]] && startup+=(--output_base="$HEDDLE_OUTPUT_BASE")
  # The progress display rewrites lines, which a log file cannot.
  [[ -t 2 ]] || options+=(--noshow_progress)
  bazel "${startup[@]}" "$verb" "${options[@]}" "$@"
}

# Copies the libraries and tools of the last build into build/lib, each replaced
# in one rename: a process that has the old one mapped keeps it.
gather_libraries() {
  local bin file
  bin=$(run_bazel info bazel-bin 2>/dev/null)
  mkdir -p build/lib
  for file in "$bin"/{capture/libheddle_capture.so,runtime/torch/libheddle_runtime.so,api/compiler/libheddle_compiler.so} \
    "$bin"/tools/{heddle-opt/heddle-opt,heddle-inspect/heddle-inspect,heddle-run/heddle-run}; do
    [[ -f $file ]] || die "the build did not make ${file#"$bin"/}"
    cmp -s "$file" "build/lib/$(basename "$file")" && continue
    install -m 755 "$file" "build/lib/.new" && mv "build/lib/.new" "build/lib/$(basename "$file")"
  done
}

build_libraries() {
  run_bazel build --ui_event_filters=-info --show_result=0 "${library_labels[@]}" "${tool_labels[@]}"
  gather_libraries
}

build_all() {
  if [[ $# -gt 0 ]]; then
    run_bazel build "$@"
  else
    run_bazel build //...
    gather_libraries
    say "libraries and tools are in build/lib"
  fi
}

run_python() {
  export PYTHONPATH="$PWD/api/python${PYTHONPATH:+:$PYTHONPATH}"
  export HEDDLE_LIB_DIR="$PWD/build/lib"
  cd "$invoked_from"
  exec "$repository/.venv/bin/python" "$@"
}

# Tests without LibTorch, whose code is not instrumented: what it shares with
# ours (allocations, reference counts, thread pools) would be reported as races
# and leaks that are none.
thread_sanitized=(//tests/unit/runtime:races_test)
sanitized=(
  //tests/unit/runtime:{races,ranks,plan,verify,trace,comm,graph}_test
  //tests/conformance:{loopback,loopback_failures}_test
)

# Runs tests built with --config=$1 and adds what came of them to `reports`.
run_sanitized() {
  local config=$1 code=0
  shift
  run_bazel test --config="$config" "$@" --keep_going --show_result=0 --test_summary=short \
    --build_event_json_file="build/bazel-$config.json" || code=$?
  reports+=(--sanitized "$config" "build/bazel-$config.json" "$code")
}

# Bazel's tests, then the end-to-end tests on the same libraries. Whatever goes
# wrong, report.py has the last word and the exit code.
run_tests() {
  local filter=-full build_code=0 e2e_code=0 reports=()
  for argument in "$@"; do
    case $argument in
      --full) filter= && export HEDDLE_TEST_FULL=1 HEDDLE_FUZZ_SECONDS=600 ;;
      *) die "unknown argument '$argument' of test; there is --full" ;;
    esac
  done
  mkdir -p build
  rm -f build/bazel-*.json build/e2e.xml
  run_bazel test //... --keep_going --show_result=0 --test_summary=short \
    --test_tag_filters="$filter" --build_tag_filters="$filter" --test_env=HEDDLE_TEST_FULL="${HEDDLE_TEST_FULL:-}" \
    --test_env=HEDDLE_FUZZ_SECONDS="${HEDDLE_FUZZ_SECONDS:-20}" \
    --build_event_json_file=build/bazel-events.json || build_code=$?
  if [[ -n ${HEDDLE_TEST_FULL:-} ]]; then
    run_sanitized asan "${sanitized[@]}"
    run_sanitized tsan "${sanitized[@]}"
  else
    run_sanitized tsan "${thread_sanitized[@]}"
  fi
  if compgen -G 'tests/e2e/test_*.py' >/dev/null; then
    (
      gather_libraries
      run_python -m pytest -q -p no:cacheprovider --junitxml="$repository/build/e2e.xml" \
        "$repository/tests/e2e"
    ) </dev/null || e2e_code=$?
  fi
  .venv/bin/python tools/setup/report.py --bazel build/bazel-events.json --bazel-code "$build_code" "${reports[@]}" \
    --pytest build/e2e.xml --pytest-code "$e2e_code"
}

cpp_files() {
  git ls-files -z --cached --others --exclude-standard -- '*.cc' '*.h' '*.cu' '*.cpp' | xargs -0 ls -d 2>/dev/null | tr '\n' '\0'
}

# One page for every file of ops, attributes or passes, as their descriptions say.
make_docs() {
  local td kind out
  mkdir -p build/docs
  while IFS= read -r -d '' td; do
    case $td in
      *Passes.td) kind=-gen-pass-doc ;;
      *Dialect.td) kind=-gen-attrdef-doc ;;
      *Ops.td) kind=-gen-op-doc ;;
      *) continue ;;
    esac
    out=build/docs/$(tr / _ <<<"${td%.td}").md
    mlir-tblgen-19 $kind -I /usr/lib/llvm-19/include -I . "$td" -o "$out"
  done < <(find ir passes -name '*.td' -print0 | sort -z)
  say "$(find build/docs -name '*.md' | wc -l) pages in build/docs"
}

make_wheel() {
  rm -f dist/heddle-*.whl
  run_bazel build --config=wheel --ui_event_filters=-info --show_result=0 \
    "${library_labels[@]}" "${tool_labels[@]}" //tools/setup/wheel/...
  .venv/bin/python tools/setup/wheel.py --bin "$(run_bazel info --config=wheel bazel-bin 2>/dev/null)" --dist dist
  tools/setup/check_wheel.sh dist/heddle-*-py3-none-*.whl
}

clean() {
  rm -rf build dist
  if command -v bazel >/dev/null; then run_bazel clean; fi
}
