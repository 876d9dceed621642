// The guided path: ten steps for a lesson of 45 minutes. Each asks first, and shows after an answer was chosen.
"use strict";
const [CHAPTER, , SHOTS] = EXAMPLES.map(([, prompt, pictures]) => ({ prompt, pictures }));
const CIRCLE = { prompt: "<image>Output:", pictures: ["red_circle"] };
const CLEAN = { gates: null, broken: "", mode: "look", token: null, at: 0, head: -1, temperature: 1, choose: "likeliest" };
const STEPS = [ // minutes, number of the right answer, what is shown with the question, and with the reveal
  { minutes: 3, right: 1, ask: { ...CIRCLE, show: "next" }, tell: { show: "mask,next", token: 1 } },
  { minutes: 4, right: 1, ask: { ...CHAPTER, show: "input" }, tell: { show: "mask" } },
  { minutes: 4, right: 1, ask: { ...CHAPTER, show: "mask", mode: "step", step: 5, token: 5 }, tell: { step: 6, token: 6 } },
  { minutes: 3, right: 0, ask: { ...CHAPTER, show: "mask", mode: "step", step: 10, token: 10 }, tell: { step: 11, token: 11 } },
  { minutes: 5, right: 1, ask: { ...CHAPTER, show: "input" }, tell: { show: "mask" } },
  { minutes: 7, right: 1, ask: { ...CHAPTER, show: "mask", mode: "quiz" }, tell: { mode: "look", token: 3 } },
  { minutes: 5, right: 1, ask: { ...SHOTS, show: "input,mask" }, tell: { show: "mask,next" } },
  { minutes: 5, right: 1, ask: { ...CHAPTER, show: "mask", token: 2 }, tell: { show: "mask,next", token: 2, broken: "uniform" } },
  { minutes: 4, right: 1, ask: { ...CIRCLE, show: "next,gates" }, tell: { gates: "shut" } },
  { minutes: 5, right: 1, ask: { ...CIRCLE, show: "gates" }, tell: { show: "next,gates" } },
];

const PATH = { chosen: null };
const leavePath = () => change({ lesson: 0, show: "", revealed: false });
Object.assign(DO, {
  lesson: () => (S.lesson ? leavePath() : goToStep(1)), pathBack: () => goToStep(S.lesson - 1), pathNext: () => goToStep(S.lesson + 1), pathLeave: leavePath,
});
function goToStep(n) {
  PATH.chosen = null;
  change({ ...CLEAN, ...STEPS[n - 1].ask, lesson: n, revealed: false });
  $("view-lesson").scrollIntoView({ block: "start" });
}

function reveal(i) {
  const { tell } = STEPS[S.lesson - 1];
  PATH.chosen = i;
  change({ ...tell, ...(tell.gates ? { gates: shutGates() } : {}), revealed: true });
}

function drawPath() {
  $("view-lesson").hidden = !S.lesson;
  if (!S.lesson) return;
  const n = S.lesson, step = STEPS[n - 1], last = n === STEPS.length;
  put("h-lesson", T("lessonStep", { n, of: STEPS.length, minutes: step.minutes }));
  disable("pathBack", n === 1);
  disable("pathNext", last);
  theButton("pathNext").className = S.revealed && !last ? "main" : "";
  put("path-question", T(`path${n}q`));
  $("path-reveal").hidden = !S.revealed;
  const verdict = PATH.chosen === null ? "" : T(PATH.chosen === step.right ? "pathRight" : "pathWrong");
  put("path-reveal", S.revealed ? joined(verdict, T(`path${n}r`)) : "");
  rebuilt($("path-answers"), [n, S.revealed], () => $("path-answers").replaceChildren(...T(`path${n}a`).split(" | ").map((text, i) => {
    const right = S.revealed && i === step.right;
    return plainButton({ disabled: S.revealed && !right, className: right ? "main" : "", "data-key": "answer" + i, onclick: () => reveal(i) }, text);
  })));
}
