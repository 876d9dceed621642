// The page's state, what is computed from it, and the address that carries it. Views draw from S and NOW only.
"use strict";
const BREAKS = { "": {}, every: { everyPicture: true }, uniform: { uniformEmptyRows: true }, late: { offByOne: -1 } };

let model;
const trained = () => model.gates.map((pair) => pair.map(Math.tanh)); // gates are tanh(alpha) everywhere on the page
const gatesNow = () => S.gates || trained();
const alphas = (gates) => gates.map((pair) => pair.map(Math.atanh));
const shutGates = () => model.gates.map(() => [0, 0]);
const options = (gates = gatesNow()) => ({ gates: alphas(gates), ...BREAKS[S.broken] });
const runOn = (visual, how, tokens = NOW.tokens) => Flamingo.run(model, tokens, visual, how);
const chances = (logits) => Flamingo.probabilities(logits, S.temperature);
const wordAt = (t) => display(NOW.pieces[t]), wordOf = (id) => display(Flamingo.piece(model, id));
const display = (piece) => piece.replace(/▁/g, "") || "▁";
const chosenToken = () => (S.token === null ? NOW.tokens.length - 1 : Math.min(S.token, NOW.tokens.length - 1));
const colourOf = (n) => (n > 0 ? ((n - 1) % 5) + 1 : 0); // class f0 ... f5
const framesOf = (m) => World.frames(S.pictures[m]);
const tagsIn = (prompt) => prompt.split("<image>").length - 1;

// ---- what is computed

function promptItems() {
  const parts = S.prompt.split("<image>"), items = parts[0].trim() ? [parts[0]] : [];
  parts.slice(1).forEach((text, i) => {
    items.push({ frames: framesOf(i) });
    if (text.trim()) items.push(text);
  });
  return items;
}

const resampled = new Map(); // a picture's name -> its latents, kept, and what the resampler looked at
function resample(name) {
  if (!resampled.has(name)) {
    const trace = {};
    resampled.set(name, { latents: Flamingo.resample(model, World.frames(name), trace), trace });
  }
  return resampled.get(name);
}

const MOST = 30000; // of the mask; a browser needs seconds to draw more
const sameAs = (name, ...parts) => { const key = JSON.stringify(parts), same = NOW[name] === key; NOW[name] = key; return same; };
function compute() {
  if (sameAs("resultKey", S.prompt, S.pictures, S.gates, S.broken)) return;
  NOW.saidKey = "";
  if (!sameAs("promptKey", S.prompt, S.pictures)) readPrompt();
  NOW.result = runOn(NOW.visual, options());
}
function readPrompt() {
  NOW.tokens = null; // if what follows throws, the next change reads the prompt again
  const { tokens, pieces, phi } = Flamingo.interleave(promptItems(), model), cells = tokens.length * S.pictures.length * latents();
  if (cells > MOST) throw new Error(T("tooManyCells", { cells, max: MOST }));
  const visual = S.pictures.map((name) => resample(name).latents);
  let ends = 0;
  const chunk = pieces.map((piece) => (piece === "<EOC>" ? ++ends : ends + 1)); // <EOC> belongs to the chunk it closes
  Object.assign(NOW, { tokens, pieces, phi: Array.from(phi), chunk, visual, M: visual.length, blind: {} });
}

function lottery(seed) { // the same numbers for the same seed: a link shows what its sender saw
  let a = (69621 * seed + 12345) % 2147483647;
  return () => (a = (a * 16807) % 2147483647) / 2147483647;
}
function writeAnswer() {
  const lot = S.choose === "lot";
  if (sameAs("saidKey", S.choose, lot && [S.temperature, S.seed])) return;
  NOW.said = Flamingo.complete(model, promptItems(), {
    ...options(), visual: NOW.visual, maxTokens: 16,
    temperature: lot ? S.temperature : 0, random: lottery(S.seed),
  });
}

// ---- what is drawn, in the order in which the reader needs it

const SECTIONS = ["input", "mask", "next", "gates", "look", "inside"];
const shown = (view) => !S.show || S.show.split(",").includes(view);
const lock = (inert) => SECTIONS.slice(1).forEach((view) => Object.assign($(`view-${view}`), { inert })); // views of no prompt
let later = 0;

const changed = new Set(); // fields of S since the last refresh
function refresh() {
  const began = performance.now(), gatesOnly = changed.size > 0 && [...changed].every((field) => field === "gates");
  changed.clear();
  drawFrame();
  try {
    compute();
    writeAnswer();
    S.at = Math.min(S.at, NOW.said.logits.length - 1); // an address, or a shorter answer, may leave it behind the end
    S.step = Math.min(S.step, NOW.tokens.length - 1);
    trouble("");
    lock(false);
  } catch (error) {
    NOW.resultKey = NOW.promptKey = "";
    lock(true);
    document.documentElement.dataset.ready = "trouble";
    drawInputs(); // to be mended by the reader
    return trouble(T("cannot", { why: /context/.test(error.message) ? T("tooLong", { max: model.config.language.context }) : error.message }));
  }
  drawInputs();
  if (!gatesOnly) drawMask(); // while a gate moves, all else comes first
  drawNext();
  drawGates();
  drawPath();
  writeHash();
  NOW.ms = Math.round(performance.now() - began);
  drawFoot();
  clearTimeout(later);
  later = setTimeout(() => {
    if (gatesOnly) drawMask();
    later = setTimeout(() => { drawSweep(); drawLook(); drawInside(); document.documentElement.dataset.ready = NOW.promptKey; }, 150);
  }, 0);
}

let due = 0;
function change(patch) { // the only way in which a view changes the state
  Object.assign(S, patch);
  Object.keys(patch).forEach((field) => changed.add(field));
  if (patch.prompt !== undefined || patch.pictures) fitPictures();
  cancelAnimationFrame(due);
  due = requestAnimationFrame(refresh);
}
function setPrompt(prompt, pictures, more = {}) {
  change({ prompt, pictures: [...pictures], token: null, at: 0, step: 0, ...more });
}
const SPARE = ["red_circle", "blue_star", "green_house", "purple_moon"];
function fitPictures() { // as many pictures as there are tags
  S.pictures = range(tagsIn(S.prompt)).map((n) => S.pictures[n] ?? SPARE[n % SPARE.length]);
}

function trouble(text) {
  $("trouble").hidden = !text;
  put("trouble", text);
}

function drawFrame() {
  const root = document.documentElement;
  root.lang = inChinese() ? "zh-CN" : "en";
  root.style.setProperty("--size", S.size);
  document.title = `tinyflamingo · ${T("title")}`;
  if (root.words !== S.lang) for (const node of document.querySelectorAll("[data-t], [data-do]")) node.textContent = T(node.dataset.t || node.dataset.do);
  root.words = S.lang;
  for (const view of SECTIONS) $(`view-${view}`).hidden = !shown(view);
  choice("lang", "language", [["en", "English"], ["zh", "中文"]]);
  choice("size", "letters", [[1, "A"], [1.25, "A+"], [1.5, "A++"]]);
  theButton("lesson").ariaExpanded = S.lesson > 0;
}
function drawFoot() {
  const { name, bytes } = model.info;
  put("foot", T("foot", { ms: NOW.ms, name, mb: (bytes / 1e6).toFixed(1), sha: model.sha256.slice(0, 12) }));
}

// ---- the address

const whole = (t, last) => Math.min(last, Math.max(0, Math.trunc(t) || 0));
const place = (last) => [(v) => v + 1, (t) => whole(t - 1, last())]; // counted from 1 in the address
const oneOf = (...names) => [String, (t) => (names.includes(t) ? t : names[0])];
const headOf = (part) => [(v) => v + 1, (t) => whole(t, model.config[part].heads) - 1];
const anywhere = place(() => 1e4);
const HASH = { // name in the address: [name in S, to text, from text]
  lang: ["lang", ...oneOf("en", "zh")],
  p: ["prompt", String, (t) => t.replace(/\s/g, " ")],
  i: ["pictures", (v) => v.join(","), (t) => (t ? t.split(",") : [])],
  g: ["gates", (v) => v.flat().map((x) => +x.toFixed(3)).join(","), gatesFrom],
  b: ["block", ...place(() => model.gates.length - 1)],
  h: ["head", ...headOf("xattn")],
  t: ["token", ...anywhere], m: ["mode", ...oneOf("look", "step", "quiz")], s: ["step", ...anywhere],
  x: ["broken", ...oneOf("", ...Object.keys(BREAKS))],
  T: ["temperature", String, (t) => Math.min(3, Math.max(0.2, Number(t) || 1))],
  c: ["choose", ...oneOf("likeliest", "lot")],
  seed: ["seed", String, (t) => whole(t, 1e6) || 1], at: ["at", ...anywhere],
  lesson: ["lesson", String, (t) => whole(t, STEPS.length)],
  n: ["picture", ...anywhere], l: ["layer", ...place(() => model.config.resampler.layers - 1)], k: ["rhead", ...headOf("resampler")],
  r: ["latent", ...place(() => latents() - 1)], f: ["channel", String, (t) => whole(t, model.config.language.width)],
  size: ["size", String, (t) => ([1.25, 1.5].includes(Number(t)) ? Number(t) : 1)],
  show: ["show", String, (t) => SECTIONS.filter((v) => t.split(",").includes(v)).join(",")],
};
function gatesFrom(text) {
  const all = text.split(",").map((t) => (t ? Number(t) : NaN));
  if (all.length !== 2 * model.gates.length || !all.every((v) => Math.abs(v) <= 1)) return null;
  return model.gates.map((_, i) => [all[2 * i], all[2 * i + 1]]);
}
function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  Object.assign(S, START, { lang: S.lang });
  const lesson = HASH.lesson[2](given.get("lesson"));
  if (lesson) Object.assign(S, STEPS[lesson - 1].ask); // what else the address says comes on top
  for (const [name, [field, , parse]] of Object.entries(HASH)) if (given.has(name)) S[field] = parse(given.get(name));
  if (given.has("p") && !given.has("i")) S.pictures = [];
  S.revealed = false;
  fitPictures();
  const unknown = S.pictures.filter((name) => !World.knows(name));
  S.pictures = S.pictures.map((name) => (unknown.includes(name) ? SPARE[0] : name));
  refresh();
  if (unknown.length) trouble(T("unknownPicture", { names: listed(unknown.map((name) => name.slice(0, 40))) }));
}
function writeHash() {
  const out = new URLSearchParams();
  for (const [name, [field, write]] of Object.entries(HASH)) {
    if (S[field] === null || (JSON.stringify(S[field]) === JSON.stringify(START[field]) && name !== "lang")) continue;
    out.set(name, write(S[field]));
  }
  if (S.prompt !== START.prompt && !S.pictures.length) out.set("i", "");
  history.replaceState(null, "", "#" + out);
}

DO.skip = (e) => { e.preventDefault(); $("main").focus(); }; // the part behind # is the state, no place on the page
DO.copyLink = async ({ target }) => {
  const done = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
  target.textContent = T(done ? "copied" : "copyByHand");
  setTimeout(() => { target.textContent = T("copyLink"); }, 2500);
};

function begin() {
  model = Flamingo.load(TINYFLAMINGO);
  Object.assign(START, { block: model.gates.length - 1, layer: model.config.resampler.layers - 1 });
  for (const wire of [wireInputs, wireMask, wireGates, wirePicker]) wire();
  window.onhashchange = readHash;
  readHash();
}

begin();
