#!/bin/bash
# The page in a real browser: it renders without an error, reacts, and asks for nothing outside itself.
# page_test.sh HEDDLE_INSPECT STEP_MLIR WRITE_PLANS
set -euo pipefail
inspect="$PWD/$1" step="$PWD/$2" write_plans="$PWD/$3"
cd "$TEST_TMPDIR"
command -v chromium >/dev/null || { echo "FAILED: chromium is needed: apt-get install chromium"; exit 1; }
export HOME="$PWD"

# What a reader would do; the findings land in the document, where --dump-dom shows them.
cat >visit.html <<'SCRIPT'
<script>
const found = {};
const rows = () => document.querySelectorAll('#ops tbody tr').length;
const painted = (id) => {
  const canvas = document.getElementById(id);
  return new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size > 8;
};
found.tiles = document.querySelectorAll('.tile').length;
found.charts = painted('memory') && painted('icicle') && painted('timeline');
found.all = rows();
const search = document.getElementById('search');
search.value = 'no such op';
search.oninput();
found.none = rows();
search.value = '';
search.oninput();
const box = document.getElementById('memory').getBoundingClientRect();
document.getElementById('memory').dispatchEvent(new MouseEvent('mousemove', {clientX: box.left + box.width / 2, clientY: box.top + 100, bubbles: true}));
found.tip = document.getElementById('tip').textContent.includes('op ');
document.querySelector('#ops tbody tr').click();
found.graph = document.querySelectorAll('#graph .node.focus').length;
const before = getComputedStyle(document.body.parentElement).backgroundColor;
document.getElementById('theme').click();
found.theme = before !== getComputedStyle(document.body.parentElement).backgroundColor;
for (const tab of document.querySelectorAll('#tabs button')) document.querySelector(`#tabs button[data-i="${tab.dataset.i}"]`).click();
found.tabs = document.querySelectorAll('#tabs button').length;
found.requests = performance.getEntriesByType('resource').length;
document.body.dataset.found = JSON.stringify(found).replaceAll('"', '');
</script>
SCRIPT

visit() {
  local name=$1 wanted
  shift
  cat "$name.html" visit.html >"$name.visited.html"
  timeout 100 chromium --headless --no-sandbox --disable-gpu --user-data-dir="$PWD/profile" --window-size=1400,1000 --virtual-time-budget=4000 \
    --enable-logging=stderr --dump-dom "file://$PWD/$name.visited.html#light" >"$name.dom" 2>"$name.log"
  if grep 'CONSOLE' "$name.log"; then
    echo "FAILED: $name: the console says the above"
    exit 1
  fi
  for wanted in "$@"; do
    grep -o 'data-found="[^"]*"' "$name.dom" | grep -q -- "$wanted" && continue
    echo "FAILED: $name: wanted $wanted in $(grep -o 'data-found="[^"]*"' "$name.dom")"
    exit 1
  done
}

"$inspect" "$step" --html step.html
visit step 'tiles:7' charts:true all:200 none:0 tip:true graph:1 theme:true tabs:0 requests:0
"$write_plans" .
"$inspect" train.plan --html train.html
visit train 'tiles:8' charts:true none:0 tip:true theme:true tabs:3 requests:0
"$inspect" streams.plan --html streams.html
visit streams charts:true none:0 tip:true graph:1 requests:0
echo "all passed"
