// The state of the page at its beginning, and the examples. NOW is what the engine makes of S (see app.js).
"use strict";
const START = {
  lang: (navigator.language || "").startsWith("zh") ? "zh" : "en", size: 1, show: "",
  prompt: "what is it?<image>a red house.<image>a", pictures: ["red_house", "blue_star"],
  gates: null, block: 3, head: -1, token: null, mode: "look", step: 0, broken: "",
  temperature: 1, choose: "likeliest", seed: 1, at: 0, lesson: 0, revealed: false,
};
const S = { ...START };
const NOW = {}; // tokens, pieces, phi, chunk, visual, result, said, blind: what the engine made of S
const EXAMPLES = [
  ["exChapter", START.prompt, START.pictures],
  ["exQuestions", "<image>Question: what shape is it? Answer: circle.<image>Question: what color is it? Answer:", ["red_circle", "blue_star"]],
  ["exShots", "<image>lofa.<image>dimu.<image>", ["red_hourglass", "blue_drop", "green_hourglass"]],
  ["exCaption", "<image>Output:", ["purple_moon"]],
  ["exPair", "<image>Output:", ["red_circle_above_blue_star"]],
  ["exClip", "<image>Question: what happens? Answer:", ["green_heart_moves-left"]],
  ["exTurns", "<image>Output:", ["red_star_turns-blue"]],
  ["exKnows", "<image>Question: where is it found? Answer:", ["red_circle"]],
  ["exDigit", "<image>Question: what digit is it? Answer:", ["blue_three"]],
  ["exSum", "<image>Output:", ["red_three_plus_four"]],
  ["exWords", "a red circle is found", []],
];
