// @ts-check
/** What the writing Lens shows, as a file: the text with its lines as SVG or PNG, every step as CSV, JSON or Parquet. */
import { make } from "/views/paint.js";
import { _ } from "./words.js";

const QUOTE = "\u0022";
const SCALE = 2; // pixels of a PNG for each of the page

/** Links that save. @param {() => any[]} runs @param {() => Element | null} picture the text that is drawn
 * @param {(() => Promise<string>) | null} parquet asks the studio for a file in base64; null where it has no pyarrow */
export function saveLine(runs, picture, parquet) {
  const act = (name, work) => make("button", { type: "button", class: "quiet", onclick: work }, name);
  return make("p", { class: "write-save" }, make("span", { class: "write-note" }, _("Save:")),
    act("SVG", () => { const drawn = svgOf(picture()); if (drawn) hand("written.svg", "image/svg+xml", drawn.text); }),
    act("PNG", () => png(svgOf(picture()))),
    act("CSV", () => hand("written.csv", "text/csv", csvOf(runs()))),
    act("JSON", () => hand("written.json", "application/json", JSON.stringify({ format: "clearhead.written/1", runs: runs().map(dataOf) }))),
    parquet && act("Parquet", async () => {
      const content = await parquet();
      if (content) hand("written.parquet", "application/vnd.apache.parquet", Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0)));
    }));
}

/** Every step of a run, with all its weights. @param {any} run */
export function dataOf(run) {
  return {
    model: run.name, prompt: run.prompt, chat: run.chat, without: run.without, tokens: run.tokens, ids: run.ids, prompt_tokens: run.promptSize,
    steps: run.made.map((step, i) => ({
      place: run.promptSize + i, token: run.tokens[run.promptSize + i], probability: step.p,
      candidates: step.candidates.map(([id, token, probability]) => ({ id, token, probability })),
      weights: Array.from({ length: run.promptSize + i }, (_none, key) => Number(run.weight(run.promptSize + i, key).toPrecision(5))),
    })),
  };
}

/** A row a link: which answer, the token that was written, and the weight of an earlier one. @param {any[]} runs */
export function csvOf(runs) {
  const rows = [["without", "place", "token", "probability", "key", "key_token", "weight"]];
  for (const run of runs) {
    const off = run.without.map(([l, h]) => `${l}.${h}`).join(" ");
    for (const { place, token, probability, weights } of dataOf(run).steps) {
      weights.forEach((weight, key) => weight > 0 && rows.push([off, place, token, probability, key, run.tokens[key], weight]));
    }
  }
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** A value as a cell, which no spreadsheet takes for a formula. @param {any} value */
function cell(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? "'".concat(value) : String(value);
  const isPlain = !/[,\r\n]|^\s|\s$/.test(text) && !text.includes(QUOTE);
  return isPlain ? text : QUOTE + text.replaceAll(QUOTE, QUOTE + QUOTE) + QUOTE;
}

/** The text as it is drawn, with its lines. @param {Element | null} paper */
function svgOf(paper) {
  if (!paper) return null;
  const box = paper.getBoundingClientRect();
  const [width, height] = [Math.ceil(box.width), Math.ceil(box.height)];
  const drawn = make("svg:svg", { xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}` });
  drawn.append(make("svg:rect", { width, height, fill: getComputedStyle(document.body).backgroundColor }));
  for (const path of paper.querySelectorAll(".write-lines path")) {
    const style = getComputedStyle(path);
    drawn.append(make("svg:path", { d: path.getAttribute("d"), fill: "none", stroke: style.stroke, "stroke-width": path.getAttribute("stroke-width"), opacity: style.opacity, "stroke-linecap": "round" }));
  }
  const range = document.createRange();
  for (const token of paper.querySelectorAll(".write-token")) {
    const style = getComputedStyle(token);
    for (const rect of token.getClientRects()) {
      if (token.classList.contains("write-here")) drawn.append(make("svg:rect", { x: rect.left - box.left, y: rect.top - box.top, width: rect.width, height: rect.height, fill: style.backgroundColor }));
    }
    for (const [word, rect] of wordsOf(token, range)) {
      const text = make("svg:text", { x: (rect.left - box.left).toFixed(1), y: (rect.bottom - box.top - rect.height * 0.24).toFixed(1), fill: style.color, "font-family": style.fontFamily, "font-size": style.fontSize }, word);
      if (token.classList.contains("write-lit")) text.setAttribute("text-decoration", "underline");
      drawn.append(text);
    }
  }
  return { text: new XMLSerializer().serializeToString(drawn), width, height };
}

/** Each word of a token, and where it stands: a token may go on in the next line. @param {Element} token @param {Range} range */
function* wordsOf(token, range) {
  const node = /** @type {Text} */ (token.firstChild);
  for (const { index, 0: word } of node?.data.matchAll(/\S+/g) ?? []) {
    range.setStart(node, index);
    range.setEnd(node, index + word.length);
    yield [word, range.getBoundingClientRect()];
  }
}

/** @param {{text: string, width: number, height: number} | null} drawn */
async function png(drawn) {
  if (!drawn) return;
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(drawn.text)}`;
  await image.decode();
  const canvas = make("canvas", { width: drawn.width * SCALE, height: drawn.height * SCALE });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((content) => content && hand("written.png", "image/png", content));
}

/** Give the reader a file. @param {string} name @param {string} type @param {BlobPart} content */
function hand(name, type, content) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
