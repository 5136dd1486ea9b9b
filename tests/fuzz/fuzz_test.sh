#!/bin/bash
# Fuzzes one target: fuzz_test.sh FUZZER WRITE_PLANS. HEDDLE_FUZZ_SECONDS (20) says how long.
set -euo pipefail
fuzzer="$1"
corpus="$TEST_TMPDIR/corpus"
mkdir -p "$corpus"
"$2" "$corpus"
# The big plans are only slow.
find "$corpus" -size +64k -delete
python3 - "$corpus" <<'SEEDS'
import json, struct, sys
header = json.dumps({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "BOOL", "shape": [], "data_offsets": [8, 9]}}).encode()
open(sys.argv[1] + "/two.safetensors", "wb").write(struct.pack("<Q", len(header)) + header + bytes(9))
SEEDS
cd "$TEST_TMPDIR"
exec "$OLDPWD/$fuzzer" -max_total_time="${HEDDLE_FUZZ_SECONDS:-20}" -max_len=65536 -rss_limit_mb=3000 -print_final_stats=1 corpus
