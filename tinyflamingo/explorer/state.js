// The state of the page at its beginning. NOW is what the engine makes of S (see app.js).
"use strict";
const START = {
  lang: (navigator.language || "").startsWith("zh") ? "zh" : "en", size: 1, show: "",
  prompt: EXAMPLES[0][1], pictures: EXAMPLES[0][2],
  gates: null, block: 3, head: -1, token: null, mode: "look", step: 0, broken: "",
  picture: 0, layer: 0, rhead: -1, latent: 0, channel: 0,
  temperature: 1, choose: "likeliest", seed: 1, at: 0, lesson: 0, revealed: false,
};
const S = { ...START };
const NOW = {}; // tokens, pieces, phi, chunk, visual, result, said, blind: what the engine made of S
