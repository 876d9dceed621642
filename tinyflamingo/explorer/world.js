// The pictures of TinyWorld, drawn in the page: outlines as in data/tinyworld/shapes.py and glyphs.py.
// A picture is named by words: "red_circle_small_top-left", "red_circle_above_blue_star", "red_three",
// "red_three_plus_four", "three_red_circle", "red_star_turns-blue" (a clip of 8 frames), or "rgb:" and the bytes of its frames in base64.
"use strict";
const World = (() => {
  const SIDE = 32, SIZE = SIDE * SIDE * 3, FRAMES = 8, MOST = 32; // bytes of a frame; frames of a clip; most frames of the reader's own
  const COLOURS = {
    red: [222, 30, 38], orange: [255, 132, 0], yellow: [252, 226, 30], green: [36, 160, 60],
    cyan: [50, 210, 230], blue: [35, 80, 235], purple: [140, 45, 185], pink: [255, 135, 200],
  };
  const SIZES = { small: [4.5, 9], medium: [7, 7.5], large: [10, 5] }; // radius; pixels from the middle to a side
  const POSITIONS = {
    "top-left": [-1, -1], top: [0, -1], "top-right": [1, -1], left: [-1, 0], middle: [0, 0], right: [1, 0],
    "bottom-left": [-1, 1], bottom: [0, 1], "bottom-right": [1, 1],
  };
  const RELATIONS = { "left-of": [-1, 0], "right-of": [1, 0], above: [0, -1], below: [0, 1] };
  const MOVES = { "moves-left": [-1, 0], "moves-right": [1, 0], "moves-up": [0, -1], "moves-down": [0, 1] };
  const ACTIONS = [...Object.keys(MOVES), "grows", "shrinks", "vanishes", "turns"];
  const NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

  // ---- outlines: distance to the edge in radii, negative inside; y points down

  const disc = (x, y, cx, cy, r) => Math.hypot(x - cx, y - cy) - r;
  function bar(x, y, w, h) {
    const dx = Math.abs(x) - w, dy = Math.abs(y) - h;
    return Math.hypot(Math.max(dx, 0), Math.max(dy, 0)) + Math.min(Math.max(dx, dy), 0);
  }
  function toLine(x, y, [ax, ay], [bx, by]) {
    const ex = bx - ax, ey = by - ay;
    const along = Math.min(Math.max(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0), 1);
    return Math.hypot(x - ax - ex * along, y - ay - ey * along);
  }
  const polygon = (corners) => (x, y) => { // inside if a ray to the right crosses an odd number of edges
    let nearest = Infinity, inside = false;
    corners.forEach((a, i) => {
      const b = corners[(i + 1) % corners.length];
      nearest = Math.min(nearest, toLine(x, y, a, b));
      if (a[1] > y !== b[1] > y && x < ((b[0] - a[0]) * (y - a[1])) / (b[1] - a[1]) + a[0]) inside = !inside;
    });
    return inside ? -nearest : nearest;
  };
  const pen = (corners) => (x, y) => Math.min(...corners.slice(1).map((b, i) => toLine(x, y, corners[i], b))) - 0.2;
  const pairs = (text) => text.trim().split(/ +/).map((p) => p.split(",").map(Number));
  const star = Array.from({ length: 10 }, (_, i) => {
    const r = i % 2 ? 0.56 : 1.33, angle = (Math.PI * i) / 5;
    return [r * Math.sin(angle), -r * Math.cos(angle)];
  });
  const heart = polygon(pairs("0,-.4 .92,.08 0,1.15 -.92,.08")), drop = polygon(pairs("0,-1.33 .68,.05 -.68,.05"));
  function gear(x, y) {
    let d = disc(x, y, 0, 0, 0.9);
    for (const turn of [0, Math.PI / 3, (2 * Math.PI) / 3]) {
      const c = Math.cos(turn), s = Math.sin(turn);
      d = Math.min(d, bar(c * x + s * y, c * y - s * x, 0.25, 1.2));
    }
    return Math.max(d, -disc(x, y, 0, 0, 0.42));
  }
  const SHAPES = {
    circle: (x, y) => disc(x, y, 0, 0, 0.95),
    square: (x, y) => bar(x, y, 0.84, 0.84),
    triangle: polygon(pairs("0,-1.25 1.12,.72 -1.12,.72")),
    star: polygon(star),
    heart: (x, y) => Math.min(disc(Math.abs(x), y, 0.48, -0.3, 0.58), heart(x, y)),
    cross: (x, y) => Math.min(bar(x, y, 1.12, 0.36), bar(x, y, 0.36, 1.12)),
    ring: (x, y) => Math.abs(disc(x, y, 0, 0, 0.82)) - 0.27,
    moon: (x, y) => Math.max(disc(x, y, 0.17, 0, 1.2), -disc(x, y, 0.75, 0, 0.9)),
    diamond: polygon(pairs("0,-1.32 .76,0 0,1.32 -.76,0")),
    arrow: polygon(pairs("-1.25,-.3 .05,-.3 .05,-1.05 1.3,0 .05,1.05 .05,.3 -1.25,.3")),
    house: polygon(pairs("0,-1.2 1.25,-.1 .85,-.1 .85,1 .25,1 .25,.3 -.25,.3 -.25,1 -.85,1 -.85,-.1 -1.25,-.1")),
    bolt: polygon(pairs(".75,-1.1 -.35,-1.1 -.95,.25 -.15,.25 -.6,1.2 .95,-.25 .2,-.25")),
    hourglass: polygon(pairs("-.95,-.95 .95,-.95 .15,0 .95,.95 -.95,.95 -.15,0")),
    drop: (x, y) => Math.min(disc(x, y, 0, 0.42, 0.77), drop(x, y)),
    tee: polygon(pairs("-1,-.9 1,-.9 1,-.25 .33,-.25 .33,1.1 -.33,1.1 -.33,-.25 -1,-.25")),
    gear,
  };
  const NAMED = Object.keys(SHAPES).slice(0, 12), UNNAMED = Object.keys(SHAPES).slice(12);
  const STROKES = [
    "0,-1.1 .5,-.75 .62,0 .5,.75 0,1.1 -.5,.75 -.62,0 -.5,-.75 0,-1.1", "-.35,-.65 .1,-1.1 .1,1.1",
    "-.6,-.6 -.4,-1 .1,-1.1 .55,-.8 .5,-.3 -.6,1.05 .68,1.05",
    "-.55,-.9 0,-1.1 .5,-.75 .4,-.25 -.1,-.05 .5,.2 .55,.75 .05,1.1 -.6,.9", ".35,1.1 .35,-1.1 -.7,.4 .75,.4",
    ".6,-1.05 -.5,-1.05 -.55,-.15 .1,-.25 .58,.15 .52,.75 .05,1.1 -.6,.9",
    ".45,-1.05 -.2,-.7 -.6,.1 -.5,.8 0,1.1 .5,.8 .5,.25 0,0 -.5,.3", "-.65,-1.05 .65,-1.05 -.15,1.1",
    "0,-.05 -.48,-.4 -.4,-.9 0,-1.1 .4,-.9 .48,-.4 0,-.05 -.58,.4 -.48,.9 0,1.1 .48,.9 .58,.4 0,-.05",
    ".5,-.35 0,-.02 -.5,-.35 -.48,-.85 0,-1.1 .48,-.85 .5,-.35 .4,.5 0,1.1",
  ];
  const outline = (name) => SHAPES[name] || pen(pairs(STROKES[NUMBERS.indexOf(name)]));

  // ---- drawing: a pale slope of grey, and things {shape, colour, x, y, radius} on it

  function draw(things) { // -> 32 x 32 x 3 bytes
    const out = new Uint8Array(SIZE);
    for (let y = 0, o = 0; y < SIDE; y++) for (let x = 0; x < SIDE; x++, o += 3) {
      const grey = 248 - (30 * (x + y)) / 62;
      let rgb = [grey, grey, grey + 2];
      for (const t of things) {
        const d = outline(t.shape)((x + 0.5 - t.x) / t.radius, (y + 0.5 - t.y) / t.radius);
        const cover = Math.min(Math.max(0.5 - t.radius * d, 0), 1), colour = COLOURS[t.colour];
        rgb = rgb.map((v, i) => v + cover * (colour[i] - v));
      }
      out.set(rgb.map((v) => Math.round(Math.min(v, 255))), o);
    }
    return out;
  }
  function single(colour, shape, size = "large", position = "middle") {
    const digit = NUMBERS.includes(shape), [radius, spread] = SIZES[digit ? "medium" : size], [column, row] = POSITIONS[position];
    return { colour, shape, x: 16 + spread * column, y: 16 + spread * row, radius: digit ? 8.5 : radius };
  }
  function pair([c1, s1, relation, c2, s2]) { // the larger thing, and where it is from the smaller one
    const [column, row] = RELATIONS[relation];
    return [[c1, s1, 1, 7.2], [c2, s2, -1, 4.3]].map(([colour, shape, sign, radius]) =>
      ({ colour, shape, x: 16 + sign * 8 * column, y: 16 + sign * 8 * row, radius }));
  }
  const sum = ([colour, first, , second]) => [[first, 8.5], [second, 23.5]].map(([shape, x]) => ({ colour, shape, x, y: 16, radius: 7.2 }));
  const PLACES = [[7, 7], [25, 24], [25, 7], [7, 25], [16, 16]];
  const count = ([number, colour, shape]) => PLACES.slice(0, NUMBERS.indexOf(number)).map(([x, y]) => ({ colour, shape, x, y, radius: 4.2 }));

  function moment([colour, shape, action], t) { // the things in frame t of a clip
    const [verb, more] = action.split("-"), progress = t / (FRAMES - 1), thing = { colour, shape, x: 16, y: 16, radius: 6 };
    if (MOVES[action]) {
      const way = (2 * progress - 1) * 9, [column, row] = MOVES[action];
      return [{ ...thing, x: 16 + column * way, y: 16 + row * way }];
    }
    if (verb === "grows" || verb === "shrinks") return [{ ...thing, radius: 3.5 + 6.5 * (verb === "grows" ? progress : 1 - progress) }];
    if (t < 4) return [thing];
    return verb === "vanishes" ? [] : [{ ...thing, colour: more }];
  }

  const isClip = (words) => /^(moves|grows|shrinks|vanishes|turns)/.test(words[2]);
  function things(words) {
    if (words[2] === "plus") return sum(words);
    if (RELATIONS[words[2]]) return pair(words);
    return NUMBERS.includes(words[0]) ? count(words) : [single(...words)];
  }
  const any = (names) => `(${(names.join ? names : Object.keys(names)).join("|")})`;
  const T = `${any(COLOURS)}_${any(SHAPES)}`, DIGIT = any(NUMBERS);
  const NAME = new RegExp(`^(${T}(_${any(SIZES)}(_${any(POSITIONS)})?)?|${T}_${any(RELATIONS)}_${T}|${any(COLOURS)}_${DIGIT}(_plus_${DIGIT})?|` +
    `${any(NUMBERS.slice(1, 6))}_${T}|${T}_(${any(ACTIONS.slice(0, -1))}|turns-${any(COLOURS)}))$`);

  const kept = new Map();
  function frames(name) { // a name -> list of frames; an unknown name throws
    if (!kept.has(name)) kept.set(name, make(name));
    return kept.get(name);
  }
  function make(name) {
    if (name.startsWith("rgb:")) {
      const bytes = Uint8Array.from(atob(name.slice(4).replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0)), n = bytes.length / SIZE;
      if (!(n >= 1 && n <= MOST && n % 1 === 0)) throw new Error(name);
      return Array.from({ length: n }, (_, f) => bytes.slice(f * SIZE, (f + 1) * SIZE));
    }
    if (!NAME.test(name)) throw new Error(name);
    const words = name.split("_");
    return isClip(words) ? Array.from({ length: FRAMES }, (_, t) => draw(moment(words, t))) : [draw(things(words))];
  }
  const knows = (name) => { try { return frames(name).length > 0; } catch { return false; } };
  const own = (frames) => "rgb:" + frames.map((bytes) => btoa(String.fromCharCode(...bytes))).join("").replace(/\+/g, "-").replace(/\//g, "_");

  return { COLOURS, SIZES, POSITIONS, RELATIONS, ACTIONS, NUMBERS, NAMED, UNNAMED, MOST, frames, knows, own };
})();
