'use strict';
// Drawing on canvases: memory (stacked areas), modules (icicle), streams (lanes). Numbers come from the data element; colours from the style sheet's variables.
const data = JSON.parse(document.getElementById('data').textContent);
const $ = (id) => document.getElementById(id);
const text = (index) => data.strings[index];
const escapeHtml = (s) => String(s).replace(/[&<>"]/g, (c) => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'})[c]);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function scaled(number, step, units) {
  let unit = 0;
  while (Math.abs(number) >= step * 0.9995 && unit + 1 < units.length) { number /= step; unit++; }
  const digits = unit === 0 && Number.isInteger(number) ? 0 : number >= 100 ? 0 : number >= 10 ? 1 : 2;
  return number.toFixed(digits) + (units[unit] ? ' ' + units[unit] : '');
}
const bytes = (n) => scaled(n, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
const count = (n) => scaled(n, 1000, ['', 'K', 'M', 'B', 'T']);
const flops = (n) => scaled(n, 1000, ['FLOP', 'KFLOP', 'MFLOP', 'GFLOP', 'TFLOP', 'PFLOP']);
const micros = (n) => n >= 1e6 ? scaled(n / 1e6, 1000, ['s']) : scaled(n * 1000, 1000, ['ns', 'µs', 'ms', 's']);
const percent = (part, whole) => whole ? (100 * part / whole).toFixed(1) + ' %' : '–';

const tip = $('tip');
function showTip(event, html) {
  tip.innerHTML = html;
  tip.style.display = 'block';
  const box = tip.getBoundingClientRect();
  const right = event.clientX + 16 + box.width > innerWidth;
  tip.style.left = Math.max(4, right ? event.clientX - box.width - 14 : event.clientX + 16) + 'px';
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 8)) + 'px';
}
const hideTip = () => { tip.style.display = 'none'; };

// The canvas's 2d context in CSS pixels.
function prepare(canvas, height) {
  const ratio = devicePixelRatio || 1, width = canvas.parentElement.clientWidth;
  canvas.style.height = height + 'px';
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = '11.5px system-ui, sans-serif';
  return {context, width, height};
}

// About `wanted` round steps from 0 to `most`; powers of two for bytes.
function niceStep(most, wanted, base) {
  const raw = most / wanted;
  if (base === 2) return Math.pow(2, Math.round(Math.log2(Math.max(raw, 1))));
  const power = Math.pow(10, Math.floor(Math.log10(raw)));
  return [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
}

// Runs of equal phase: [phase, first op, last op].
function phaseRuns(section) {
  const runs = [];
  section.ops.forEach((op, i) => {
    const phase = text(op[2]);
    if (runs.length && runs[runs.length - 1][0] === phase) runs[runs.length - 1][2] = i;
    else runs.push([phase, i, i]);
  });
  return runs;
}

class MemoryChart {
  constructor(canvas) {
    this.canvas = canvas;
    this.off = new Set();
    this.hover = -1;
    canvas.addEventListener('mousemove', (e) => this.move(e));
    canvas.addEventListener('mouseleave', () => { this.hover = -1; hideTip(); this.draw(); });
  }
  show(section) { this.section = section; this.hover = -1; this.draw(); }
  total(point) { let sum = 0; for (let c = 0; c < data.categories.length; c++) if (!this.off.has(c)) sum += point[c + 1]; return sum; }
  x(op) { return this.left + (this.section.ops.length < 2 ? 0 : op / (this.section.ops.length - 1) * this.plot); }
  draw() {
    const {context: g, width, height} = prepare(this.canvas, 320);
    const points = this.section.memory;
    this.left = 66; this.plot = width - this.left - 10;
    const top = 22, bottom = height - 24;
    const most = Math.max(1, ...points.map((p) => this.total(p)));
    const step = niceStep(most, 5, 2), ceiling = most * 1.04;
    const y = (b) => bottom - b / ceiling * (bottom - top);
    g.textBaseline = 'middle';
    for (const [phase, first, last] of phaseRuns(this.section)) {
      if ((last - first) / this.section.ops.length < 0.02) continue;
      g.fillStyle = css('--' + (phase || 'forward'));
      g.globalAlpha = .85;
      g.fillRect(this.x(first), bottom + 2, this.x(last) - this.x(first), 3);
      g.globalAlpha = 1;
      g.fillText(phase, this.x(first) + 2, bottom + 15);
    }
    g.fillStyle = css('--soft'); g.strokeStyle = css('--line'); g.lineWidth = 1;
    for (let b = 0; b <= ceiling; b += step) {
      g.textAlign = 'right';
      g.fillText(bytes(b), this.left - 8, y(b));
      g.beginPath(); g.moveTo(this.left, y(b)); g.lineTo(width - 10, y(b)); g.stroke();
    }
    g.textAlign = 'left';
    const base = new Float64Array(points.length);
    for (let c = 0; c < data.categories.length; c++) {
      if (this.off.has(c) || !points.some((p) => p[c + 1])) continue;
      g.beginPath();
      points.forEach((p, i) => g.lineTo(this.x(p[0]), y(base[i] + p[c + 1])));
      for (let i = points.length - 1; i >= 0; i--) g.lineTo(this.x(points[i][0]), y(base[i]));
      g.closePath();
      g.fillStyle = css('--c' + c);
      g.globalAlpha = .9; g.fill(); g.globalAlpha = 1;
      points.forEach((p, i) => { base[i] += p[c + 1]; });
    }
    const peak = this.section.peak;
    if (!this.off.size) {
      const px = this.x(peak.op), label = 'peak ' + bytes(peak.bytes);
      g.strokeStyle = g.fillStyle = css('--accent');
      g.setLineDash([3, 3]); g.beginPath(); g.moveTo(px, top - 8); g.lineTo(px, bottom); g.stroke(); g.setLineDash([]);
      g.font = '600 12px system-ui, sans-serif';
      g.textAlign = px > width - 140 ? 'right' : 'left';
      g.fillText(label, px + (g.textAlign === 'left' ? 6 : -6), 9);
    }
    if (this.hover >= 0) {
      const hx = this.x(points[this.hover][0]);
      g.strokeStyle = css('--ink'); g.beginPath(); g.moveTo(hx, top); g.lineTo(hx, bottom); g.stroke();
    }
  }
  move(event) {
    const points = this.section.memory;
    if (!points.length || !this.section.ops.length) return;
    const at = (event.offsetX - this.left) / this.plot * (this.section.ops.length - 1);
    let best = 0;
    points.forEach((p, i) => { if (Math.abs(p[0] - at) < Math.abs(points[best][0] - at)) best = i; });
    this.hover = best;
    this.draw();
    const point = points[best], op = this.section.ops[point[0]];
    const rows = data.categories.map((name, c) => [c, name, point[c + 1]]).filter((r) => r[2] && !this.off.has(r[0])).reverse()
      .map(([c, name, b]) => `<tr><td><i style="background:var(--c${c})"></i>${name}</td><td>${bytes(b)}</td></tr>`).join('');
    showTip(event, `<b>op ${point[0]}: ${escapeHtml(text(op[0]))}</b><br>${escapeHtml(text(op[3]) || text(op[2]))}<table>${rows}<tr><td><b>all</b></td><td><b>${bytes(this.total(point))}</b></td></tr></table>`);
  }
}

class Icicle {
  constructor(canvas, onZoom) {
    this.canvas = canvas; this.path = [data.modules]; this.onZoom = onZoom; this.boxes = [];
    canvas.addEventListener('mousemove', (e) => {
      const box = this.at(e);
      canvas.style.cursor = box && box.node.c ? 'zoom-in' : 'default';
      if (!box) return hideTip();
      showTip(e, `<b>${escapeHtml(box.full)}</b><br>${box.node.t ? escapeHtml(box.node.t) + ' ' + escapeHtml(box.node.r || '') + '<br>' : ''}${count(box.node.e)} parameters, ${percent(box.node.e, data.modules.e)}<br>${bytes(box.node.b)}`);
    });
    canvas.addEventListener('mouseleave', hideTip);
    canvas.addEventListener('click', (e) => { const box = this.at(e); if (box && box.node.c && box.node !== this.root()) { this.path.push(...box.chain); this.draw(); } });
  }
  root() { return this.path[this.path.length - 1]; }
  back() { this.path.pop(); if (!this.path.length) this.path = [data.modules]; this.draw(); }
  at(e) { return this.boxes.findLast((b) => e.offsetX >= b.x && e.offsetX < b.x + b.w && e.offsetY >= b.y && e.offsetY < b.y + b.h); }
  draw() {
    const depthOf = (n) => n.c ? 1 + Math.max(...n.c.map(depthOf)) : 1;
    const rows = Math.min(7, depthOf(this.root())), h = 33;
    const {context: g, width} = prepare(this.canvas, rows * h);
    this.boxes = [];
    const prefix = this.path.slice(1).map((n) => n.n).join('.');
    const place = (node, x, w, depth, full, chain, hue) => {
      if (depth >= rows || w < .4) return;
      this.boxes.push({node, x, y: depth * h, w, h, full: full || 'all parameters', chain});
      g.fillStyle = css('--c' + hue); g.globalAlpha = depth === 0 ? .35 : Math.max(.45, .95 - .1 * depth);
      g.fillRect(x, depth * h, Math.max(w - (w > 3 ? 1 : 0), .4), h - 1);
      g.globalAlpha = 1;
      if (w > 34) {
        g.save(); g.beginPath(); g.rect(x, depth * h, w - 3, h); g.clip();
        g.fillStyle = css('--ink'); g.textBaseline = 'middle';
        g.fillText((node.n || 'all') + (w > 120 ? '  ' + count(node.e) : ''), x + 5, depth * h + h / 2);
        g.restore();
      }
      let at = x;
      (node.c || []).forEach((child, i) => {
        const share = node.e ? child.e / node.e * w : 0;
        const own = depth === 0 || (depth < 3 && node.c.length > 3) ? [0, 7, 2, 6, 10, 1, 9, 8][(i + depth) % 8] : hue;
        place(child, at, share, depth + 1, full ? full + '.' + child.n : child.n, [...chain, child], own);
        at += share;
      });
    };
    place(this.root(), 0, width, 0, prefix, [], 4);
    this.onZoom(this.path.length > 1);
  }
}

class Timeline {
  constructor(canvas, onPick) {
    this.canvas = canvas; this.range = null;
    canvas.addEventListener('wheel', (e) => {
      if (!e.ctrlKey && !e.shiftKey && !this.range && e.deltaY > 0) return;
      e.preventDefault();
      const [a, b] = this.view(), at = a + (e.offsetX - this.left) / this.plot * (b - a), factor = Math.exp(e.deltaY * .0015);
      this.zoom(at - (at - a) * factor, at + (b - at) * factor);
    }, {passive: false});
    canvas.addEventListener('mousedown', (e) => { this.drag = {x: e.offsetX, view: this.view()}; });
    addEventListener('mouseup', () => { this.drag = null; });
    canvas.addEventListener('dblclick', () => { this.range = null; this.draw(); });
    canvas.addEventListener('mousemove', (e) => this.move(e));
    canvas.addEventListener('mouseleave', hideTip);
    canvas.addEventListener('click', (e) => { const op = this.at(e); if (op) onPick(this.section.ops.indexOf(op)); });
  }
  show(section) { this.section = section; this.range = null; this.end = Math.max(1e-3, section.seconds * 1e6); this.draw(); }
  view() { return this.range || [0, this.end]; }
  zoom(a, b) {
    const span = Math.min(this.end, Math.max(b - a, .5));
    a = Math.max(0, Math.min(a, this.end - span));
    this.range = span >= this.end * .999 ? null : [a, a + span];
    this.draw();
  }
  draw() {
    const lane = 44, lanes = data.streams.length;
    const {context: g, width} = prepare(this.canvas, lanes * lane + 28);
    this.left = 96; this.plot = width - this.left - 8; this.lane = lane;
    const [a, b] = this.view(), scale = this.plot / (b - a);
    g.textBaseline = 'middle';
    const step = niceStep(b - a, 8, 10);
    g.strokeStyle = css('--line'); g.fillStyle = css('--soft');
    for (let t = Math.ceil(a / step) * step; t <= b; t += step) {
      const x = this.left + (t - a) * scale;
      g.beginPath(); g.moveTo(x, 0); g.lineTo(x, lanes * lane + 4); g.stroke();
      g.fillText(micros(t), x + 3, lanes * lane + 15);
    }
    data.streams.forEach((name, i) => { g.fillStyle = css('--soft'); g.fillText(name.slice(0, 15), 0, i * lane + lane / 2); g.fillStyle = css('--shade'); g.fillRect(this.left, i * lane + 4, this.plot, lane - 8); });
    // Pixels already drawn on are not drawn again: thousands of short ops share them.
    const drawn = new Float64Array(lanes).fill(-1);
    for (const op of this.section.ops) {
      if (op[10] || op[11] + op[12] < a || op[11] > b) continue;
      const x = this.left + Math.max(0, (op[11] - a) * scale), end = this.left + Math.min(this.plot, (op[11] + op[12] - a) * scale);
      if (end - x < .6 && x < drawn[op[7]]) continue;
      g.fillStyle = css('--' + (text(op[2]) || 'forward'));
      g.globalAlpha = kindWeight(text(op[1]));
      g.fillRect(x, op[7] * lane + 6, Math.max(end - x - (end - x > 3 ? .7 : 0), .6), lane - 12);
      g.globalAlpha = 1;
      drawn[op[7]] = x + .6;
      if (end - x > 60) {
        g.save(); g.beginPath(); g.rect(x, op[7] * lane, end - x - 4, lane); g.clip();
        g.fillStyle = css(kindWeight(text(op[1])) < 1 ? '--ink' : '--paper'); g.fillText(text(op[0]).replace(/^graph\.|^aten::/, ''), x + 5, op[7] * lane + lane / 2); g.restore();
      }
    }
  }
  at(event) {
    const [a, b] = this.view();
    const t = a + (event.offsetX - this.left) / this.plot * (b - a), stream = Math.floor(event.offsetY / this.lane), near = (b - a) / this.plot;
    if (event.offsetX < this.left) return undefined;
    return this.section.ops.find((o) => !o[10] && o[7] === stream && o[11] <= t + near && o[11] + o[12] >= t - near);
  }
  move(event) {
    const [a, b] = this.view();
    if (this.drag) {
      const shift = (this.drag.x - event.offsetX) / this.plot * (b - a);
      if (this.range) this.zoom(this.drag.view[0] + shift, this.drag.view[1] + shift);
      return hideTip();
    }
    const op = this.at(event);
    if (!op) return hideTip();
    showTip(event, `<b>${escapeHtml(text(op[0]))}</b> ${escapeHtml(text(op[8]))}<br>${escapeHtml(text(op[3]) || 'no module')}<br>${micros(op[12])} predicted, ${op[5] ? flops(op[5]) + ', ' : ''}${bytes(op[6])}`);
  }
}
// Matrix products stand out, the rest is lighter.
const kindWeight = (kind) => /matmul|attention|convolution/.test(kind) ? 1 : .5;
