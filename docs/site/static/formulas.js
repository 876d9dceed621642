// Draws the formulas of a page with KaTeX, which is loaded before.
for (const place of document.querySelectorAll(".formula")) {
  katex.render(place.textContent, place, { displayMode: place.tagName === "DIV", throwOnError: true });
}
