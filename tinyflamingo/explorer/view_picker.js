// The dialog that makes a picture: chosen from TinyWorld, drawn by hand, or read from a file.
"use strict";
const PICKER = { n: -1, tab: "make", strokes: [], colour: "red", size: 14 };
const BOARD = 256;

function openPicker(n) {
  Object.assign(PICKER, { n, tab: "make" });
  drawPicker();
  $("picker").showModal();
}
const usePicture = (name) => { $("picker").close(); putPicture(PICKER.n, name); };

function drawPicker() {
  const tabs = el("fieldset", { className: "choice", id: "picker-tab" }), body = el("div");
  $("picker").replaceChildren(el("h2", { id: "h-picker" }, T("pickerTitle", { n: PICKER.n < 0 ? S.pictures.length + 1 : PICKER.n + 1 })), line(tabs), body);
  const show = (tab) => {
    PICKER.tab = tab;
    choice(tabs, T("pickerFrom"), [["make", T("tabMake")], ["draw", T("tabDraw")], ["file", T("tabFile")]], tab, show);
    body.replaceChildren({ make: makeTab, draw: drawTab, file: fileTab }[tab](), line(button("cancel", () => $("picker").close())));
  };
  show(PICKER.tab);
}

// ---- from TinyWorld

const LISTS = { // what a field offers, by the key of its label without the 2 of the second thing
  fColour: () => Object.keys(World.COLOURS), fShape: () => [...World.NAMED, ...(PICKER.kind === "single" ? World.UNNAMED : [])], fSize: () => Object.keys(World.SIZES).reverse(),
  fPlace: () => ["middle", ...Object.keys(World.POSITIONS).filter((p) => p !== "middle")], fRelation: () => Object.keys(World.RELATIONS), fNumber: () => World.NUMBERS.slice(2, 6),
  fAction: () => World.ACTIONS.map((a) => (a === "turns" ? "turns-blue" : a)), fDigit: () => World.NUMBERS, fPlus: () => ["plus"],
};
const FORMS = { // kind: the fields whose values, joined, name the picture
  single: "fColour fShape fSize fPlace", pair: "fColour fShape fRelation fColour2 fShape2", count: "fNumber fColour fShape",
  clip: "fColour fShape fAction", digit: "fColour fDigit", sum: "fColour fDigit fPlus fDigit2",
};
function makeTab() {
  const kind = el("select", {}, ...Object.keys(FORMS).map((k) => el("option", { value: k }, T("kind_" + k)))), fields = el("div", { className: "fields" }), preview = el("div");
  let selects = [];
  const name = () => selects.map((s) => s.value).join("_");
  const look = () => preview.replaceChildren(paint(World.frames(name()), 128, { "aria-label": pictureName(name()) }));
  const build = () => {
    PICKER.kind = kind.value;
    const keys = FORMS[kind.value].split(" ");
    selects = keys.map((key) => el("select", { onchange: look }, ...LISTS[key.replace("2", "")]().map((o) => el("option", { value: o }, pictureName(o)))));
    fields.replaceChildren(...keys.map((key, i) => el("label", { hidden: key === "fPlus" }, T(key), selects[i])));
    if (kind.value === "pair") [selects[3].value, selects[4].value] = ["blue", "star"];
    look();
  };
  kind.onchange = build;
  build();
  return el("div", { className: "picker" }, el("div", { className: "fields" }, el("label", {}, T("fKind"), kind), fields), el("div", {}, preview, el("p"), button("usePicture", () => usePicture(name()), { className: "main" })));
}

// ---- drawn by hand: a stroke that ends where it began is filled, for the model knows filled shapes only

function drawTab() {
  const board = el("canvas", { width: BOARD, height: BOARD, className: "board", role: "img", "aria-label": T("boardName") }), preview = el("div");
  const fill = el("input", { type: "checkbox", checked: true });
  const renew = () => {
    paintStrokes(board.getContext("2d"));
    preview.replaceChildren(paint([fitted(board, BOARD, BOARD)], 128, { "aria-label": T("asModelSees") }));
  };
  wireBoard(board, () => fill.checked, renew);
  const colours = el("fieldset", { className: "choice swatches", id: "picker-colour" });
  const pickColour = (c) => { PICKER.colour = c; choice(colours, T("fColour"), Object.keys(World.COLOURS).map((k) => [k, pictureName(k)]), c, pickColour); tint(colours); };
  pickColour(PICKER.colour);
  renew();
  return el("div", { className: "picker" }, el("div", {}, say("drawSay"), board, colours, el("label", {}, fill, " " + T("fillStrokes")),
    line(button("undo", () => { PICKER.strokes.pop(); renew(); }), button("clear", () => { PICKER.strokes = []; renew(); }))),
  el("div", {}, preview, say("asModelSees"), button("usePicture", () => usePicture(World.own(fitted(board, BOARD, BOARD))), { className: "main" })));
}
function tint(colours) {
  for (const span of colours.querySelectorAll(".pick span")) {
    const rgb = World.COLOURS[span.previousSibling.value];
    if (!span.querySelector("i")) span.prepend(el("i", { style: `background:rgb(${rgb})`, "aria-hidden": "true" }));
    span.classList.add("swatch");
  }
}
function wireBoard(board, fills, renew) {
  let stroke = null;
  const at = (e) => { const box = board.getBoundingClientRect(); return [((e.clientX - box.left) * BOARD) / box.width, ((e.clientY - box.top) * BOARD) / box.height]; };
  board.onpointerdown = (e) => { board.setPointerCapture(e.pointerId); stroke = { points: [at(e)], colour: PICKER.colour, filled: false }; PICKER.strokes.push(stroke); renew(); };
  board.onpointermove = (e) => { if (!stroke) return; stroke.points.push(at(e)); renew(); };
  board.onpointerup = board.onpointercancel = () => { if (stroke) stroke.filled = fills() && isClosed(stroke.points); stroke = null; renew(); };
}
function isClosed(points) { // it ends near its beginning, measured by its own size
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]), size = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
  const [a, b] = [points[0], points[points.length - 1]];
  return size > 20 && Math.hypot(a[0] - b[0], a[1] - b[1]) < 0.3 * size;
}
function paintStrokes(c) {
  c.fillStyle = "#ffffff";
  c.fillRect(0, 0, BOARD, BOARD);
  for (const { points, colour, filled } of PICKER.strokes) {
    c.strokeStyle = c.fillStyle = `rgb(${World.COLOURS[colour]})`;
    Object.assign(c, { lineWidth: filled ? 4 : 22, lineCap: "round", lineJoin: "round" });
    c.beginPath();
    points.forEach(([x, y]) => c.lineTo(x, y));
    if (points.length === 1) c.lineTo(points[0][0] + 0.1, points[0][1]);
    if (filled) { c.closePath(); c.fill(); }
    c.stroke();
  }
}

// ---- from a file

function fileTab() {
  const input = el("input", { type: "file", accept: "image/*", "aria-label": T("tabFile") });
  input.onchange = () => { if (input.files[0]) { $("picker").close(); takeFile(input.files[0], PICKER.n); } };
  return el("div", {}, say("fileSay"), input, el("p"));
}
