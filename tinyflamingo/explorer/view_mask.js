// View 1: who may look at what. Columns are tokens, rows are the latents of every picture; a cell is open or shut.
"use strict";
const latents = () => model.config.resampler.latents;

function rowOf(weights, T, t, H, head) { // (H, T, S) -> (S,): row t of one head, or of the mean of all (-1)
  const S = weights.length / (H * T), heads = head < 0 ? range(H) : [head];
  return range(S).map((s) => sum(heads.map((h) => weights[(h * T + t) * S + s])) / heads.length);
}
const weightsOf = (t) => rowOf(NOW.result.attention[S.block], NOW.tokens.length, t, model.config.xattn.heads, S.head); // (M R,)
const sees = (t, m) => NOW.result.seen.rows[t * NOW.M + m] === 1;
const seesNone = (t) => !NOW.result.seen.rows.subarray(t * NOW.M, (t + 1) * NOW.M).some(Boolean);
const isOpen = (t, m) => sees(t, m) || (S.broken === "uniform" && seesNone(t));
const phiUsed = (t) => Math.max(0, NOW.phi[t] + (BREAKS[S.broken].offByOne || 0)); // what the (perhaps broken) mask counts

function wireMask() {
  const grid = $("mask");
  grid.onclick = (e) => {
    const token = e.target.closest(".tok"), cell = e.target.closest(".quiz");
    if (token) change({ token: Number(token.dataset.at) });
    if (cell) clickQuiz(cell);
  };
  grid.onpointerover = ({ target: c }) => { if (c.r >= 0) c.title = percent(weightsOf(c.t)[c.m * latents() + c.r], 1); }; // not for all: slow
  grid.onkeydown = (e) => {
    const token = e.target.closest(".tok"), cell = e.target.closest(".quiz");
    if (cell) return moveInQuiz(e, cell);
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -1e6, End: 1e6 }[e.key];
    if (!token || !step) return;
    e.preventDefault();
    const last = S.mode === "step" ? S.step : NOW.tokens.length - 1, t = Math.max(0, Math.min(last, Number(token.dataset.at) + step));
    change({ token: t });
    grid.querySelector(`.tok[data-at="${t}"]`).focus();
  };
  $("as-table").ontoggle = drawTable;
}

function drawMask() {
  if (!shown("mask")) return;
  const R = latents();
  choice("mode", "mode", [["look", T("modeLook")], ["step", T("modeStep")], ["quiz", T("modeQuiz")]], S.mode, enterMode);
  choice("block", "block", counted(model.gates.length));
  choice("head", "head", heads(model.config.xattn.heads));
  choice("broken", "breakIt", Object.keys(BREAKS).map((b) => [b, T("break_" + (b || "no"))]));
  put("broken-say", T("breakSay_" + (S.broken || "no")));
  drawPanel();
  rebuilt($("mask"), [NOW.promptKey, S.mode === "quiz"], () => buildGrid(R));
  shadeGrid(R);
  put("chosen", S.mode === "quiz" ? "" : sentence(chosenToken()));
  rebuilt($("compared"), [NOW.promptKey, S.gates, S.temperature], () => $("compared").replaceChildren());
  drawTable();
  showColumn(chosenToken());
}
function showColumn(t) { // on a narrow screen the chosen token comes to the middle
  const box = $("mask-scroll"), key = t + NOW.promptKey;
  if (box.at !== key) box.scrollLeft = $("mask").toks[t].offsetLeft - box.clientWidth / 2;
  box.at = key;
}

// ---- the grid: built when the prompt changes, shaded at every change

function buildGrid(R) {
  const { pieces, M } = NOW, grid = $("mask"), parts = [];
  grid.style.gridTemplateColumns = `max-content max-content repeat(${pieces.length}, minmax(1.7rem, 1fr))`;
  const quiz = S.mode === "quiz"; // a quiz shows neither chunks nor phi: they are what it asks for
  for (const [from, to, n] of quiz ? [] : chunks()) {
    const words = to - from > 2 ? T("chunkN", { n }) : String(n);
    parts.push(el("div", { className: `chunk f${colourOf(NOW.phi[to - 1])}`, "data-from": from, title: T("chunkN", { n }), style: `grid-row:1;grid-column:${from + 3}/${to + 3}` }, words));
  }
  pieces.forEach((piece, t) => {
    const name = [display(piece), meaning(display(piece)), quiz ? "" : `φ ${NOW.phi[t]}`].filter(Boolean).join(", ");
    parts.push(plainButton({ className: "tok", "data-at": t, "data-key": "tok" + t, "aria-label": name, title: name, style: `grid-row:2;grid-column:${t + 3}` }, piece.replace(/▁/g, "␣")));
    parts.push(el("div", { className: "phi", "aria-hidden": "true", style: `grid-row:3;grid-column:${t + 3}` }));
  });
  parts.push(el("div", { className: "lab corner", style: "grid-row:3;grid-column:1;line-height:1.5" }, "φ (phi)"));
  for (let m = 0; m < M; m++) parts.push(...rowsOf(m, R));
  grid.replaceChildren(...parts);
  grid.cells = [...grid.querySelectorAll(".cell")];
  grid.toks = [...grid.querySelectorAll(".tok")];
  grid.phis = [...grid.querySelectorAll(".phi")];
}
function chunks() { // [first token, one after the last, number]
  const out = [];
  NOW.chunk.forEach((n, t) => (out.length >= n ? (out[n - 1][1] = t + 1) : out.push([t, t + 1, n])));
  return out;
}
function rowsOf(m, R) { // one picture's face, its latents' names, its cells
  const first = 4 + m * R, face = paint(framesOf(m), 48, { "aria-label": pictureName(S.pictures[m]) });
  const parts = [el("div", { className: `thumb corner f${colourOf(m + 1)}`, style: `grid-row:${first}/span ${R};grid-column:1` }, face, pictureN(m))];
  for (let r = 0; r < R; r++) {
    parts.push(el("div", { className: "lab", style: `grid-row:${first + r};grid-column:2` }, latentN(r)));
    if (S.mode !== "quiz") NOW.tokens.forEach((_, t) => parts.push(cell(t, m, r, first + r)));
  }
  if (S.mode === "quiz") NOW.tokens.forEach((_, t) => parts.push(quizCell(t, m, first, R)));
  return parts;
}
function cell(t, m, r, row) {
  const node = el("div", { "aria-hidden": "true", style: `grid-row:${row};grid-column:${t + 3}` });
  return Object.assign(node, { className: "cell", t, m, r });
}

function shadeGrid(R) {
  const grid = $("mask"), here = chosenToken(), stepping = S.mode === "step", weights = NOW.tokens.map((_, t) => weightsOf(t));
  const hides = (t) => stepping && t > S.step, secret = S.mode === "quiz" && QUIZ.verdict !== "";
  grid.toks.forEach((tok, t) => {
    const phi = secret ? "?" : phiUsed(t), colour = secret ? 0 : colourOf(phi);
    tok.className = `tok f${colour}${t === here && S.mode !== "quiz" ? " here" : ""}${hides(t) ? " later" : ""}`;
    tok.tabIndex = t === here ? 0 : -1;
    tok.ariaPressed = t === here;
    grid.phis[t].textContent = phi;
    grid.phis[t].className = `phi f${colour}${hides(t) ? " later" : ""}`;
  });
  for (const band of grid.querySelectorAll(".chunk")) band.classList.toggle("later", hides(Number(band.dataset.from)));
  for (const node of grid.cells) {
    const { t, m, r } = node, open = isOpen(t, m), w = weights[t][m * R + r];
    const name = `cell f${colourOf(m + 1)} ${hides(t) ? "later" : open ? "open" : "no"}${t === here ? " here" : ""}`, depth = Math.round(9 + 91 * Math.min(1, 1.5 * w));
    if (node.className !== name) node.className = name;
    if (node.depth !== depth) node.style.setProperty("--w", `${(node.depth = depth)}%`);
  }
  for (const node of grid.querySelectorAll(".quiz")) shadeQuiz(node);
}

// ---- words about one token

function sentence(t) {
  const word = wordAt(t), phi = phiUsed(t), { M } = NOW;
  if (!M) return T("heardNoPictures", { word });
  const all = weightsOf(t), top = range(all.length).filter((s) => all[s] > 0).sort((a, b) => all[b] - all[a]).slice(0, 3);
  const most = listed(top.map((s) => `${S.broken === "every" || S.broken === "uniform" ? pictureN(Math.floor(s / latents())) + " " : ""}${latentN(s % latents())} (${percent(all[s])})`));
  if (S.broken === "every") return T("heardEvery", { word, M, most });
  if (seesNone(t)) return T(S.broken === "uniform" ? "heardUniform" : S.broken === "late" && NOW.phi[t] ? "heardLateNone" : "heardNone", { word, phi: NOW.phi[t] });
  const others = phi > 1 && T("heardOthers", { others: listed(range(phi - 1).map(pictureN)) });
  return joined(T(S.broken === "late" ? "heardLate" : "heard", { word, phi, R: latents(), most, was: NOW.phi[t] }), others);
}

function drawTable() { // the same as a table, for a screen reader or for copying
  if (!$("as-table").open) return;
  rebuilt($("table"), [NOW.promptKey, S.gates, S.broken, S.block, S.head, S.mode === "quiz"], () => {
    const R = latents(), head = [T("colToken"), "#", T("colChunk"), "φ", T("colSees"), ...range(R).map((r) => latentN(r))];
    const caption = T("tableSay", { block: S.block + 1, head: headName(S.head) });
    $("table").replaceChildren(table(caption, head, S.mode === "quiz" ? [] : NOW.tokens.map((_, t) => tableRow(t, R))));
  });
}
function tableRow(t, R) {
  const open = range(NOW.M).filter((m) => isOpen(t, m)), w = weightsOf(t), m = open[0];
  const seen = open.length ? listed(open.map(pictureN)) : T("nothing");
  const cells = range(R).map((r) => (open.length === 1 ? percent(w[m * R + r], 1) : open.length ? "…" : 0));
  return [wordAt(t), t + 1, NOW.chunk[t], phiUsed(t), seen, ...cells];
}
