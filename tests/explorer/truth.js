// What flamingo.js makes of the prompts, strings and pictures that Python wrote: in Node, and in a page of the browser.
// node truth.js LIBRARIES FLAMINGO PACKED REQUEST: writes REQUEST.answer. Arrays travel as base64.
"use strict";
const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
function base64(array) {
  const all = new Uint8Array(array.buffer, array.byteOffset, array.byteLength), parts = [];
  for (let i = 0; i < all.length; i += 8192) parts.push(String.fromCharCode(...all.subarray(i, i + 8192)));
  return btoa(parts.join(""));
}

function truth(Flamingo, Libraries, packed, request) {
  const model = Flamingo.load(packed);
  const items = (prompt) => prompt.items.map((item) =>
    item === null ? Flamingo.EOC : typeof item === "string" ? item : { frames: item.map(bytes) });

  function answer(prompt) { // everything about one prompt; options: gates, or a broken mask
    const list = items(prompt), { tokens, phi, media } = Flamingo.interleave(list, model), traces = media.map(() => ({}));
    const visual = media.map(({ frames }, m) => Flamingo.resample(model, frames, traces[m])), { options } = prompt;
    const { all, logits, attention, added } = Flamingo.run(model, tokens, visual, { ...options, all: true });
    const said = Flamingo.complete(model, list, { ...options, maxTokens: prompt.maxTokens, visual });
    return {
      tokens, phi, text: said.text, logits: base64(all), last: base64(logits), attention: attention.map(base64),
      resampler: traces.map((t) => t.attention.map(base64)), features: traces.map((t) => t.features.map(base64)),
      time: traces.map((t) => t.time.map(base64)), added: added.map((kinds) => kinds.map(base64)),
    };
  }

  function moved(prompt) { // gates that move one after the other: as the page remembers, and as a model computes afresh
    const list = items(prompt), visual = Flamingo.interleave(list, model).media.map(({ frames }) => Flamingo.resample(model, frames));
    const outcome = (m, gates) => { // the same latents, or the page would remember nothing
      const { result, text } = Flamingo.complete(m, list, { gates, visual });
      return [text, base64(result.logits), ...result.attention.map(base64), JSON.stringify(result.added)];
    };
    return prompt.moves.map((gates) => [outcome(model, gates), outcome(Flamingo.load(packed), gates), gates]);
  }

  return {
    prompts: request.prompts.map(answer),
    moved: request.moved.map(moved),
    ids: request.strings.map((string) => Libraries.encode(model.tokenizer, string)),
    texts: request.ids.map((ids) => Libraries.decode(model.tokenizer, ids)),
    pictures: request.pictures.map(({ rgba, width, height, side }) => base64(Flamingo.fit(bytes(rgba), width, height, side))),
  };
}

if (typeof module !== "undefined") {
  const fs = require("fs"), [libraries, flamingo, packed, request] = process.argv.slice(2), read = (file) => fs.readFileSync(file, "utf8");
  const scripts = new Function(`${read(libraries)}\n${read(flamingo)}\nreturn [Flamingo, Libraries];`)();
  fs.writeFileSync(`${request}.answer`, JSON.stringify(truth(...scripts, JSON.parse(read(packed)), JSON.parse(read(request)))));
}
