// What one_file.py takes from libraries, for flamingo.js: SentencePiece's pieces, NumPy's types, Pillow's pixels.
"use strict";
const range = (n) => [...Array(n).keys()];
const Libraries = (() => {
  // ---- SentencePiece: byte pair encoding; a character without a piece becomes bytes
  const NORMAL = 1, BYTE = 6; // types of pieces, as SentencePiece numbers them

  function tokenizer(pieces) { // [text, score, type] of every piece -> the tables that encode and decode look up
    const ids = new Map(pieces.flatMap(([name, , type], id) => (type === NORMAL ? [[name, id]] : [])));
    return { pieces, ids, firstByte: pieces.findIndex(([, , type]) => type === BYTE) };
  }

  // -> ids; never a reserved one. "\u2581" would be decoded as a space, so it is escaped
  function encode({ ids, pieces, firstByte }, text) {
    if (/\p{Surrogate}/u.test(text)) throw new Error("text is not valid Unicode: half of a surrogate pair");
    const plain = text.replace(/\x1a/g, "\x1a0").replace(/\u2581/g, "\x1a1");
    const parts = plain ? [...`\u2581${plain.replace(/ /g, "\u2581")}`] : [];
    for (;;) { // join the neighbours whose piece has the highest score; of equal ones, the leftmost
      let best = -1, score = -Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        const id = ids.get(parts[i] + parts[i + 1]);
        if (id !== undefined && pieces[id][1] > score) [best, score] = [i, pieces[id][1]];
      }
      if (best < 0) break;
      parts.splice(best, 2, parts[best] + parts[best + 1]);
    }
    const bytes = (part) => Array.from(new TextEncoder().encode(part), (byte) => firstByte + byte);
    return parts.flatMap((part) => (ids.has(part) ? [ids.get(part)] : bytes(part)));
  }

  function decode({ pieces }, tokens) { // -> text; reserved ids are left out
    const bytes = tokens.map((id) => pieces[id] || []).map(([name, , type]) =>
      type === BYTE ? [parseInt(name.slice(3, 5), 16)] : type === NORMAL ? [...new TextEncoder().encode(name)] : []);
    return textOf(bytes.flat()).replace(/^\u2581/, "").replace(/\u2581/g, " ").replace(/\x1a1/g, "\u2581").replace(/\x1a0/g, "\x1a");
  }

  function textOf(bytes) { // UTF-8; every byte that is not part of a character becomes U+FFFD
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    let text = "";
    for (let i = 0, n; i < bytes.length; i += n) {
      n = bytes[i] < 0x80 ? 1 : bytes[i] < 0xe0 ? 2 : bytes[i] < 0xf0 ? 3 : 4;
      try {
        text += decoder.decode(Uint8Array.from(bytes.slice(i, i + n)));
      } catch {
        text += "\ufffd";
        n = 1;
      }
    }
    return text;
  }

  // ---- NumPy: arrays from base64
  function bytesOf(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  function numbers(bytes, type) { // -> float32
    if (type === "float32") return new Float32Array(bytes.buffer);
    // A half's bits in the places of a float32's; its exponent counts from 15, that of a float32 from 127
    const bits = new Uint32Array(new Uint16Array(bytes.buffer)).map((half) => ((half & 0x8000) << 16) | ((half & 0x7fff) << 13));
    return new Float32Array(bits.buffer).map((v) => v * 2 ** 112);
  }

  // ---- Pillow: bytes, rounded as it rounds them
  function overWhite(rgba) { // RGBA bytes -> RGB
    const rgb = new Uint8Array((rgba.length / 4) * 3);
    for (let i = 0, o = 0; i < rgba.length; i += 4) for (let c = 0; c < 3; c++) {
      const x = (rgba[i + c] * rgba[i + 3] + 255 * (255 - rgba[i + 3]) + 128) * 128;
      rgb[o++] = (((x >> 8) + x) >> 8) >> 7;
    }
    return rgb;
  }

  // The means of byY x byX pixels: reduce().
  function reduced(rgb, width, height, byX, byY) {
    const X = Math.ceil(width / byX), Y = Math.ceil(height / byY), out = new Uint8Array(X * Y * 3);
    for (let y = 0; y < Y; y++) for (let x = 0; x < X; x++) {
      const bottom = Math.min((y + 1) * byY, height), right = Math.min((x + 1) * byX, width);
      const cells = (bottom - y * byY) * (right - x * byX), factor = Math.floor(Math.fround(2 ** 24 / cells));
      for (let c = 0; c < 3; c++) {
        let sum = cells >> 1;
        for (let b = y * byY; b < bottom; b++) for (let a = x * byX; a < right; a++) sum += rgb[(b * width + a) * 3 + c];
        out[(y * X + x) * 3 + c] = Math.floor((sum * factor) / 2 ** 24);
      }
    }
    return { X, Y, pixels: out };
  }

  return { tokenizer, encode, decode, bytesOf, numbers, overWhite, reduced };
})();
