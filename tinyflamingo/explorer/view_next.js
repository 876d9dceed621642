// View 2: what comes next. The answer token by token, and the probabilities that each token was taken from.
"use strict";
const WRITING = { timer: 0 };

$("temperature").oninput = (e) => change({ temperature: Number(e.target.value) });
Object.assign(DO, {
  again: () => change({ seed: S.seed + 1, at: 0 }), previousToken: () => change({ at: S.at - 1 }), followingToken: () => change({ at: S.at + 1 }),
  write: () => (WRITING.timer ? stop(WRITING) : writeIt()),
});

function drawNext() {
  if (!shown("next")) return;
  $("temperature").value = S.temperature;
  put("temperature-out", S.temperature.toFixed(1));
  choice("choose", "choose", [["likeliest", T("likeliest")], ["lot", T("byLot")]], S.choose, (how) => change({ choose: how, at: 0 }));
  theButton("again").hidden = S.choose !== "lot";
  const steps = NOW.said.tokens.length, { at } = S;
  drawAnswer(at, steps);
  disable("shots", NOW.M < 2);
  rebuilt($("shots"), [NOW.resultKey, S.temperature], () => $("shots").replaceChildren());
  // the last id is that of <EOC>
  const taken = NOW.said.tokens[at] ?? (steps === at && at < 16 ? NOW.result.logits.length - 1 : null);
  drawBars(chances(NOW.said.logits[at]), at, taken);
}

function blind(at) { // the probabilities at the same place with every gate shut; kept as long as prompt and answer stay
  const answer = NOW.said.tokens.slice(0, at);
  return chances((NOW.blind[[answer, S.broken]] ??= runOn(NOW.visual, options(shutGates()), [...NOW.tokens, ...answer]).logits));
}

function drawAnswer(at, steps) {
  const { said } = NOW, words = [...said.pieces.slice(0, steps).map(display), ...(said.logits.length > steps ? ["<EOC>"] : [])];
  rebuilt($("answer"), [words, at, WRITING.timer > 0], () => {
    $("answer").ariaLabel = T("answerGroup");
    $("answer").replaceChildren(...words.map((word, i) => {
      const node = plainButton({ "data-key": "a" + i, "aria-pressed": i === at, "aria-label": T("answerToken", { n: i + 1, word }), onclick: () => { stop(WRITING); change({ at: i }); } }, word, el("small", {}, meaning(word)));
      if (word === "<EOC>") node.className = "end";
      node.hidden = WRITING.timer > 0 && i > at;
      return node;
    }));
  });
  put("answer-read", said.text);
  disable("previousToken", at === 0);
  disable("followingToken", at >= words.length - 1);
  theButton("write").textContent = T(WRITING.timer ? "stop" : "write");
}
function writeIt() { // one token after the other; the reader's own pace with reduced motion
  change({ at: 0 });
  start(WRITING, 900, () => S.at + 1 < NOW.said.logits.length && (change({ at: S.at + 1 }), true));
}

function drawBars(p, at, taken) {
  const shut = blind(at), likelier = (a, b) => p[b] - p[a], always = taken === null ? [biggest(shut)] : [biggest(shut), taken];
  const order = [...new Set([...always, ...[...p.keys()].sort(likelier)])].slice(0, 6).sort(likelier);
  const head = [T("colToken"), T("colP0"), "", T("colShut")];
  $("bars").replaceChildren(table(T("barsSay", { n: at + 1 }), head, order.map((id) => barRow(id, p[id], shut[id], id === taken))));
}
function barRow(id, p, q, taken) {
  const word = wordOf(id);
  const bar = el("div", { className: "bar", "aria-hidden": "true" }, el("i", { style: `width:${100 * p}%` }), el("u", { style: `left:calc(${100 * q}% - ${3 * q}px)` }));
  return [[word, taken ? " ←" : "", el("small", {}, " " + meaning(word))], percent(p, 1), bar, percent(q, 1)];
}

DO.shots = () => { // how likely the answer's first token is with 0, 1, ... of the examples before the last picture
  const id = biggest(NOW.result.logits), items = promptItems(), media = range(items.length).filter((i) => items[i].frames);
  const values = range(NOW.M).map((shots) => {
    const first = NOW.M - 1 - shots, { tokens } = Flamingo.interleave(items.slice(media[first]), model);
    return chances(runOn(NOW.visual.slice(first), options(), tokens).logits)[id];
  });
  $("shots").replaceChildren(chart(range(NOW.M), [{ name: wordOf(id), values }], [0, 1], range(NOW.M).map((k) => [k, String(k)]), T("shots"), null, $("shots").clientWidth));
};
