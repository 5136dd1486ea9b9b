#!/bin/bash
# Fuzzes the import of MLIR: mlir_fuzz_test.sh FUZZER SEED.mlir... HEDDLE_FUZZ_SECONDS (20) says how long.
set -euo pipefail
fuzzer="$PWD/$1"
shift
corpus="$TEST_TMPDIR/corpus"
mkdir -p "$corpus"
# Every case of a lit file is a seed of its own, without its comments.
python3 - "$corpus" "$@" <<'SEEDS'
import pathlib, sys
folder, *files = sys.argv[1:]
for file in files:
    for i, case in enumerate(pathlib.Path(file).read_text().split("// -----")):
        text = "\n".join(line for line in case.splitlines() if not line.lstrip().startswith("//"))
        pathlib.Path(folder, f"{pathlib.Path(file).stem}.{i}").write_text(text.strip())
SEEDS
cd "$TEST_TMPDIR"
exec "$fuzzer" -max_total_time="${HEDDLE_FUZZ_SECONDS:-20}" -max_len=16384 -rss_limit_mb=3000 -timeout=20 -print_final_stats=1 corpus
