// The page around the charts: header, tiles, bars, tree, lifetimes, table; one section of the program at a time.
let section = data.sections[0];
let order = {column: -1, down: true};
let shown = 200;
const openModules = new Set();

const memory = new MemoryChart($('memory'));
const icicle = new Icicle($('icicle'), (zoomed) => { $('zoom-out').hidden = !zoomed; });
let focus = 0;
const graph = new Neighbourhood($('graph'), (i) => pick(i));
const timeline = new Timeline($('timeline'), (i) => pick(i));

function pick(i, scroll) {
  focus = i;
  graph.show(section, i);
  document.querySelectorAll('#ops tr.focus').forEach((row) => row.classList.remove('focus'));
  document.querySelector(`#ops tr[data-i="${i}"]`)?.classList.add('focus');
  if (scroll) $('graph-card').scrollIntoView({behavior: 'smooth', block: 'center'});
}

function header() {
  document.title = data.file + ' – heddle-inspect';
  $('file').textContent = data.file;
  $('facts').textContent = [data.format, 'target ' + data.target, data.precision, 'torch ' + data.torch, data.mode].filter(Boolean).join('  ·  ');
  if (data.sections.length > 1) {
    $('tabs').innerHTML = data.sections.map((s, i) => `<button role="tab" data-i="${i}" aria-selected="${s === section}">${escapeHtml(s.name)}</button>`).join('');
    $('tabs').onclick = (e) => { if (e.target.dataset.i) { section = data.sections[+e.target.dataset.i]; shown = 200; focus = section.peak.op; header(); render(); } };
  }
}

function tiles() {
  const [ops, ods, allFlops, odsFlops, moved] = section.share;
  const parameters = data.state.find((s) => s[0] === 'parameter');
  const state = data.state.reduce((sum, s) => sum + (s[0] === 'input' || s[0] === 'constant' ? 0 : s[3]), 0);
  const list = [
    [count(data.modules.e), 'parameters' + (parameters ? ` in ${parameters[1]} ${parameters[1] === 1 ? 'tensor' : 'tensors'}` : '')],
    [bytes(state), 'parameters and their state'],
    [allFlops ? flops(allFlops) : '–', allFlops ? 'floating-point operations' : 'FLOPs are not in this file'],
    [bytes(moved), 'read and written by ops'],
    [bytes(section.peak.bytes), 'live at the peak'],
    [ops.toLocaleString('en'), `ops, ${percent(ods, ops)} ODS` + (allFlops ? ` (${percent(odsFlops, allFlops)} of FLOPs)` : '')],
  ];
  if (section.scratch >= 0) list.push([bytes(section.scratch), `scratch arena, ${section.bound > 0 ? (section.scratch / section.bound).toFixed(3) : '1.000'} of the lower bound`]);
  list.push([micros(section.seconds * 1e6), 'predicted, ' + data.device]);
  if (section.collectives) list.push([micros(section.exposed * 1e6), 'exposed of ' + micros(section.collectives * 1e6) + ' collectives, predicted']);
  $('tiles').innerHTML = list.map(([number, what]) => `<div class="tile"><b>${number}</b><span>${escapeHtml(what)}</span></div>`).join('');
}

function memoryLegend() {
  const used = data.categories.map((name, c) => [c, name]).filter(([c]) => section.memory.some((p) => p[c + 1]));
  $('memory-legend').innerHTML = used.map(([c, name]) => `<button data-c="${c}" class="${memory.off.has(c) ? 'off' : ''}"><i style="background:var(--c${c})"></i>${name}</button>`).join('');
  $('memory-legend').onclick = (e) => {
    const button = e.target.closest('button');
    if (!button) return;
    const c = +button.dataset.c;
    memory.off.has(c) ? memory.off.delete(c) : memory.off.add(c);
    memoryLegend();
    memory.draw();
  };
  const op = section.ops[section.peak.op];
  $('memory-note').textContent = op ? `What must exist while each op runs. The peak is op ${section.peak.op}, ${text(op[0])}${text(op[3]) ? ' in ' + text(op[3]) : ''}.` : 'This section has no ops.';
}

function flopsBars() {
  const phases = ['forward', 'backward', 'update'];
  const whole = section.share[2], most = Math.max(1, ...section.kinds.map((k) => k[2]));
  $('phase-legend').innerHTML = phases.map((p) => `<span><i style="background:var(--${p})"></i>${p}&ensp;</span>`).join('');
  $('flops').innerHTML = section.kinds.map(([kind, ops, all, moved, byPhase]) => {
    const parts = all ? byPhase.map((f, i) => `<i style="width:${100 * f / most}%;background:var(--${phases[i]})"></i>`).join('') : '';
    return `<div class="bar" title="${ops} ops, ${bytes(moved)} moved"><span>${escapeHtml(kind)} <span class="dim">×${ops}</span></span><span class="track">${parts}</span><span>${all ? flops(all) : bytes(moved)}</span><span class="dim">${all ? percent(all, whole) : 'moved'}</span></div>`;
  }).join('');
  let note = '';
  if (section.closed) {
    const [weights, tokens, attention, expected, counted] = section.closed;
    note = `Closed form: 6 × ${count(weights)} weights × ${tokens} tokens + attention ${flops(attention)} = ${flops(expected)}; counted ${(counted / expected).toFixed(4)} of it.`;
  }
  if (section.others.length) note += ' Not ODS: ' + section.others.map(([name, n]) => `${name} ×${n}`).join(', ') + '.';
  $('flops-note').textContent = note;
}

function tree() {
  const rows = [];
  const visit = (node, depth, path) => {
    (node.c || []).forEach((child, i) => {
      const full = path + '/' + i + ':' + child.n;
      const open = openModules.has(full);
      const tags = [child.t, child.r, child.frozen && 'frozen', child.tied && 'tied with ' + child.tied].filter(Boolean).join(' ');
      rows.push(`<div class="row" data-path="${escapeHtml(full)}" ${child.c ? 'style="cursor:pointer"' : ''}><span class="name" style="padding-left:${depth * 16}px"><span class="fold">${child.c ? (open ? '▾' : '▸') : ''}</span>${escapeHtml(child.n)}<span class="tag">${escapeHtml(tags)}</span></span><span>${count(child.e)}</span><span class="dim">${bytes(child.b)}</span></div>`);
      if (open) visit(child, depth + 1, full);
    });
  };
  visit(data.modules, 0, '');
  $('tree').innerHTML = rows.join('') || '<p class="note">This program has no parameters.</p>';
}
$('tree').onclick = (e) => {
  const row = e.target.closest('.row');
  if (!row) return;
  const path = row.dataset.path;
  openModules.has(path) ? openModules.delete(path) : openModules.add(path);
  tree();
};

function longest() {
  const last = Math.max(1, section.ops.length - 1);
  $('longest').innerHTML = section.longest.map(([name, c, size, from, to]) =>
    `<div class="life" title="${escapeHtml(name)}: ops ${from} to ${to}, ${data.categories[c]}"><span class="name"><bdi>${escapeHtml(name)}</bdi></span><span class="track"><i style="left:${100 * from / last}%;width:${100 * (to - from) / last}%;background:var(--c${c})"></i></span><span>${bytes(size)}</span></div>`).join('') || '<p class="note">Nothing is allocated inside this section.</p>';
}

const columns = [['#', (o, i) => i, 1], ['op', (o) => text(o[0])], ['result', (o) => text(o[8])], ['module', (o) => text(o[3])], ['phase', (o) => text(o[2])], ['kind', (o) => text(o[1])],
  ['FLOPs', (o) => o[5], 1], ['bytes', (o) => o[6], 1], ['time', (o) => o[12], 1], ['source', (o) => text(o[4])]];
function table() {
  $('ops').tHead.innerHTML = '<tr>' + columns.map(([name, , number], i) => `<th data-i="${i}" class="${number ? 'num' : ''}">${name}${order.column === i ? (order.down ? ' ↓' : ' ↑') : ''}</th>`).join('') + '</tr>';
  const words = $('search').value.toLowerCase().split(/\s+/).filter(Boolean);
  let rows = section.ops.map((op, i) => [op, i]);
  if (words.length) {
    rows = rows.filter(([op]) => {
      const all = [0, 1, 2, 3, 4, 8].map((c) => text(op[c])).join(' ').toLowerCase() + (op[9] ? '' : ' graph.call');
      return words.every((w) => all.includes(w));
    });
  }
  if (order.column >= 0) {
    const key = columns[order.column][1];
    rows.sort(([a, i], [b, j]) => { const x = key(a, i), y = key(b, j); return (x < y ? -1 : x > y ? 1 : i - j) * (order.down ? -1 : 1); });
  }
  const total = rows.reduce((sum, [op]) => [sum[0] + op[5], sum[1] + op[6], sum[2] + op[12]], [0, 0, 0]);
  $('ops-note').textContent = `${rows.length} of ${section.ops.length} ops: ${total[0] ? flops(total[0]) + ', ' : ''}${bytes(total[1])} moved, ${micros(total[2])} predicted`;
  $('ops').tBodies[0].innerHTML = rows.slice(0, shown).map(([op, i]) =>
    `<tr data-i="${i}" class="${i === focus ? 'focus' : ''}"><td class="num dim">${i}</td><td class="mono">${escapeHtml(text(op[0]))}</td><td class="mono">${escapeHtml(text(op[8]))}</td><td title="${escapeHtml(text(op[3]))}">${escapeHtml(text(op[3]))}</td><td>${text(op[2])}</td><td>${escapeHtml(text(op[1]))}${op[9] ? '' : ' <span class="tag">call</span>'}</td><td class="num">${op[5] ? flops(op[5]) : ''}</td><td class="num">${op[6] ? bytes(op[6]) : ''}</td><td class="num">${op[10] ? '' : micros(op[12])}</td><td class="mono dim" title="${escapeHtml(text(op[4]))}">${escapeHtml(text(op[4]).split('/').slice(-2).join('/'))}</td></tr>`).join('');
  $('more').hidden = rows.length <= shown;
}
$('ops').tHead.onclick = (e) => {
  const i = +e.target.dataset.i;
  order = order.column === i ? {column: i, down: !order.down} : {column: i, down: !!columns[i][2]};
  table();
};
$('ops').tBodies[0].onclick = (e) => {
  const row = e.target.closest('tr');
  if (row) pick(+row.dataset.i, true);
};
$('search').oninput = () => { shown = 200; table(); };
$('more').onclick = () => { shown += 1000; table(); };
$('zoom-out').onclick = () => icicle.back();

function draw() {
  memory.show(section);
  icicle.draw();
  timeline.show(section);
  graph.show(section, focus);
}
function render() {
  tiles(); memoryLegend(); flopsBars(); tree(); longest(); table();
  $('module-note').textContent = 'Width is the number of parameters; click to go in.';
  $('time-note').textContent = `${data.streams.length === 1 ? 'One stream' : data.streams.length + ' streams'}, times predicted for ${data.device}. Wheel zooms, drag moves, double click resets; matrix products and attention are solid.`;
  $('kind-legend').innerHTML = ['forward', 'backward', 'update'].map((p) => `<span><i style="background:var(--${p})"></i>${p}&ensp;</span>`).join('');
  draw();
}
$('theme').onclick = () => {
  document.documentElement.dataset.theme = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
  draw();
};
document.documentElement.dataset.theme = location.hash === '#dark' || (location.hash !== '#light' && matchMedia('(prefers-color-scheme: dark)').matches) ? 'dark' : 'light';
addEventListener('resize', () => { memory.draw(); icicle.draw(); timeline.draw(); });
if (section) {
  // The way down to the first module with several children is open.
  for (let node = data.modules, path = ''; node && node.c && node.c.length <= 3;) {
    const widest = node.c.reduce((best, child) => child.e > best.e ? child : best);
    path += '/' + node.c.indexOf(widest) + ':' + widest.n;
    openModules.add(path);
    node = widest;
  }
  focus = section.peak.op;
  header();
  render();
}
