// The surroundings of one op: two steps back to what it reads, two steps on to who reads it.
class Neighbourhood {
  constructor(element, onPick) {
    this.element = element;
    this.users = new WeakMap();
    element.onclick = (e) => {
      const node = e.target.closest('.node');
      if (node && node.dataset.i) onPick(+node.dataset.i);
    };
  }
  usersOf(section) {
    if (!this.users.has(section)) {
      const users = section.ops.map(() => []);
      section.ops.forEach((op, i) => new Set(op[13]).forEach((from) => { if (from >= 0) users[from].push(i); }));
      this.users.set(section, users);
    }
    return this.users.get(section);
  }
  show(section, focus) {
    if (!section.ops.length) { this.element.innerHTML = ''; return; }
    const most = 7, users = this.usersOf(section);
    // Columns of node keys: an op's number, "g" + text for what is given, "m…" for how many more there are.
    const columns = [[], [], [String(focus)], [], []], edges = [];
    const seen = new Set(columns[2]);
    const step = (from, to, next, forward) => {
      let left = 0;
      for (const key of columns[from]) {
        if (!/^\d/.test(key)) continue;
        for (const other of new Set(next(+key))) {
          const name = other >= 0 ? String(other) : 'g' + text(-1 - other);
          if (!seen.has(name)) {
            if (columns[to].length >= most) { left++; continue; }
            seen.add(name);
            columns[to].push(name);
          }
          edges.push(forward ? [key, name] : [name, key]);
        }
      }
      if (left) columns[to].push('m' + left);
    };
    const sources = (i) => section.ops[i][13], readers = (i) => users[i];
    step(2, 1, sources, false);
    step(1, 0, sources, false);
    step(2, 3, readers, true);
    step(3, 4, readers, true);
    const width = 1240, w = 212, h = 48, gap = 12, rows = Math.max(...columns.map((c) => c.length));
    const height = rows * (h + gap) + gap, place = new Map();
    columns.forEach((column, c) => column.forEach((key, r) =>
      place.set(key, {x: c * (width - w) / 4, y: (height - column.length * (h + gap) + gap) / 2 + r * (h + gap)})));
    const clipped = (s, n) => escapeHtml(s.length > n ? s.slice(0, n - 1) + '…' : s);
    const tail = (s, n) => escapeHtml(s.length > n ? '…' + s.slice(1 - n) : s);
    const lines = edges.filter(([a, b]) => place.has(a) && place.has(b)).map(([a, b]) => {
      const from = place.get(a), to = place.get(b), x = from.x + w, bend = Math.max(24, (to.x - x) / 2);
      // Two ops of one column: an arc on their left.
      if (to.x <= from.x) return `<path d="M${from.x} ${from.y + h / 2}C${from.x - 26} ${from.y + h / 2} ${to.x - 26} ${to.y + h / 2} ${to.x} ${to.y + h / 2}"/>`;
      return `<path d="M${x} ${from.y + h / 2}C${x + bend} ${from.y + h / 2} ${to.x - bend} ${to.y + h / 2} ${to.x} ${to.y + h / 2}"/>`;
    });
    const nodes = [...place].map(([key, {x, y}]) => {
      if (key[0] === 'm') return `<text class="dim" x="${x + 10}" y="${y + h / 2 + 4}">and ${key.slice(1)} more</text>`;
      const given = key[0] === 'g', op = given ? null : section.ops[+key];
      const name = given ? key.slice(1) : text(op[0]).replace(/^(graph\.|aten::)/, '');
      const below = given ? 'given to the step' : text(op[3]) || text(op[8]);
      const classes = ['node', given ? 'given' : '', op && op[10] ? 'view' : '', key === String(focus) ? 'focus' : ''].filter(Boolean).join(' ');
      const colour = given ? '--soft' : '--' + (text(op[2]) || 'forward');
      return `<g class="${classes}" ${given ? '' : `data-i="${key}"`} transform="translate(${x} ${y})"><rect width="${w}" height="${h}" rx="8"/>` +
        `<rect x="0" y="8" width="3.5" height="${h - 16}" rx="1.7" style="fill:var(${colour});stroke:none"/>` +
        `<text x="13" y="20">${given ? tail(name, 29) : clipped(name, 29)}</text><text class="dim" x="13" y="37">${tail(below, 32)}</text>` +
        `<title>${given ? escapeHtml(name) : escapeHtml(`op ${key}: ${text(op[0])} ${text(op[8])}\n${text(op[3])}`)}</title></g>`;
    });
    const op = section.ops[focus];
    const facts = [`op ${focus}: ${text(op[0])} → ${text(op[8]) || 'nothing'}`, text(op[3]), text(op[4]), (op[5] ? flops(op[5]) + ', ' : '') + bytes(op[6]) + ' moved', text(op[14])];
    this.element.innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="ops around op ${focus}">${lines.join('')}${nodes.join('')}</svg>` +
      `<div class="detail mono">${escapeHtml(facts.filter(Boolean).join('\n'))}</div>`;
  }
}
