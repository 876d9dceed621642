// View 3: the gates. Two sliders for each gated block, what each block adds, all gates together, and a training run played back.
"use strict";
const KINDS = ["looks", "thinks"]; // the two gates of a layer: cross-attention, feed-forward
const LOG = { at: null, timer: 0 }; // the moment of the training that is shown, counted in rows; null: the end

function wireGates() {
  $("all").oninput = (e) => scaleGates(Number(e.target.value));
  $("log-step").oninput = (e) => showMoment(Number(e.target.value));
}
Object.assign(DO, { zero: () => change({ gates: shutGates() }), trained: () => change({ gates: null }), play: playLog });
const clamp = (v) => Math.max(-1, Math.min(1, v));
const scaledGates = (factor) => trained().map((pair) => pair.map((v) => clamp(v * factor)));
const scaleGates = (factor) => change({ gates: factor === 1 ? null : scaledGates(factor) });
function factorNow() { // the one factor on all gates, or null if they were moved one by one
  const g = gatesNow().flat(), t = trained().flat(), least = t.indexOf(t.reduce((a, v) => (Math.abs(v) < Math.abs(a) ? v : a)));
  const factor = g[least] / t[least] || 0;
  return t.every((v, i) => Math.abs(g[i] - clamp(v * factor)) < 0.002) ? factor : null;
}

function drawGates() {
  if (!shown("gates")) return;
  const host = $("gates"), factor = factorNow(), was = trained();
  rebuilt(host, [was], () => host.replaceChildren(...gateRows(was)));
  gatesNow().forEach((pair, b) => pair.forEach((v, k) => putGate(host.sliders[b][k], v)));
  const t = chosenToken();
  NOW.result.added.forEach((added, b) => putShare(host.shares[b], added, t));
  $("all").value = factor ?? 1;
  $("all-out").textContent = $("all").ariaValueText = factor === null ? T("mixed") : "× " + factor.toFixed(2);
  put("gate-answer", NOW.said.text || "…");
  $("gates-key").replaceChildren(el("span", {}, T("keyGates", { word: wordAt(t) })));
  drawPlayback();
}
function gateRows(was) {
  const host = $("gates"), head = ["", T("looks"), "", T("thinks"), "", T("adds")];
  host.sliders = [];
  host.shares = [];
  const rows = was.flatMap((pair, b) => {
    const name = T("blockN", { n: b + 1 }), gates = KINDS.map((kind, k) => slider(`${name}, ${T(kind)}`, pair[k], b, k));
    host.sliders.push(gates);
    host.shares.push(el("div", { className: "share", role: "img" }, el("em"), el("span", {}, el("i"), el("i"))));
    return [el("span", { className: "block" }, name), ...gates.flatMap((g) => [g.frame, g.out]), host.shares[b]];
  });
  return [...head.map((h) => el("span", { className: "h" }, h)), ...rows];
}
const along = (v, px) => `calc(9px + (100% - 18px) * ${(v + 1) / 2} - ${px}px)`; // the thumb is 18 px wide
function slider(name, was, b, k) {
  const input = el("input", { type: "range", min: -1, max: 1, step: 0.01, "aria-label": T("gateName", { name, was: was.toFixed(2) }) });
  input.oninput = () => change({ gates: gatesNow().map((pair, i) => pair.map((v, j) => (i === b && j === k ? Number(input.value) : v))) });
  const fill = el("b"), out = el("output");
  const frame = el("span", { className: "gate" }, fill, el("u", { style: `left:${along(0, 1)}` }), el("u", { className: "was", style: `left:${along(was, 2)}` }), input);
  return { frame, input, fill, out };
}
function putGate({ input, fill, out }, v) {
  input.value = v;
  out.textContent = v.toFixed(2);
  fill.style.left = along(Math.min(0, v), 0);
  fill.style.width = `calc((100% - 18px) * ${Math.abs(v) / 2})`;
}
function putShare(node, added, t) { // both branches, for the chosen token; the bar is full at three times the stream
  const sizes = added.map((byToken) => byToken[t]), [looks, thinks] = sizes.map((v) => percent(v)), [text, bar] = node.children;
  sizes.forEach((v, k) => { bar.children[k].style.width = `${Math.min(100, 33 * v)}%`; });
  text.textContent = `${looks} + ${thinks}`;
  node.title = node.ariaLabel = T("addsName", { looks, thinks });
}

// ---- all gates together: the probability of the likeliest words against one factor

const SWEEP = { key: "", factors: range(13).map((i) => i / 8) };
onresize = () => drawSweep(); // its letters keep their size; a sweep that is under way gives up
async function drawSweep() {
  const keyNow = () => JSON.stringify([NOW.promptKey, S.broken, S.temperature, S.lang, $("sweep").clientWidth]), key = keyNow();
  if (!shown("gates") || !NOW.tokens || SWEEP.key === key) return;
  SWEEP.key = key;
  const ps = await gently(SWEEP.factors.length, keyNow, (i) => chances(runOn(NOW.visual, options(scaledGates(SWEEP.factors[i]))).logits));
  if (!ps) { SWEEP.key = ""; return; } // the prompt is another one by now
  const best = [...new Set([8, 0, 4].map((i) => biggest(ps[i])))], lines = best.map((id) => ({ name: wordOf(id), values: ps.map((p) => p[id]) }));
  $("sweep").replaceChildren(chart(SWEEP.factors, lines, [0, 1], [[0, "0"], [1, T("asTrained")], [1.5, "1.5"]], T("sweep"), 1));
}

// A line chart as wide as there is room, so that its letters keep their size: xs, lines [{name, values}], range of y, marks [[x, label]]; `now`: an upright line
function chart(xs, lines, [low, high], marks, name, now = null, room = $("sweep").clientWidth) {
  const W = Math.max(300, Math.min(620, room)), H = 190, L = 34, R = 96, B = 24, A = 8, span = xs.at(-1) - xs[0] || 1;
  const X = (x) => L + ((W - L - R) * (x - xs[0])) / span, Y = (y) => H - B - ((H - B - A) * (y - low)) / (high - low);
  const read = lines.map((l) => `${l.name}: ${[0, xs.length >> 1, xs.length - 1].map((i) => l.values[i].toFixed(2)).join(", ")}`).join("; ");
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img", "aria-label": `${name}. ${read}` });
  for (const y of [low, 0, high]) root.append(svg("line", { class: "axis", x1: L, x2: W - R, y1: Y(y), y2: Y(y) }), svg("text", { x: L - 6, y: Y(y) + 4, "text-anchor": "end" }, String(y)));
  marks.forEach(([x, label], i) => root.append(svg("text", { x: X(x), y: H - 6, "text-anchor": i === 0 ? "start" : i === marks.length - 1 ? "end" : "middle" }, label)));
  const ends = spread(lines.map((l) => Y(l.values.at(-1))));
  lines.forEach((line, i) => {
    const kind = `s${(line.colour ?? i) % 4}`, dash = i % 4 ? `${3 + 3 * (i % 4)} 3` : "none";
    root.append(svg("polyline", { class: kind, "stroke-dasharray": line.dash ?? dash, points: xs.map((x, j) => `${X(x).toFixed(1)},${Y(line.values[j]).toFixed(1)}`).join(" ") }));
    root.append(svg("text", { class: kind, x: W - R + 6, y: ends[i] + 4 }, line.name));
  });
  if (now !== null) root.append(svg("line", { class: "now", x1: X(now), x2: X(now), y1: A, y2: H - B }));
  return root;
}
function spread(ys) { // heights of labels, moved apart so that none covers another
  const order = [...ys.keys()].sort((a, b) => ys[a] - ys[b]), out = [...ys];
  order.forEach((i, k) => { if (k) out[i] = Math.max(out[i], out[order[k - 1]] + 14); });
  const over = Math.max(0, Math.max(...out) - 172);
  return out.map((y) => y - over);
}

// ---- a training run played back: only the gates are from then, all other weights are the trained ones

const gatesOfLog = (row) => trained().map((pair, b) => pair.map((v, k) => Math.sign(v) * row.gates[b][k])); // the sign of the end
const logRows = () => [{ step: model.gateLog[0].step - 1, gates: shutGates() }, ...model.gateLog]; // every gate begins at exactly 0
function signSays() { // a log holds sizes without a sign; a gate that stays away from 0 has kept its sign
  const sizes = model.gateLog.map((row) => row.gates.flat()), least = Math.min(...sizes.flat());
  const move = Math.max(...sizes.slice(1).flatMap((row, i) => row.map((v, g) => Math.abs(v - sizes[i][g]))));
  return T(least > move ? "signKept" : "signUnknown", { least: least.toFixed(2), move: move.toFixed(2) });
}

function drawPlayback() {
  const has = model.gateLog.length > 0;
  $("playback").hidden = !has;
  if (!has) return;
  const rows = logRows(), at = LOG.at ?? rows.length - 1;
  $("log-step").max = rows.length - 1;
  $("log-step").value = at;
  put("log-out", T("stepN", { n: Math.max(0, rows[at].step) }));
  theButton("play").textContent = T(LOG.timer ? "stop" : "play");
  put("sign-says", signSays());
  rebuilt($("log-chart"), [at], () => $("log-chart").replaceChildren(logChart(rows, at)));
}
function logChart(rows, at) {
  const lines = model.gates.flatMap((_, b) => KINDS.map((kind, k) => ({ name: `${b + 1} ${T(kind + "Short")}`, values: rows.map((r) => gatesOfLog(r)[b][k]), dash: k ? "5 3" : "none" })));
  const xs = rows.map((r) => r.step), last = xs.at(-1), coloured = lines.map((l, i) => ({ ...l, colour: i >> 1 }));
  return chart(xs, coloured, [-1, 1], [[xs[0], "0"], [last, T("stepN", { n: last })]], T("playback"), xs[at]);
}
function showMoment(at) {
  LOG.at = at;
  change({ gates: gatesOfLog(logRows()[at]) });
}
function playLog() {
  if (LOG.timer) return stop(LOG);
  const last = model.gateLog.length, stride = Math.ceil(last / 75);
  showMoment(LOG.at === null || LOG.at >= last ? 0 : LOG.at);
  start(LOG, 200, () => LOG.at < last && (showMoment(Math.min(last, LOG.at + stride)), true));
}
