// View 4: where a word looks. Word to latents to cells of its picture; what was weighed beside what is needed, on one scale.
"use strict";
const COVER = {}; // key: of what; before: the next token's probability; after: the same with each cell covered
const lookKey = (m) => JSON.stringify([NOW.promptKey, S.gates, S.broken, m]);

function drawLook() {
  if (!shown("look")) return;
  const t = chosenToken(), m = phiUsed(t) - 1, host = $("look");
  put("look-title", T("look", { word: wordAt(t) }));
  put("look-says", m < 0 ? T("lookNone") : "");
  disable("lookCover", m < 0);
  if (m < 0) return host.replaceChildren();
  const { trace } = resample(S.pictures[m]), frames = framesOf(m), R = latents();
  const w = weightsOf(t).slice(m * R, (m + 1) * R), maps = range(R).map((r) => allFrames(trace, takenBy(trace, r)));
  const weighed = shares(maps[0].map((_, c) => sum(w.map((v, r) => v * maps[r][c]))));
  const map = (values, side, numbers) => heat(frames[frames.length >> 1], values, trace.grid, side, { numbers });
  const top = biggest(NOW.result.logits), word = wordOf(top);
  const known = COVER.key === lookKey(m) && COVER.after, covered = known && shares(known.map((p) => Math.max(0, logOdds(COVER.before) - logOdds(p))));
  const right = known ? map(covered, 184, true) : paint(frames.slice(0, 1), 184, { "aria-label": pictureName(S.pictures[m]) });
  const figure = (node, key, values) => el("figure", {}, node, el("figcaption", {}, T(key, values)));
  host.replaceChildren(el("div", { className: "maps" },
    figure(map(weighed, 184, true), "lookWeighed"),
    figure(right, "lookCovered", { word }),
    figure(el("div", { className: "small-maps" }, ...maps.map((cells, r) => el("div", {}, map(shares(cells), 60), `${r + 1}: ${percent(w[r])}`))), "lookSmall")));
  if (known) $("look-says").textContent = difference(weighed, covered, trace.grid[1], word);
  disable("lookCover", Boolean(known));
  DO.lookCover = () => coverCells(m, top);
}
const shares = (values) => { const all = sum(values); return values.map((v) => (all > 0 ? v / all : 0)); };

// What latent r weighs: (F S + R,), the cells of all frames, then the latents; by default in the last layer, the mean of heads
function takenBy({ attention }, r, layer = attention.length - 1, head = -1) {
  return rowOf(attention[layer], latents(), r, model.config.resampler.heads, head);
}
const allFrames = ({ S: cells, F }, weights) => range(cells).map((c) => sum(range(F).map((f) => weights[f * cells + c])));

const TINTS = ["29,95,168", "184,20,79"]; // below 0, above 0
// A frame in grey, each cell tinted: the deepest colour is at `deep`, one scale for all maps; a number beside each colour
function heat(frame, values, [rows, columns], side, { numbers = false, deep = 0.39, text = (v) => percent(v) } = {}) {
  const big = 2 * side, canvas = el("canvas", { width: big, height: big, role: "img" }), c = canvas.getContext("2d");
  canvas.style.width = canvas.style.height = `${side}px`;
  canvas.ariaLabel = Array.from(values, (v, i) => `${placeNames(i, columns)}: ${text(v)}`).join("; ");
  c.imageSmoothingEnabled = false;
  c.filter = "grayscale(.6)";
  c.drawImage(paint([frame], 32), 0, 0, big, big);
  c.filter = "none";
  const w = big / columns, h = big / rows;
  values.forEach((v, i) => {
    const [row, column] = placeOf(i, columns), x = column * w, y = row * h;
    c.fillStyle = tint(v, deep);
    c.fillRect(x, y, w, h);
    if (numbers) label(c, text(v).split("\u00a0")[0], x + w / 2, y + h / 2, big / 14);
  });
  return canvas;
}
const placeOf = (i, columns) => [Math.floor(i / columns), i % columns], placeNames = (...cell) => placeOf(...cell).map((n) => n + 1);
const tint = (v, deep) => `rgba(${TINTS[+(v > 0)]},${Math.min(0.85, (0.85 * Math.abs(v)) / deep)})`;
function label(c, text, x, y, size) {
  Object.assign(c, { font: `bold ${size}px sans-serif`, textAlign: "center", textBaseline: "middle", lineWidth: size / 4, strokeStyle: "#fff", fillStyle: "#000" });
  c.strokeText(text, x, y);
  c.fillText(text, x, y);
}
function difference(weighed, covered, columns, word) {
  if (!covered.some((v) => v > 0)) return T("lookUseless", { word });
  const worst = biggest(covered), [a, b] = placeNames(biggest(weighed), columns), [c, d] = placeNames(worst, columns);
  return T("lookDiffer", { a, b, c, d, word, from: percent(COVER.before, 1), to: percent(COVER.after[worst], 1), same: percent(sum(weighed.map((v, i) => Math.min(v, covered[i])))) });
}

// ---- covering: each cell in turn takes the colour of the picture's edge, in all frames

function edgeColour(rgb) { // the median of the outermost pixels, channel by channel
  const edge = range(1024).filter((i) => i < 32 || i >= 992 || i % 32 === 0 || i % 32 === 31);
  return [0, 1, 2].map((k) => edge.map((i) => rgb[3 * i + k]).sort((a, b) => a - b)[edge.length >> 1]);
}
function covering(rgb, cell, [rows, columns]) {
  const out = rgb.slice(), colour = edgeColour(rgb), h = 32 / rows, w = 32 / columns, [row, column] = placeOf(cell, columns), top = row * h, left = column * w;
  for (let y = top; y < top + h; y++) for (let x = left; x < left + w; x++) out.set(colour, 3 * (y * 32 + x));
  return out;
}
const logOdds = (p) => Math.log(p / Math.max(1 - p, 1e-12)); // a probability of 1 stays finite
async function coverCells(m, top) {
  const key = lookKey(m), { trace } = resample(S.pictures[m]), frames = framesOf(m), how = options();
  const likely = ({ logits }) => Flamingo.probabilities(logits)[top], before = likely(NOW.result);
  const after = await gently(trace.S, () => lookKey(m), (cell) => {
    const covered = Flamingo.resample(model, frames.map((rgb) => covering(rgb, cell, trace.grid)));
    return likely(runOn(NOW.visual.map((own, n) => (n === m ? covered : own)), how));
  });
  if (!after) return; // the reader went on
  Object.assign(COVER, { key, before, after });
  drawLook();
}
