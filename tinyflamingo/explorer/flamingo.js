// Flamingo in the browser: text, pictures and videos go in, the text that follows comes out.
//
// The forward pass of one_file.py in plain JavaScript, with its sections and names, and more: caches, the numbers that
// the page draws, and switches that break the mask. libraries.js has what one_file.py imports. Classic scripts: they also
// work from file:// and in Node. T text tokens, M media, F frames, S features of a frame, R latents, D width, H heads,
// K head size, V vocabulary. A tensor is a Float32Array, row after row; a weight is {shape, data}. Sums are double precision.
"use strict";
const Flamingo = (() => {
  const { tokenizer, encode, decode, bytesOf, numbers, overWhite, reduced } = Libraries;
  const BOS = 1, IMAGE = 4; // reserved token ids; <EOC> has the id V, the first after the pieces
  const NEVER = [0, BOS, 3, IMAGE]; // an answer holds none of these, nor <PAD> and <UNK>
  const EOC = Symbol("<EOC>"); // an item of a prompt: the chunk ends here

  function transposed({ shape: [I, O], data }) { // (I, O) -> (O, I): the sums of `linear` then run along the memory
    const t = new Float32Array(I * O);
    for (let i = 0; i < I; i++) for (let o = 0; o < O; o++) t[o * I + i] = data[i * O + o];
    return t;
  }

  // (T, I), weight (I, O) -> (T, O). 2 rows x 4 columns at once; a row or column beyond the end repeats the last one.
  function linear(x, w, bias) {
    const [I, O] = w.shape, T = x.length / I, y = new Float32Array(T * O), t = (w.t ??= transposed(w));
    for (let r = 0; r < T; r += 2) for (let c = 0; c < O; c += 4) {
      const s = Math.min(r + 1, T - 1), c1 = Math.min(c + 1, O - 1), c2 = Math.min(c + 2, O - 1), c3 = Math.min(c + 3, O - 1);
      const p = r * I, q = s * I, p0 = c * I, p1 = c1 * I, p2 = c2 * I, p3 = c3 * I;
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
      for (let i = 0; i < I; i++) {
        const m = x[p + i], n = x[q + i], t0 = t[p0 + i], t1 = t[p1 + i], t2 = t[p2 + i], t3 = t[p3 + i];
        a0 += m * t0; a1 += m * t1; a2 += m * t2; a3 += m * t3;
        b0 += n * t0; b1 += n * t1; b2 += n * t2; b3 += n * t3;
      }
      y[r * O + c] = a0; y[r * O + c1] = a1; y[r * O + c2] = a2; y[r * O + c3] = a3;
      y[s * O + c] = b0; y[s * O + c1] = b1; y[s * O + c2] = b2; y[s * O + c3] = b3;
    }
    return bias ? y.map((v, i) => v + bias.data[i % O]) : y;
  }

  function norm(x, { data: gain }, bias) { // (T, D) -> (T, D): a layer norm, or without a bias the RMS norm
    const D = gain.length, y = new Float32Array(x.length);
    for (let o = 0; o < x.length; o += D) {
      let mean = 0, square = 0;
      if (bias) for (let i = 0; i < D; i++) mean += x[o + i] / D;
      for (let i = 0; i < D; i++) square += (x[o + i] - mean) ** 2;
      const scale = 1 / Math.sqrt(square / D + (bias ? 1e-5 : 1e-6));
      for (let i = 0; i < D; i++) y[o + i] = (x[o + i] - mean) * scale * gain[i] + (bias ? bias.data[i] : 0);
    }
    return y;
  }
  const layerNorm = norm, rmsNorm = (x, gain) => norm(x, gain);

  const gelu = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
  const squaredRelu = (x) => (x > 0 ? x * x : 0);
  const plus = (x, y, scale = 1) => x.map((v, i) => v + scale * y[i]);

  function feedForward(p, h, activation) { // (T, D) -> (T, D)
    const hidden = linear(norm(h, p.ffw_gain, p.ffw_bias), p.w_1, p.b_1).map(activation);
    return linear(hidden, p.w_2, p.b_2);
  }

  function joined(arrays) { // one after the other
    const out = new Float32Array(arrays.reduce((n, a) => n + a.length, 0));
    arrays.reduce((at, a) => (out.set(a, at), at + a.length), 0);
    return out;
  }

  // q (T, H K), k and v (S, H K) -> out (T, H K), weights (H, T, S). open(t, s): whether row t may see column s.
  // bias(h, t, s): is added to the product of query and key. A row without an open column is 0; if `uniform`, its
  // weights are equal instead: so does a softmax over scores that are all -1e9.
  function attend(q, k, v, H, width, { open = () => true, bias = () => 0, uniform = false } = {}) {
    const T = q.length / width, S = k.length / width, K = width / H, p = new Float64Array(S);
    const out = new Float32Array(T * width), weights = new Float32Array(H * T * S);
    for (let h = 0; h < H; h++) for (let t = 0; t < T; t++) {
      const o = t * width + h * K;
      let top = -Infinity, sum = 0;
      for (let s = 0; s < S; s++) {
        p[s] = -Infinity;
        if (!open(t, s)) continue;
        let dot = bias(h, t, s);
        for (let i = 0, c = s * width + h * K; i < K; i++) dot += q[o + i] * k[c + i];
        p[s] = dot / Math.sqrt(K);
        top = Math.max(top, p[s]);
      }
      if (top === -Infinity && !uniform) continue;
      if (top === -Infinity) p.fill(top = 0);
      for (let s = 0; s < S; s++) sum += p[s] = Math.exp(p[s] - top); // exp(-Infinity) is exactly 0
      for (let s = 0; s < S; s++) if (p[s] > 0) {
        const weight = p[s] / sum;
        weights[(h * T + t) * S + s] = weight;
        for (let i = 0, c = s * width + h * K; i < K; i++) out[o + i] += weight * v[c + i];
      }
    }
    return { out, weights };
  }

  // ---- §2 Vision encoder: a ResNet without normalisation layers (NF-ResNet). A grid is {Y, X, C, data}, C channels
  const GAIN = 1.7015043497085571; // if x has variance 1, then GAIN * gelu(x) has variance 1

  function standardised({ w, gain }, G) { // -> for each group of channels (k k inputs, outputs / G): mean 0, norm gain
    const [k, , inputs, outputs] = w.shape, I = k * k * inputs, O = outputs / G;
    return range(G).map((g) => {
      const data = new Float32Array(I * O);
      for (let o = 0, c = g * O; o < O; o++, c++) {
        let mean = 0, square = 0;
        for (let i = 0; i < I; i++) mean += w.data[i * outputs + c] / I;
        for (let i = 0; i < I; i++) square += (w.data[i * outputs + c] - mean) ** 2;
        const scale = gain.data[c] / Math.sqrt(Math.max(square, 1e-4));
        for (let i = 0; i < I; i++) data[i * O + o] = (w.data[i * outputs + c] - mean) * scale;
      }
      return { shape: [I, O], data };
    });
  }

  function patches(x, g, inputs, k, stride) { // what each output pixel sees in group g: (Y X, k k inputs), SAME padding
    const Y = Math.ceil(x.Y / stride), X = Math.ceil(x.X / stride), rows = new Float32Array(Y * X * k * k * inputs);
    const pad = (parts, length) => Math.max((parts - 1) * stride + k - length, 0) >> 1, top = pad(Y, x.Y), left = pad(X, x.X);
    for (let y = 0, o = 0; y < Y; y++) for (let c = 0; c < X; c++) {
      for (let i = 0; i < k * k; i++, o += inputs) {
        const fromY = y * stride + Math.floor(i / k) - top, fromX = c * stride + (i % k) - left;
        if (fromY < 0 || fromX < 0 || fromY >= x.Y || fromX >= x.X) continue;
        const start = (fromY * x.X + fromX) * x.C + g * inputs;
        for (let n = 0; n < inputs; n++) rows[o + n] = x.data[start + n];
      }
    }
    return { Y, X, rows };
  }

  function conv(p, x, stride = 1) { // grid -> grid
    const [k, , inputs, C] = p.w.shape, G = x.C / inputs, O = C / G, grid = { C };
    (p.groups ??= standardised(p, G)).forEach((weight, g) => {
      const { Y, X, rows } = patches(x, g, inputs, k, stride), part = linear(rows, weight);
      if (!g) Object.assign(grid, { Y, X, data: new Float32Array(Y * X * C) });
      for (let r = 0; r < Y * X; r++) for (let o = 0; o < O; o++) {
        grid.data[r * C + g * O + o] = part[r * O + o] + p.b.data[g * O + o];
      }
    });
    return grid;
  }

  const active = (x, scale = 1) => ({ ...x, data: x.data.map((v) => GAIN * gelu(v) * scale) });

  function pooled(x, n) { // the mean of n x n pixels; the last row and column are repeated if n does not divide the grid
    const Y = Math.ceil(x.Y / n), X = Math.ceil(x.X / n), data = new Float32Array(Y * X * x.C);
    for (let y = 0; y < Y * n; y++) for (let c = 0; c < X * n; c++) {
      const from = (Math.min(y, x.Y - 1) * x.X + Math.min(c, x.X - 1)) * x.C;
      const to = (Math.floor(y / n) * X + Math.floor(c / n)) * x.C;
      for (let i = 0; i < x.C; i++) data[to + i] += x.data[from + i] / (n * n);
    }
    return { Y, X, C: x.C, data };
  }

  function nfBlock(p, h, beta, alpha, stride) { // grid -> grid; beta: the standard deviation of h, known from the design
    let x = active(h, 1 / beta);
    const shortcut = p.shortcut ? conv(p.shortcut, pooled(x, stride)) : h;
    x = conv(p.reduce, x);
    x = conv(p.spatial_0, active(x), stride);
    x = conv(p.spatial_1, active(x));
    x = conv(p.expand, active(x));
    const { C } = x, mean = new Float32Array(C), se = p.squeeze_excite, gain = alpha * p.skip_init_gain.data[0];
    x.data.forEach((v, i) => { mean[i % C] += v / (x.Y * x.X); });
    const squeezed = linear(mean, se.w_squeeze, se.b_squeeze).map((v) => GAIN * gelu(v));
    const gates = linear(squeezed, se.w_excite, se.b_excite).map((v) => 1 + Math.tanh(0.5 * v)); // twice a sigmoid
    return { ...x, data: shortcut.data.map((v, i) => v + gain * gates[i % C] * x.data[i]) };
  }

  function visionEncoder(p, frame, { side, stem, stages, alpha }) { // bytes (side, side, 3) -> grid of features
    let h = { Y: side, X: side, C: 3, data: Float32Array.from(frame, (v) => (v - 110) / 80) }, variance = 1;
    stem.forEach(([, stride], i) => { h = conv(p[`stem_${i}`], i ? active(h) : h, stride); });
    stages.forEach(([, blocks, stride], s) => {
      for (let b = 0; b < blocks; b++) {
        h = nfBlock(p[`stage_${s}_block_${b}`], h, Math.sqrt(variance), alpha, b ? 1 : stride);
        variance = (b ? variance : 1) + alpha ** 2; // the shortcut convolution makes it 1 again
      }
    });
    return active(conv(p.final, h));
  }

  // ---- §3 Perceiver resampler: any number of features in, R visual tokens out
  function temporalEmbedding({ data, shape: [frames, D] }, F) { // table (frames, D) -> F arrays (D,); a longer video stretches it
    return range(F).map((f) => {
      const place = F <= frames ? f : (f * (frames - 1)) / (F - 1), low = Math.floor(place), share = place - low;
      const next = Math.min(low + 1, frames - 1) * D;
      return data.slice(low * D, (low + 1) * D).map((v, i) => (1 - share) * v + share * data[next + i]);
    });
  }

  // F arrays (S, Dv) -> (R, D). trace, an object, gets what the page draws: time, F arrays (D,); attention, (H, R, F S + R) a layer
  function resampler(p, features, config, trace) {
    const D = p.latents.shape[1], time = temporalEmbedding(p.temporal, features.length);
    const projected = p.w_in ? features.map((x) => linear(x, p.w_in)) : features;
    const x = joined(projected.map((x, f) => x.map((v, i) => v + time[f][i % D])));
    Object.assign(trace, { time, attention: [] });
    let latents = p.latents.data;
    for (let i = 0; i < config.layers; i++) {
      const layer = p[`layer_${i}`], queries = layerNorm(latents, layer.attn_gain, layer.attn_bias);
      const both = joined([x, queries]); // keys and values: features and latents; queries: latents alone
      const [q, k, v] = [linear(queries, layer.w_q), linear(both, layer.w_k), linear(both, layer.w_v)];
      const { out, weights } = attend(q, k, v, config.heads, layer.w_q.shape[1]);
      trace.attention.push(weights);
      latents = plus(latents, linear(out, layer.w_o));
      latents = plus(latents, feedForward(layer, latents, squaredRelu));
    }
    return latents;
  }

  // The frames of a picture (one) or a video -> (R, D). trace gets also the features, F arrays (S, Dv), and the size of their grid.
  function resample(model, frames, trace = {}) {
    const { frozen, params, config } = model, mean = frozen.feature_mean.data, scale = frozen.feature_scale.data;
    const bytes = config.vision.side ** 2 * 3;
    if (!frames.length || frames.some((frame) => frame.length !== bytes)) throw new Error(`a frame must have ${bytes} bytes`);
    const grids = frames.map((frame) => visionEncoder(frozen.vision, frame, config.vision)), [{ Y, X, C }] = grids;
    const features = grids.map(({ data }) => data.map((v, i) => (v - mean[i % C]) * scale[i % C]));
    Object.assign(trace, { features, F: frames.length, grid: [Y, X], S: Y * X });
    return resampler(params.resampler, features, config.resampler, trace);
  }

  // ---- §4 Language model: frozen decoder blocks, and gated blocks before them
  const BLANK = "[\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]"; // as Python's strip()
  const strip = (text) => text.replace(new RegExp(`^${BLANK}+|${BLANK}+$`, "g"), "");

  function interleave(items, model) { // items: strings, EOC, {frames} -> ids, their names, phi, and the media in order
    const tokens = [BOS], media = [];
    for (const item of items) {
      if (typeof item === "string") tokens.push(...(strip(item) ? encode(model.tokenizer, item.replace(/^ +| +$/g, "")) : []));
      else {
        if (![BOS, model.eoc].includes(tokens.at(-1))) tokens.push(model.eoc); // a medium begins a new chunk
        if (item !== EOC) tokens.push(IMAGE), media.push(item);
      }
    }
    return { tokens, pieces: tokens.map((id) => piece(model, id)), phi: phiOf(tokens), media };
  }

  // ids (T,) -> (T,): the number of the medium that a token sees, the last one so far; 0: none.
  function phiOf(tokens) {
    let seen = 0;
    return tokens.map((token) => (seen += token === IMAGE));
  }

  function visible(phi, M, { everyPicture, offByOne = 0 }) { // -> (T, M): 1 where a token may see a medium, or breaks it
    return Uint8Array.from(phi.flatMap((n) => range(M).map((m) => everyPicture || n + offByOne === m + 1)));
  }

  function mediaKeys({ keys, params }, i, latents) { // keys and values of one medium in one gated block: kept, they know no text
    const p = params[`xattn_${i}`], kept = keys.get(latents) || keys.set(latents, []).get(latents);
    const media = kept[i] || layerNorm(latents, p.media_gain, p.media_bias);
    return (kept[i] ??= { k: linear(media, p.w_k), v: linear(media, p.w_v) });
  }

  // What the cross-attention takes for every token: added (T, D), weights (H, T, M R).
  function crossAttention(model, i, h, { visual, rows, uniform }) {
    const p = model.params[`xattn_${i}`], M = visual.length, R = model.config.resampler.latents;
    const media = visual.map((latents) => mediaKeys(model, i, latents));
    const q = linear(layerNorm(h, p.query_gain, p.query_bias), p.w_q);
    const open = (t, s) => rows[t * M + Math.floor(s / R)];
    const [k, v] = [joined(media.map((m) => m.k)), joined(media.map((m) => m.v))];
    const { out, weights } = attend(q, k, v, model.config.xattn.heads, p.w_q.shape[1], { open, uniform });
    return { added: linear(out, p.w_o), weights };
  }

  // Text h (T, D) -> out (T, D). past: what the same block left for the same h with other gates.
  function gatedXattnDense(model, i, h, seen, [alphaXattn, alphaDense], past) {
    const p = model.params[`xattn_${i}`], cross = past ? past.cross : crossAttention(model, i, h, seen);
    const between = plus(h, cross.added, Math.tanh(alphaXattn));
    const dense = feedForward(p, between, squaredRelu);
    return { cross, dense, out: plus(between, dense, Math.tanh(alphaDense)) };
  }

  function distanceKeys(p, n) { // (n or more, H K): the keys of the distances 0, 1, 2 ...; kept, they know no text
    const [D, width] = p.w_r.shape;
    if (p.far && p.far.length >= n * width) return p.far;
    const waves = Float32Array.from({ length: 2 * n * D }, (_, j) => {
      const i = j % D, angle = Math.floor(j / D) * 10000 ** ((-2 * (i % (D / 2))) / D);
      return i < D / 2 ? Math.sin(angle) : Math.cos(angle);
    });
    return (p.far = linear(waves, p.w_r));
  }

  // (T, D) -> out (T, D), and k, v of all tokens so far. Scores as in Transformer-XL: (q + u) k + (q + v) r(distance).
  function decoderBlock(p, h, H, cache) {
    const x = rmsNorm(h, p.attn_gain), width = p.w_q.shape[1], K = width / H, plain = linear(x, p.w_q);
    const [k, v] = [joined([cache.k, linear(x, p.w_k)]), joined([cache.v, linear(x, p.w_v)])];
    const before = cache.k.length / width, r = distanceKeys(p, k.length / width);
    const [q, far] = [p.u, p.v].map((own) => plain.map((value, i) => value + own.data[i % width]));
    const bias = (head, t, s) => {
      let dot = 0;
      for (let i = 0, o = t * width + head * K, d = (before + t - s) * width + head * K; i < K; i++) dot += far[o + i] * r[d + i];
      return dot;
    };
    const { out } = attend(q, k, v, H, width, { open: (t, s) => s <= before + t, bias });
    const between = plus(h, linear(out, p.w_o, p.b_o));
    return { k, v, out: plus(between, feedForward(p, between, gelu)) };
  }

  function embed(model, tokens) { // ids (T,) -> (T, D)
    const D = model.config.language.width;
    return joined(tokens.map((id) => model.table.t.subarray(id * D, (id + 1) * D).map((v) => v * Math.sqrt(D))));
  }

  const logitsOf = (model, h) => linear(rmsNorm(h, model.frozen.language.final_gain), model.table); // column V: <EOC>

  // Text h (T, D) -> the layers; the last one has its output. seen: {visual, rows (T, M), uniform}; caches: k and v of each block.
  function flamingo(model, h, seen, gates, caches) {
    const layers = [];
    for (let i = 0; i < model.config.language.layers; i++) {
      layers.push(block(model, i, h, seen, gates[model.gated.indexOf(i)], caches[i]));
      h = layers[i].text.out;
    }
    return layers;
  }

  // A gated block, if there is one, and a decoder block. What they make of h is kept until the same h meets another gate.
  function block(model, i, h, seen, gate, cache) {
    const past = model.layers.get(h);
    if (past && (!gate || equal(gate, past.gate))) return past;
    const gated = gate && gatedXattnDense(model, i, h, seen, gate, past && past.gated);
    const text = decoderBlock(model.frozen.language[`block_${i}`], gated ? gated.out : h, model.config.language.heads, cache);
    const layer = { h, gate: gate && [...gate], gated, text };
    model.layers.set(h, layer);
    return layer;
  }

  const MEMORY = 6; // prompts that are remembered
  const NOTHING = { k: new Float32Array(0), v: new Float32Array(0) }; // the cache before the first token
  const equal = (a, b) => a.length === b.length && a.every((v, i) => v === b[i]);

  function embedPrompt(model, tokens, seen) { // the same array for the same prompt, so that `block` knows it
    const same = (kept) => equal(kept.tokens, tokens) && equal(kept.seen.visual, seen.visual)
      && equal(kept.seen.rows, seen.rows) && kept.seen.uniform === seen.uniform;
    const prompt = model.prompts.find(same) || { tokens: [...tokens], seen, h: embed(model, tokens) };
    model.prompts = [prompt, ...model.prompts.filter((other) => other !== prompt)].slice(0, MEMORY);
    return prompt.h;
  }

  // A whole prompt -> logits of the next token, and what the page draws. options: gates, broken masks; all: logits of all tokens.
  function run(model, tokens, visual, options = {}) {
    checkLength(model, tokens.length, 0);
    const gates = options.gates || model.gates, rows = visible(phiOf(tokens), visual.length, options);
    const seen = { visual: [...visual], rows, uniform: !!options.uniformEmptyRows };
    const layers = flamingo(model, embedPrompt(model, tokens, seen), seen, gates, Array(model.config.language.layers).fill(NOTHING));
    const h = layers.at(-1).text.out, all = options.all && logitsOf(model, h), gated = layers.filter((layer) => layer.gated);
    const logits = all ? all.slice(-model.eoc - 1) : logitsOf(model, h.slice(-model.config.language.width));
    const attention = gated.map((layer) => layer.gated.cross.weights);
    return { logits, all, seen, gates, layers, attention, added: gated.map((layer) => added(layer, tokens.length)) };
  }

  // How much a gated block adds for each token, by cross-attention and by feed-forward: its norm / that of the stream before it.
  function added({ h, gate, gated }, T) {
    const D = h.length / T, size = (x, t) => Math.hypot(...x.subarray(t * D, (t + 1) * D));
    return [gated.cross.added, gated.dense].map((x, k) =>
      Float32Array.from({ length: T }, (_, t) => (size(x, t) * Math.abs(Math.tanh(gate[k]))) / size(h, t)));
  }

  function checkLength(model, prompt, more) {
    const { context } = model.config.language;
    if (prompt + more > context) throw new Error(`${prompt} tokens and up to ${more} more, but the context is ${context}`);
  }

  // ---- §5 Application: completion of a prompt
  function probabilities(logits, temperature = 1) { // (V + 1,) -> the same; 0 for what an answer never holds
    const p = Float64Array.from(logits, (v, id) => (NEVER.includes(id) ? -Infinity : v / temperature));
    const top = p.reduce((a, b) => Math.max(a, b)), weights = p.map((v) => Math.exp(v - top));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((v) => v / sum);
  }

  function choose(p, temperature, random) { // temperature 0: the likeliest
    if (!temperature) return p.reduce((best, v, id) => (v > p[best] ? id : best), 0);
    let left = random();
    const chosen = p.findIndex((v) => (left -= v) < 0);
    return chosen < 0 ? p.length - 1 : chosen;
  }

  function complete(model, items, options = {}) {
    const { maxTokens = 24, temperature = 0, random = Math.random } = options;
    const prompt = interleave(items, model);
    checkLength(model, prompt.tokens.length, maxTokens);
    const visual = options.visual || prompt.media.map((medium) => resample(model, medium.frames));
    const result = run(model, prompt.tokens, visual, options), { seen, gates } = result, M = visual.length;
    const next = { ...seen, rows: seen.rows.slice(seen.rows.length - M) }; // an answer sees what the last token sees
    const tokens = [], steps = [];
    let { logits, layers } = result;
    while (tokens.length < maxTokens) {
      const id = choose(probabilities(logits, temperature || 1), temperature, random);
      steps.push(logits);
      if (id === model.eoc) break;
      tokens.push(id);
      if (tokens.length === maxTokens) break;
      layers = flamingo(model, embed(model, [id]), next, gates, layers.map((layer) => layer.text));
      logits = logitsOf(model, layers.at(-1).text.out);
    }
    const pieces = tokens.map((id) => piece(model, id));
    return { text: strip(decode(model.tokenizer, tokens)), tokens, pieces, logits: steps, prompt, result };
  }

  const piece = (model, id) => (id === model.eoc ? "<EOC>" : model.tokenizer.pieces[id][0]); // for the eye

  // ---- Loading: what build.py packed
  function load(packed) { // {config, pieces, index, weights, ...} -> model
    const bytes = bytesOf(packed.weights), { config, sha256, info, gateLog } = packed, model = { config, sha256, info, gateLog };
    let at = 0;
    for (const [name, shape, type] of packed.index) {
      const path = name.split("/"), leaf = path.pop(), length = shape.reduce((a, b) => a * b, type === "float32" ? 4 : 2);
      const node = path.reduce((parent, part) => (parent[part] ??= {}), model);
      node[leaf] = { shape, data: numbers(bytes.slice(at, (at += length)), type) };
    }
    if (at !== bytes.length) throw new Error("the weights are cut: build the page again");
    return ready(model, packed.pieces);
  }

  function ready(model, pieces) { // the tables that the functions above look up
    const { params, frozen, config } = model, V = pieces.length;
    model.tokenizer = tokenizer(pieces);
    model.eoc = V;
    model.table = { shape: [config.language.width, V + 1], t: joined([frozen.language.embedding.data, params.eoc.data]) };
    model.gated = range(config.language.layers).filter((i) => params[`xattn_${i}`]);
    const alpha = (i, name) => params[`xattn_${i}`][name].data[0];
    model.gates = model.gated.map((i) => [alpha(i, "alpha_xattn"), alpha(i, "alpha_dense")]);
    Object.assign(model, { keys: new WeakMap(), layers: new WeakMap(), prompts: [] }); // what is kept
    return model;
  }

  // ---- Pictures: any size to the square of the encoder, as data/preparation.py does it
  const halfToEven = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // Python's round()

  function areaWeights(cells, length, parts) { // (parts, cells): the share of each cell in each part of a line
    return Float32Array.from({ length: parts * cells }, (_, i) => {
      const part = Math.floor(i / cells), cell = i % cells, low = (length * part) / parts, high = (length * (part + 1)) / parts;
      return (Math.max(Math.min(high, cell + 1, length) - Math.max(low, cell), 0) * parts) / length;
    });
  }

  function fit(rgba, width, height, side = 32) { // -> bytes (side, side, 3): area average; the mean colour fills the square
    const [X, Y] = [width, height].map((n) => Math.max(1, halfToEven((side * n) / Math.max(width, height))));
    const byX = Math.max(1, Math.floor(width / (8 * X))), byY = Math.max(1, Math.floor(height / (8 * Y)));
    const cells = reduced(overWhite(rgba), width, height, byX, byY); // a large picture shrinks by whole factors first
    const down = areaWeights(cells.Y, height / byY, Y), across = areaWeights(cells.X, width / byX, X);
    const rows = linear(down, { shape: [cells.Y, cells.X * 3], data: cells.pixels });
    const row = (y) => ({ shape: [cells.X, 3], data: rows.subarray(y * cells.X * 3, (y + 1) * cells.X * 3) });
    const pixels = joined(range(Y).map((y) => linear(across, row(y))));
    const mean = [0, 1, 2].map((c) => pixels.reduce((sum, v, i) => sum + (i % 3 === c ? v : 0), 0) / (X * Y));
    const square = Uint8Array.from({ length: side * side * 3 }, (_, i) => mean[i % 3] + 0.5);
    const top = Math.floor((side - Y) / 2), left = Math.floor((side - X) / 2);
    for (let y = 0; y < Y; y++) for (let i = 0; i < X * 3; i++) {
      square[((top + y) * side + left) * 3 + i] = Math.fround(pixels[y * X * 3 + i] + 0.5);
    }
    return square;
  }

  return { EOC, load, interleave, resample, run, complete, probabilities, piece, fit };
})();
