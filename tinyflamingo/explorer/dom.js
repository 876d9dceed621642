// Small tools that all views use: elements, words in the chosen language, groups of choices, pictures on a canvas.
"use strict";
const $ = (id) => document.getElementById(id);

function el(tag, props = {}, ...kids) { // names with a dash and `role` become attributes, all others properties
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...kids);
  return node;
}

// The text of an entry of WORDS in the language of the page, {n} replaced by values.n
function T(key, values = {}) {
  const text = WORDS[key][inChinese() ? 1 : 0];
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
const sum = (list) => list.reduce((a, v) => a + v, 0);
const biggest = (list) => list.indexOf(Math.max(...list));
const inChinese = () => S.lang === "zh";
const pictureN = (m) => T("pictureN", { n: m + 1 }), latentN = (r) => T("latentN", { n: r + 1 });
const option = (value, text) => el("option", { value }, text);
const line = (...kids) => el("div", { className: "line" }, ...kids);
const percent = (p, digits = 0) => (100 * p).toFixed(digits) + "\u00a0%";
const joined = (...sentences) => sentences.filter(Boolean).join(inChinese() ? "" : " ");
const listed = (all) => all.join(inChinese() ? "、" : ", ");

// Runs `build` if what it depends on has changed since the last time; the focus stays where it was.
function rebuilt(node, signature, build) {
  const key = JSON.stringify([S.lang, signature]);
  if (node.built === key) return;
  const focus = node.contains(document.activeElement) && document.activeElement.dataset.key;
  node.built = key;
  build();
  if (focus) node.querySelector(`[data-key="${focus}"]`)?.focus({ preventScroll: true });
}

const put = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; }; // a screen reader reads what changed

// One of several, as native radio buttons: arrow keys and names come with them. options: [[value, label], ...]. What is
// picked becomes the field of S with the name of the node, if nothing else is said.
function choice(id, legend, options, value = S[id], pick = (v) => change({ [id]: v })) {
  const node = $(id);
  rebuilt(node, [legend, options], () => {
    node.replaceChildren(el("legend", {}, T(legend)), ...options.map(([v, label]) => {
      const input = el("input", { type: "radio", name: id, value: String(v), "data-key": v, onchange: () => pick(v) });
      return el("label", { className: "pick" }, input, el("span", {}, label));
    }));
  });
  for (const input of node.querySelectorAll("input")) input.checked = input.value === String(value);
}
const counted = (n) => range(n).map((i) => [i, String(i + 1)]);
const headName = (h) => (h < 0 ? T("allHeads") : h + 1);
const heads = (n) => [[-1, headName(-1)], ...counted(n)];

const DO = {}; // what a button with this name in data-do does; its text is the entry of WORDS with the same name
const plainButton = (props, ...kids) => el("button", { type: "button", ...props }, ...kids);
const theButton = (key) => document.querySelector(`[data-do=${key}]`);
const disable = (key, off) => { theButton(key).ariaDisabled = off; }; // not `disabled`: a button that has the focus keeps it
document.onclick = (e) => DO[e.target.closest?.("[data-do]:not([aria-disabled=true])")?.dataset.do]?.(e);

function table(caption, head, rows) { // rows: lists of cells, the first of which names its row
  const cells = (row) => row.map((c) => el("td", { className: /^-?[\d.]+(\s%)?$/.test(c) ? "n" : "" }, c));
  return el("table", { className: "plain" }, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...head.map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, ...rows.map(([name, ...rest]) => el("tr", {}, el("th", { scope: "row" }, ...[name].flat()), ...cells(rest)))));
}

// ---- what takes time

// step(0), ..., step(n - 1), one at a time, so that the page stays alive -> their values; null if keyNow() changes meanwhile
async function gently(n, keyNow, step) {
  const key = keyNow(), out = [];
  while (out.length < n) {
    out.push(step(out.length));
    await new Promise((ok) => setTimeout(ok));
    if (key !== keyNow()) return null;
  }
  return out;
}
// Calls `next` again and again, until it returns false or the player is stopped; never with reduced motion.
function start(player, milliseconds, next) {
  stop(player);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) player.timer = setInterval(() => next() || stop(player), milliseconds);
}
function stop(player) {
  clearInterval(player.timer);
  player.timer = 0;
  change({});
}

// ---- pictures

function paint(frames, side, props = {}) { // a picture, or the frames of a clip four in a row -> canvas
  const across = Math.min(frames.length, 4), down = Math.ceil(frames.length / 4);
  const canvas = el("canvas", { width: 32 * across, height: 32 * down, role: "img", ...props }), c = canvas.getContext("2d");
  frames.forEach((rgb, i) => c.putImageData(imageData(rgb), 32 * (i % 4), 32 * (i >> 2)));
  canvas.style.width = `${side}px`;
  canvas.style.height = `${(side * down) / across}px`;
  return canvas;
}
function imageData(rgb) {
  const data = new ImageData(32, 32);
  for (let i = 0; i < 1024; i++) data.data.set([rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2], 255], 4 * i);
  return data;
}

// ---- words of the model in the reader's language

const gloss = (text) => GLOSS[text.trim().toLowerCase()] || "";
const meaning = (word) => (inChinese() ? gloss(word) : "");
const PHRASES = Object.keys(GLOSS).sort((a, b) => b.length - a.length).map((phrase) => phrase.replace(/[.?]/g, "\\$&")).join("|");
const KNOWN = new RegExp(`\\b(${PHRASES}|an?|the)(?!\\w)`, "gi"), MARKS = { ".": "。", "?": "？", ":": "：" };
function glossOf(prompt) { // the longest known phrases first; an unknown word stays as it is
  const chinese = (text) => text.replace(KNOWN, (phrase) => gloss(phrase)).replace(/[.?:]/g, (mark) => MARKS[mark]).replace(/\s/g, "");
  return prompt.split("<image>").map(chinese).join(T("glossPicture"));
}
function pictureName(name) { // "red_circle" -> "red circle", or in Chinese
  if (name.startsWith("rgb:")) return T("ownPicture");
  const words = name.split("_").map((word) => word.replace("-", " "));
  return words.map((word) => meaning(word) || word).join(" ");
}

const SVG = el("div", { innerHTML: "<svg></svg>" }).firstChild.namespaceURI; // from the parser: no address in the source
function svg(tag, attributes, ...kids) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...kids);
  return node;
}
