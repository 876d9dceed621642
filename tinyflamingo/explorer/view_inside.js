// View 5: inside the encoder and the resampler. The grid of features of each frame, its time embedding, and what each latent takes.
"use strict";
$("channel").oninput = (e) => change({ channel: Number(e.target.value) });

function drawInside() {
  if (!shown("inside")) return;
  const { layers, heads: H, latents: R } = model.config.resampler, D = model.config.language.width;
  const n = Math.min(S.picture, NOW.M - 1), name = S.pictures[n];
  $("inside").hidden = n < 0;
  if (n < 0) return;
  choice("picture", "picture", counted(NOW.M), n);
  choice("layer", "layer", counted(layers));
  choice("rhead", "head", heads(H));
  choice("latent", "latent", counted(R));
  $("channel").max = D;
  $("channel").value = S.channel;
  $("channel-out").textContent = $("channel").ariaValueText = S.channel ? T("channelN", { n: S.channel, D }) : T("itsLength");
  rebuilt($("frames"), [name, S.channel], () => $("frames").replaceChildren(framesTable(name)));
  rebuilt($("taken"), [name, S.layer, S.rhead, S.latent], () => $("taken").replaceChildren(takenTable(name)));
}
const frameN = (f) => T("frameN", { n: f + 1 });
const dot = (a, b) => sum(a.map((v, i) => v * b[i])), norm = (a) => Math.sqrt(dot(a, a));

function framesTable(name) { // a row a frame: the frame, its grid of features, its time embedding in colours and in numbers
  const { trace } = resample(name), { features, time } = trace, D = time[0].length;
  const each = features.map((x) => range(trace.S).map((s) => x.subarray(s * D, (s + 1) * D))), lengths = each.map((x) => x.map(norm));
  const values = S.channel ? each.map((x) => x.map((v) => v[S.channel - 1])) : lengths, deep = Math.max(...values.flat().map(Math.abs));
  const rows = World.frames(name).map((rgb, f) => [frameN(f), paint([rgb], 48, { "aria-label": frameN(f) }),
    heat(rgb, values[f], trace.grid, 132, { numbers: true, deep, text: (v) => v.toFixed(S.channel ? 2 : 1) }), strip(time[f]), norm(time[f]).toFixed(2),
    percent((norm(time[f]) * trace.S) / sum(lengths[f])), (dot(time[f], time[0]) / norm(time[f]) / norm(time[0])).toFixed(2)]);
  const head = ["colFrame", "colPixels", "colFeatures", "colTime", "colLength", "colShare", "colCosine"].map((key) => T(key));
  return table(T("framesSay", { D, cells: trace.grid.join(" × "), deep: deep.toFixed(1) }), head, rows);
}
function strip(values) { // numbers as a row of colours; what they are is said by the numbers beside it
  const canvas = el("canvas", { width: values.length, height: 1, "aria-hidden": "true", className: "strip-of" }), c = canvas.getContext("2d"), deep = Math.max(...values.map(Math.abs));
  values.forEach((v, i) => { c.fillStyle = tint(v, deep); c.fillRect(i, 0, 1, 1); });
  return canvas;
}

function takenTable(name) { // a column a latent: its weights on the cells of each frame, and on the latents
  const { trace } = resample(name), { F, S: cells, grid } = trace, R = latents(), deep = 0.39 / F;
  const taken = range(R).map((r) => takenBy(trace, r, S.layer, S.rhead));
  const cell = (r, rgb, own) => el("div", { className: r === S.latent ? "here" : "" },
    heat(rgb, own, grid, r === S.latent ? 132 : 60, { numbers: r === S.latent, deep, text: (v) => percent(v, 1) }), percent(sum(own), 1));
  const rows = World.frames(name).map((rgb, f) => [frameN(f), ...taken.map((w, r) => cell(r, rgb, w.slice(f * cells, (f + 1) * cells)))]);
  const rest = (w, r) => el("div", {}, percent(sum(w.slice(F * cells)), 1), ...(r === S.latent ? range(R).map((i) => el("small", {}, `${i + 1}: ${percent(w[F * cells + i], 1)}`)) : []));
  rows.push([T("theLatents"), ...taken.map(rest)]);
  return table(T("takenSay", { layer: S.layer + 1, head: headName(S.rhead), deep: percent(deep) }), [T("colFrame"), ...range(R).map(latentN)], rows);
}
