// How a question to the search becomes words. Sphinx cuts at spaces and punctuation; Chinese has no spaces, so a row of
// Chinese characters is cut here into the longest words that the index has.
var splitQuery = (query) =>
  query
    .split(/[^\p{Letter}\p{Number}_]+/gu)
    .flatMap((part) => part.match(/\p{Script=Han}+|[^\p{Script=Han}]+/gu) || [])
    .flatMap((part) => (/\p{Script=Han}/u.test(part) ? wordsOf(part) : [part]));

function wordsOf(row) {
  const known = (word) => Object.hasOwn(Search._index.terms, word) || Object.hasOwn(Search._index.titleterms, word);
  const words = [];
  while (row) {
    let length = row.length;
    while (length > 1 && !known(row.slice(0, length))) length -= 1;
    words.push(row.slice(0, length));
    row = row.slice(length);
  }
  return words;
}
