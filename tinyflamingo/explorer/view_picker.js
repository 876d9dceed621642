// The dialog that makes a picture: chosen from TinyWorld, drawn by hand, or read from a file.
"use strict";
const PICKER = { n: -1, strokes: [], colour: "red" };
const BOARD = 256, TABS = ["make", "draw", "file"];

function wirePicker() {
  $("kind").onchange = drawFields;
  $("picture-file").onchange = (e) => { $("picker").close(); takeFiles(e.target.files, PICKER.n); };
  wireBoard($("board"));
}
Object.assign(DO, {
  cancel: () => $("picker").close(),
  useMade: () => usePicture(madeName()),
  useDrawn: () => usePicture(World.own([fitted($("board"))])),
  undo: () => { PICKER.strokes.pop(); drawBoard(); },
  clear: () => { PICKER.strokes = []; drawBoard(); },
});
function openPicker(n) {
  PICKER.n = n;
  put("h-picker", T("pickerTitle", { n: n < 0 ? S.pictures.length + 1 : n + 1 }));
  rebuilt($("kind"), [], () => $("kind").replaceChildren(...Object.keys(FORMS).map((k) => option(k, T("kind_" + k)))));
  $("board").ariaLabel = T("boardName");
  $("picture-file").value = "";
  showTab("make");
  $("picker").showModal();
}
function showTab(tab) {
  choice("picker-tab", "pickerFrom", TABS.map((t) => [t, T("tab_" + t)]), tab, showTab);
  for (const name of TABS) $(`tab-${name}`).hidden = name !== tab;
  if (tab === "make") drawFields();
  if (tab === "draw") pickColour(PICKER.colour);
}
function usePicture(name) {
  $("picker").close();
  putPicture(PICKER.n, name);
}

// ---- from TinyWorld

const LISTS = { // what a field offers, by the key of its label without the 2 of the second thing
  fColour: () => Object.keys(World.COLOURS), fShape: () => [...World.NAMED, ...($("kind").value === "single" ? World.UNNAMED : [])], fSize: () => Object.keys(World.SIZES).reverse(),
  fPlace: () => ["middle", ...Object.keys(World.POSITIONS).filter((p) => p !== "middle")], fRelation: () => Object.keys(World.RELATIONS), fNumber: () => World.NUMBERS.slice(2, 6),
  fAction: () => World.ACTIONS.map((a) => (a === "turns" ? "turns-blue" : a)), fDigit: () => World.NUMBERS, fPlus: () => ["plus"],
};
const FORMS = { // kind: the fields whose values, joined, name the picture
  single: "fColour fShape fSize fPlace", pair: "fColour fShape fRelation fColour2 fShape2", count: "fNumber fColour fShape",
  clip: "fColour fShape fAction", digit: "fColour fDigit", sum: "fColour fDigit fPlus fDigit2",
};
const fieldsNow = () => [...$("fields").querySelectorAll("select")];
const madeName = () => fieldsNow().map((s) => s.value).join("_");
const drawMade = () => $("made").replaceChildren(paint(World.frames(madeName()), 128, { "aria-label": pictureName(madeName()) }));
function drawFields() {
  $("fields").replaceChildren(...FORMS[$("kind").value].split(" ").map((key) =>
    el("label", { hidden: key === "fPlus" }, T(key), el("select", { onchange: drawMade }, ...LISTS[key.replace("2", "")]().map((o) => option(o, pictureName(o)))))));
  if ($("kind").value === "pair") ["blue", "star"].forEach((value, i) => { fieldsNow()[3 + i].value = value; });
  drawMade();
}

// ---- drawn by hand: a stroke that ends where it began is filled, for the model knows filled shapes only

function pickColour(colour) {
  PICKER.colour = colour;
  const swatch = (k) => el("i", { style: `background:rgb(${World.COLOURS[k]})`, "aria-hidden": "true" });
  choice("picker-colour", "fColour", Object.keys(World.COLOURS).map((k) => [k, el("b", {}, swatch(k), pictureName(k))]), colour, pickColour);
  drawBoard();
}
function drawBoard() {
  paintStrokes($("board").getContext("2d"));
  $("drawn").replaceChildren(paint([fitted($("board"))], 128, { "aria-label": T("asModelSees") }));
}
function wireBoard(board) {
  let stroke = null;
  const at = (e) => [e.offsetX, e.offsetY].map((v) => (v * BOARD) / board.clientWidth);
  const end = () => { if (stroke) stroke.filled = $("fill").checked && isClosed(stroke.points); stroke = null; drawBoard(); };
  board.onpointerdown = (e) => { board.setPointerCapture(e.pointerId); stroke = { points: [at(e)], colour: PICKER.colour }; PICKER.strokes.push(stroke); drawBoard(); };
  board.onpointermove = (e) => { if (stroke) { stroke.points.push(at(e)); drawBoard(); } };
  board.onpointerup = board.onpointercancel = end;
}
function isClosed(points) { // it ends near its beginning, measured by its own size
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]), size = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
  const [a, b] = [points[0], points.at(-1)];
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
