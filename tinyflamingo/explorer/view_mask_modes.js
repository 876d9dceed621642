// View 1, three ways to use it: step by step through the prompt, a quiz on the mask, and what each breakage does.
"use strict";
const QUIZ = { answers: new Set(), of: "", verdict: null }; // opened cells "t,m", of which prompt, the first mistake or ""

function enterMode(mode) {
  QUIZ.of = "";
  change(mode === "step" ? { mode, step: 0, token: 0, broken: "" } : { mode, token: null, broken: mode === "quiz" ? "" : S.broken });
}
function drawPanel() {
  $("view-mask").dataset.mode = S.mode; // shows what belongs to it
  if (S.mode === "step") drawStep();
  if (S.mode === "quiz") drawQuiz();
}

// ---- step by step

const goTo = (step) => change({ step, token: step });
Object.assign(DO, {
  back: () => goTo(S.step - 1), nextToken: () => goTo(S.step + 1), toEnd: () => goTo(NOW.tokens.length - 1), startOver: () => goTo(0),
  chapterExample: () => setPrompt(START.prompt, START.pictures, { mode: "step", token: 0 }),
});
function drawStep() {
  const last = NOW.tokens.length - 1, t = S.step;
  put("step-of", T("stepOf", { n: t + 1, of: last + 1 }));
  put("step-token", wordAt(t));
  put("step-gloss", meaning(wordAt(t)));
  put("step-says", stepSays(t));
  for (const key of ["back", "startOver"]) disable(key, t === 0);
  for (const key of ["nextToken", "toEnd"]) disable(key, t === last);
}
function stepSays(t) { // what this token is, what it does to phi, and which cells that opens
  const piece = NOW.pieces[t], phi = NOW.phi[t], values = { phi, was: phi - 1, n: NOW.chunk[t], R: latents() };
  const kind = { "<BOS>": "stepBos", "<image>": "stepImage", "<EOC>": "stepEoc" }[piece] || "stepWord";
  return joined(T(kind, values), T(phi ? "stepOpens" : "stepOpensNone", values));
}

// ---- the quiz

function drawQuiz() {
  if (QUIZ.of !== NOW.promptKey) Object.assign(QUIZ, { of: NOW.promptKey, answers: new Set(), verdict: null });
  put("verdict", QUIZ.verdict === null ? "" : QUIZ.verdict || T("quizRight"));
  $("verdict").className = QUIZ.verdict ? "wrong-text" : "right";
}
Object.assign(DO, { quizCheck: checkQuiz, quizShow: () => change({ mode: "look" }), quizClear: () => { QUIZ.of = ""; change({}); } });
DO.quizOther = () => {
  const at = QUIZZES.findIndex(([prompt]) => prompt === S.prompt);
  setPrompt(...QUIZZES[(at + 1) % QUIZZES.length], { mode: "quiz" });
};
function quizCell(t, m, row, R) { // the latents of a picture open together, so one cell stands for all of them
  const name = T("quizCell", { word: wordAt(t), n: m + 1 });
  return Object.assign(plainButton({ className: "quiz", title: name, "aria-label": name, "aria-pressed": "false", "data-key": `q${t}-${m}`, tabIndex: t || m ? -1 : 0, style: `grid-row:${row}/span ${R};grid-column:${t + 3}` }), { t, m });
}
function shadeQuiz(node) {
  const on = QUIZ.answers.has(`${node.t},${node.m}`), bad = QUIZ.verdict && String(QUIZ.wrong) === `${node.t},${node.m}`;
  node.className = `quiz f${colourOf(node.m + 1)}${bad ? " wrong" : ""}`;
  node.ariaPressed = on;
  node.textContent = on ? "✓" : "";
}
function clickQuiz(node) {
  const key = `${node.t},${node.m}`;
  if (!QUIZ.answers.delete(key)) QUIZ.answers.add(key);
  QUIZ.verdict = null;
  change({});
}
function moveInQuiz(e, node) {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
  const next = move && $("mask").querySelector(`[data-key=q${node.t + move[0]}-${node.m + move[1]}]`);
  if (!next) return;
  e.preventDefault();
  node.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
function firstMistake() { // token by token, as the model reads: [t, m] or null
  for (let t = 0; t < NOW.tokens.length; t++) for (let m = 0; m < NOW.M; m++) {
    if (QUIZ.answers.has(`${t},${m}`) !== (NOW.phi[t] === m + 1)) return [t, m];
  }
  return null;
}
function checkQuiz() {
  QUIZ.wrong = firstMistake();
  QUIZ.verdict = QUIZ.wrong ? mistakeSays(...QUIZ.wrong) : "";
  change({}); // a right answer shows phi as well
}
function mistakeSays(t, m) {
  const piece = NOW.pieces[t], phi = NOW.phi[t], values = { word: display(piece), at: t + 1, n: m + 1, phi };
  if (phi === m + 1) return T({ "<image>": "wrongTag", "<EOC>": "wrongEoc" }[piece] || "wrongShut", values);
  if (phi === 0) return T(piece === "<BOS>" ? "wrongBos" : "wrongNone", values);
  return T(m + 1 > phi ? "wrongFuture" : "wrongPast", values);
}

// ---- break it: the answer of each mask, and who notices when the last picture is exchanged

DO.compare = () => {
  const { visual, M } = NOW, gates = alphas(gatesNow()), swapped = [...visual];
  if (M) swapped[M - 1] = resample(S.pictures[M - 1] === "pink_circle" ? "blue_star" : "pink_circle").latents;
  const right = chances(runOn(visual, { gates }).logits);
  const top = biggest(right), rows = Object.keys(BREAKS).map((name) => {
    const how = { gates, ...BREAKS[name] };
    const p = chances(runOn(visual, how).logits)[top];
    const { text } = Flamingo.complete(model, promptItems(), { ...how, visual, maxTokens: 16 });
    return [T("break_" + (name || "no")), text || "…", percent(p, 1), M ? movedBefore(swapped, how) : 0];
  });
  const head = [T("colMask"), T("colAnswer"), T("colP", { word: wordOf(top) }), T("colLeak", { of: M ? NOW.phi.indexOf(M) : 0 })];
  $("compared").replaceChildren(table(T("compareSay"), head, rows));
};
function movedBefore(swapped, how) { // the number of tokens before the last tag whose output differs
  const [a, b] = [NOW.visual, swapped].map((v) => runOn(v, { ...how, all: true }).all), V = a.length / NOW.tokens.length;
  const moved = (t) => a.subarray(t * V, (t + 1) * V).some((x, i) => Math.abs(x - b[t * V + i]) > 1e-4);
  return range(NOW.phi.indexOf(NOW.M)).filter(moved).length;
}
