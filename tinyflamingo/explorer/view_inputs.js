// The prompt: as one line with <image> tags, and as a strip of pictures with the text after each.
"use strict";

function wireInputs() {
  $("prompt").oninput = (e) => change({ prompt: e.target.value.replace(/\n/g, " "), token: null, at: 0 });
  $("examples").onchange = (e) => { const [, prompt, pictures] = EXAMPLES[e.target.value] || []; if (prompt) setPrompt(prompt, pictures, { mode: S.mode === "step" ? "look" : S.mode }); };
  typed($("text-0"), 0);
  $("world").ontoggle = drawWorld;
  document.onpaste = (e) => takeFiles(e.clipboardData.files, S.pictures.length - 1);
  document.ondragover = (e) => e.preventDefault();
  document.ondrop = (e) => {
    const card = e.target.closest?.(".card[data-n]"), { files } = e.dataTransfer;
    card?.classList.remove("over");
    if (files.length) e.preventDefault(); // text may be dropped into a field
    takeFiles(files, card ? Number(card.dataset.n) : S.pictures.length - 1);
  };
}

// ---- the parts of the prompt: the text before all pictures, and for each picture the text after it

const parts = () => S.prompt.split("<image>");
function setParts(texts, pictures = S.pictures) {
  change({ prompt: texts.join("<image>"), pictures, token: null, at: 0 });
}
function movePicture(n, by) { // with its text
  const [first, ...texts] = parts(), pictures = [...S.pictures];
  for (const list of [texts, pictures]) list.splice(n + by, 0, list.splice(n, 1)[0]);
  setParts([first, ...texts], pictures);
}
function removePicture(n) {
  const [first, ...texts] = parts();
  setParts([first, ...texts.filter((_, i) => i !== n)], S.pictures.filter((_, i) => i !== n));
}
function putPicture(n, name) { // n = -1 or one too many: a new one at the end
  const exists = n >= 0 && n < S.pictures.length;
  if (exists) return change({ pictures: S.pictures.map((old, i) => (i === n ? name : old)), at: 0 });
  setParts([...parts(), "Output:"], [...S.pictures, name]);
}

function drawInputs() {
  if (!shown("input")) return;
  const box = $("prompt"), at = EXAMPLES.findIndex(([, prompt, pictures]) => prompt === S.prompt && String(pictures) === String(S.pictures));
  if (box.value !== S.prompt) box.value = S.prompt;
  rebuilt($("examples"), [], () => $("examples").replaceChildren(option(-1, T("exOwn")), ...EXAMPLES.map(([key], i) => option(i, T(key)))));
  $("examples").value = at;
  put("prompt-say", (inChinese() ? T("glossIs") + glossOf(S.prompt) + " " : "") + T("promptSay", { n: NOW.tokens ? NOW.tokens.length : "…", max: model.config.language.context }));
  rebuilt($("strip"), [S.pictures, parts().length], () => $("strip").replaceChildren(...S.pictures.map(card)));
  parts().forEach((text, i) => { const input = $(`text-${i}`); if (input && input !== document.activeElement) input.value = text; });
  drawWorld();
}

function card(name, n) {
  const label = pictureN(n), last = S.pictures.length - 1;
  const face = plainButton({ className: "face", "data-key": "face" + n, "aria-label": `${label}, ${pictureName(name)}: ${T("changePicture")}`, title: T("changePicture"), onclick: () => openPicker(n) }, paint(World.frames(name), 76, { "aria-hidden": "true" }));
  const tool = (key, text, action, disabled) => plainButton({ disabled, "data-key": key + n, "aria-label": `${label}: ${T(key)}`, title: T(key), onclick: action }, text);
  const node = el("li", { className: `card f${colourOf(n + 1)}`, "data-n": n },
    el("div", { className: "top" }, face, el("div", { className: "name" }, el("b", {}, label), pictureName(name))),
    textOf(n + 1, T("textAfter", { n: n + 1 })),
    el("div", { className: "row" }, tool("moveLeft", "←", () => movePicture(n, -1), n === 0), tool("moveRight", "→", () => movePicture(n, 1), n === last),
      tool("changePicture", T("changeShort"), () => openPicker(n), false), tool("removePicture", "✕", () => removePicture(n), false)));
  node.ondragenter = () => node.classList.add("over");
  node.ondragleave = (e) => { if (!node.contains(e.relatedTarget)) node.classList.remove("over"); };
  return node;
}
function textOf(i, name) {
  return typed(el("input", { type: "text", lang: "en", id: `text-${i}`, value: parts()[i], "aria-label": name, placeholder: name, spellcheck: false, "data-key": "text" + i }), i);
}
function typed(input, i) { // what is typed becomes text i of the prompt
  input.oninput = () => change({ prompt: parts().map((text, j) => (j === i ? input.value.replaceAll("<image>", "") : text)).join("<image>"), token: null, at: 0 });
  return input;
}
DO.addPicture = () => openPicker(-1);
DO.addShot = () => { // one more example in front of the last picture: a random thing with its caption
  const pick = (list) => list[Math.floor(Math.random() * list.length)], shape = pick(World.NAMED), colour = pick(Object.keys(World.COLOURS));
  const texts = parts(), last = Math.max(1, texts.length - 1), text = `Output: ${/^[aeiou]/.test(colour) ? "an" : "a"} ${colour} ${shape}.`;
  texts.splice(last, 0, text);
  setParts(texts, [...S.pictures.slice(0, last - 1), `${colour}_${shape}`, ...S.pictures.slice(last - 1)]);
};

// ---- files: fitted as `complete` fits them

const PLAIN = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
async function takeFiles(files, n) { // one picture or animation; or several pictures, in the order of their names: the frames of a clip
  const frames = [], named = [...files].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  for (const file of named) {
    try {
      frames.push(...(await framesIn(file)));
    } catch (why) {
      return trouble(T("cannot", { why: T(why === "tooLarge" ? why : "notAPicture", { name: file.name }) }));
    }
  }
  if (frames.length > World.MOST) return trouble(T("cannot", { why: T("tooManyFrames", { max: World.MOST }) }));
  if (frames.length) putPicture(n, World.own(frames));
  if (!window.ImageDecoder && named.some((file) => file.type === "image/gif")) requestAnimationFrame(() => trouble(T("firstFrame"))); // after the refresh
}
async function framesIn(file) {
  const face = new Image();
  await new Promise((onload, onerror) => Object.assign(face, { onload, onerror, src: URL.createObjectURL(file) }));
  if (face.width * face.height > 2.5e7) throw "tooLarge"; // as `complete`; a browser needs minutes for more
  return framesOfAnimation(file).catch(async () => [fitted(await createImageBitmap(file, PLAIN))]); // a still
}
async function framesOfAnimation(file) { // one frame a second, as `complete` takes them; a still is an error
  const decoder = new ImageDecoder({ ...PLAIN, data: await file.arrayBuffer(), type: file.type });
  await decoder.tracks.ready;
  await decoder.completed;
  const { frameCount } = decoder.tracks.selectedTrack, frames = [];
  if (frameCount === 1) throw file;
  for (let i = 0, time = 0; i < frameCount && frames.length <= World.MOST; i++) {
    const { image } = await decoder.decode({ frameIndex: i });
    while (frames.length <= Math.min(time + 0.001, World.MOST)) frames.push(fitted(image, image.displayWidth, image.displayHeight));
    time += image.duration / 1e6; // microseconds
    image.close();
  }
  return frames;
}
function fitted(source, width = source.width, height = source.height) {
  const canvas = el("canvas", { width, height }), c = canvas.getContext("2d", { willReadFrequently: true });
  c.drawImage(source, 0, 0);
  return Flamingo.fit(c.getImageData(0, 0, width, height).data, width, height);
}

// ---- what the model knows

function drawWorld() {
  if (!$("world").open) return;
  $("foreign").hidden = model.info.world === "tinyworld";
  rebuilt($("kinds"), [], () => $("kinds").replaceChildren(...[...World.NAMED, ...World.UNNAMED].map((shape, i) =>
    el("li", {}, paint(World.frames(`${Object.keys(World.COLOURS)[i % 8]}_${shape}`), 40, { "aria-hidden": "true" }), pictureName(shape)))));
}
