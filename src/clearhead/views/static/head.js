// @ts-check
/** One head: its map, its two lines of tokens, its strongest links, and the same numbers as a table. */
import { headMap } from "./map.js";
import { at, isDense, isMasked, label, links, linksOf, resting, say } from "./numbers.js";
import { make } from "./paint.js";
import { patchView } from "./patches.js";

const LIST = 8;
const ROW = 24; // pixels of a token in the two lines, and the width they are drawn at
const GAP = 150;
const WINDOW = 512; // tokens a line shows at a time
const LINK_WIDTH = 12; // pixels for weight 1

const WORDS = {
  weight: "How much of a key's value a query takes: the softmax of the scaled, masked logits over the row. 0 to 1; a row adds up to 1.",
  breadth: "How evenly a head's queries look: the entropy of its rows over the most it could be, the log of the number of keys in sight. 0: each query looks at one key; 1: at all alike.",
  "KL divergence": "How differently two heads attend: the mean over queries of Σ a·ln(a / b), a this head's weights and b the other's. 0: the same; infinite where b gives nothing to a key that a looks at.",
  query: "The token that looks. One row of the map.",
  key: "The token that is looked at. One column of the map.",
};

/** Draw one head into `one`, `list` and `more`; returns what shows a token (-1: none).
 * @param {any} scene @param {number} l @param {number} h */
export function openHead(scene, l, h) {
  const { layers, tokens, one, list, more, close } = scene;
  const layer = layers[l];
  const all = links(layer, h);
  const pin = scene.pinned();
  const other = scene.compared(l, h);
  const map = headMap(scene, layer, l, h, other);
  const lines = scene.raw.picture ? patchView(scene, layer, l, h) : tokenLines(scene, layer);
  const explain = (word) => explainWord(more, word);
  const alone = layers.length === 1 && layer.heads === 1;
  const name = alone ? layer.name : `Layer ${l}, head ${h}`;
  const breadth = scene.scores.breadth?.values[l][h];
  one.replaceChildren(
    make("header", { class: "ch-head" },
      make("h2", {}, name),
      make("span", { class: "ch-acts" },
        scene.raw.other ? make("button", { type: "button", "aria-pressed": String(pin === "other"), onclick: () => scene.pin(pin === "other" ? "" : "other") }, pin === "other" ? "This model alone" : `Less ${scene.raw.other.model}`) : null,
        alone || pin === "other" ? null : make("button", { type: "button", onclick: () => scene.pin(pin ? "" : `${l}.${h}`) }, pin ? `Unpin ${pin.replace(".", "·")}` : "Pin to compare"),
        make("button", { type: "button", class: "ch-close", onclick: close }, "Close")),
      make("p", { class: "ch-note" }, alone ? "" : `${layer.name} · `, "breadth ", number("breadth", breadth?.toFixed(2) ?? "–", explain)),
      other ? make("p", { class: "ch-less" }, `The map shows this head less ${other.name}. `, divergence(scene, l, h, other, explain))
        : pin === "other" ? make("p", { class: "ch-less" }, `${scene.raw.other.model} has no such head over as many tokens.`)
          : pin ? make("p", { class: "ch-less" }, "Pinned. Open another head to see the difference.") : null),
    make("div", { class: "ch-pictures" }, map.element, lines.element));
  more.replaceChildren(numbersTable(layer, h, tokens), definitions(), ...(scene.raw.text && !alone ? [howComputed(scene.raw, layer, h)] : []));
  const fill = (token, side, near) => {
    lines.show(token, side, near);
    list.replaceChildren(strongest(layer, tokens, token, side, near.slice(0, LIST), explain));
  };
  let latest = 0;
  return async (token, side) => {
    const turn = ++latest;
    map.mark(token, side);
    fill(token, side, token >= 0 ? linksOf(layer, h, token, side) : all);
    if (token < 0 || isDense(layer) || !scene.ask) return;
    const found = await scene.ask({ kind: "links", layer: l, head: h, token, side });
    if (found?.links && turn === latest) fill(token, side, found.links.map(([from, to, weight]) => ({ from, to, weight })));
  };
}

/** A number that leads to what it means. */
const number = (word, shown, explain) =>
  make("button", { type: "button", class: "ch-number", title: `What is ${word}?`, onclick: () => explain(word) }, shown);

/** How differently the two heads attend, filled in once Python has answered. */
function divergence(scene, l, h, other, explain) {
  const line = make("span", { "aria-live": "polite" });
  const fill = (mean, most = []) => line.replaceChildren("KL divergence ", number("KL divergence", nats(mean), explain), " nats a query",
    ...(most.length ? [`, most at ${most.map(([query, value]) => `“${label(scene.tokens[query])}” ${nats(value)}`).join(", ")}`] : []), ".");
  if (other.kl !== undefined) fill(other.kl);
  if (scene.ask) {
    scene.ask({ kind: "kl", layer: l, head: h, with: other.place, model: other.model }).then((found) => "mean" in (found || {}) && fill(found.mean, found.most));
  }
  return line;
}

/** @param {number | null} value null: infinite */
const nats = (value) => (value === null ? "∞" : value.toFixed(value < 0.1 ? 3 : 2));

function explainWord(more, word) {
  const entry = more.querySelector(`[data-word="${word}"]`);
  entry.closest("details").open = true;
  entry.focus();
  entry.scrollIntoView({ block: "nearest" });
}

function definitions() {
  const entries = Object.entries(WORDS).flatMap(([word, text]) => [make("dt", { "data-word": word, tabindex: "-1" }, word), make("dd", {}, text)]);
  return make("details", { class: "ch-words" }, make("summary", {}, "What the words mean"), make("dl", {}, ...entries));
}

/** The program that gives the same numbers, with what it ran on, to copy. */
function howComputed(raw, layer, h) {
  const model = raw.loaded_by ? JSON.stringify(raw.loaded_by) : "";
  const program = [
    "from clearhead import capture", "",
    `reading = capture.read(capture.load(${model}), ${JSON.stringify(raw.text)})`,
    `weights = reading.record[${JSON.stringify(layer.name)}]   # (1, heads, queries, keys), never stored`,
    `print(reading.tokens)`, `print(weights[0, ${h}])`,
  ].join("\n");
  const versions = Object.entries(raw.versions).map(([name, version]) => `${name} ${version}`).join(", ");
  const copy = make("button", { type: "button", class: "ch-copy", onclick: async () => {
    await navigator.clipboard.writeText(program);
    copy.textContent = "Copied";
  } }, "Copy");
  return make("details", { class: "ch-how" }, make("summary", {}, "How was this computed"),
    make("pre", { tabindex: "0" }, make("code", {}, program)),
    make("p", { class: "ch-note" }, `${versions}; no random number is drawn. `, copy));
}

function strongest(layer, tokens, token, side, near, explain) {
  const title = token < 0 ? "Strongest links of this head"
    : side === "query" ? `“${label(tokens[token], 24)}” looks at` : `“${label(tokens[token], 24)}” is looked at by`;
  const query = (link) => make("span", { class: "ch-q", title: tokens[link.from] }, label(tokens[link.from]));
  const key = (link) => make("span", { class: "ch-k", title: tokens[link.to] }, label(tokens[link.to]));
  const pair = (link) => (token < 0 ? [query(link), "→", key(link), make("small", {}, `${link.from} → ${link.to}`)]
    : side === "query" ? [key(link), make("small", {}, String(link.to))] : [query(link), make("small", {}, String(link.from))]);
  const items = near.map((link) => make("li", {},
    make("span", { class: "ch-pair" }, ...pair(link)),
    make("span", { class: "ch-meter", "aria-hidden": "true" }, make("span", { style: { width: `${100 * Math.min(link.weight, 1)}%` } })),
    number("weight", say(link.weight), explain)));
  const nothing = isDense(layer) ? "No weight: this token is masked out here." : "No link of this token was kept in this page.";
  return make("div", {}, make("h3", {}, title), items.length ? make("ol", {}, ...items) : make("p", { class: "ch-note" }, nothing));
}

// ---- two lines of tokens -------------------------------------------------------------------------------------

/** A very long text shows a window of its tokens, moved by buttons or by pointing elsewhere. */
function tokenLines(scene, layer) {
  const { tokens, state, change } = scene;
  const [queries, keys] = layer.shape;
  const most = Math.max(queries, keys);
  const size = Math.min(most, WINDOW);
  let start = 0;
  const svg = make("svg:svg", {
    class: "ch-links", viewBox: `0 0 ${GAP} ${ROW * size}`, preserveAspectRatio: "none", style: { height: `${ROW * size}px` }, "aria-hidden": "true",
  });
  const box = make("div", { class: "ch-lines" });
  const where = make("small", { "aria-live": "polite" });
  const line = (side, count) => make("div", { class: `ch-line ch-line-${side}`, role: "group", "aria-label": side === "query" ? "Queries" : "Keys" },
    make("p", { class: `ch-${side[0]} ch-line-name` }, side === "query" ? "queries" : "keys"),
    ...Array.from({ length: Math.max(Math.min(size, count - start), 0) }, (_, i) => make("button", {
      type: "button", class: "ch-token", tabindex: i === 0 && side === "query" ? "0" : "-1", title: tokens[start + i], "data-side": side, "data-token": start + i,
    }, label(tokens[start + i]))));
  const button = (side, token) => box.querySelector(`[data-side="${side}"][data-token="${token}"]`);
  function turn(to) {
    start = Math.min(Math.max(to, 0), most - size);
    where.textContent = `tokens ${start}–${start + size - 1} of ${most}`;
    box.replaceChildren(line("query", queries), svg, line("key", keys));
  }
  turn(0);

  const point = (event) => {
    const { token, side } = event.target.dataset;
    if (token !== undefined && (state().token !== Number(token) || state().side !== side)) change({ token: Number(token), side });
  };
  box.addEventListener("pointerover", (event) => event.pointerType === "mouse" && point(event));
  box.addEventListener("focusin", point);
  box.addEventListener("click", point);
  box.addEventListener("keydown", (event) => {
    const { token, side } = event.target.dataset;
    const to = { ArrowUp: [side, Number(token) - 1], ArrowDown: [side, Number(token) + 1], ArrowLeft: ["query", token], ArrowRight: ["key", token] }[event.key];
    if (!to) return;
    event.preventDefault();
    if (!button(to[0], to[1]) && to[1] >= 0 && to[1] < most) turn(Number(to[1]) - size / 2);
    button(to[0], to[1])?.focus();
  });
  const page = (text, by) => make("button", { type: "button", class: "ch-zoom", onclick: () => { turn(start + by); change({ token: -1 }); again(); } }, text);
  const pages = most > size ? make("div", { class: "ch-tools" }, page("Earlier", -size / 2), page("Later", size / 2), where) : null;
  const long = most > 48 ? " At rest, links of up to 16 tokens are drawn." : "";
  let again = () => {};

  function show(token, side, near) {
    again = () => show(-1, side, near);
    if (token >= 0 && !button(side, token)) turn(token - size / 2);
    const drawn = (token < 0 ? resting(near, most) : near).filter((link) => link.weight * LINK_WIDTH > 0.1);
    const inSight = (place) => place >= start && place < start + size;
    svg.replaceChildren(...drawn.filter((link) => inSight(link.from) || inSight(link.to)).map((link) => curve(link, start)));
    box.classList.toggle("ch-pointed", token >= 0);
    const lit = new Set(near.slice(0, LIST).map((link) => (side === "query" ? link.to : link.from)));
    for (const node of box.querySelectorAll(".ch-token")) {
      const here = node.dataset.side === side && Number(node.dataset.token) === token;
      node.classList.toggle("ch-here", here);
      node.classList.toggle("ch-lit", token >= 0 && (here || (node.dataset.side !== side && lit.has(Number(node.dataset.token)))));
      if (token >= 0) node.setAttribute("tabindex", here ? "0" : "-1");
    }
    const there = token >= 0 && button(side, token);
    if (there && (there.offsetTop < box.scrollTop || there.offsetTop + ROW > box.scrollTop + box.clientHeight)) {
      box.scrollTop = there.offsetTop - box.clientHeight / 3; // pointed at from the map or the address
    }
  }

  return {
    element: make("figure", { class: "ch-linebox" }, box, pages,
      make("figcaption", {}, `A link's width is its weight. Point at a token, or walk with the arrow keys.${long}`)),
    show,
  };
}

function curve(link, start) {
  const [y, to, inset] = [(link.from - start + 0.5) * ROW, (link.to - start + 0.5) * ROW, 2];
  return make("svg:path", {
    d: `M${inset} ${y}C${GAP / 2} ${y} ${GAP / 2} ${to} ${GAP - inset} ${to}`,
    "vector-effect": "non-scaling-stroke", "stroke-width": Math.max(LINK_WIDTH * link.weight, 0.2).toFixed(2),
  });
}

// ---- the same numbers as a table -----------------------------------------------------------------------------

/** Built when it is opened: a long text has many rows. */
function numbersTable(layer, h, tokens) {
  const box = make("details", { class: "ch-table" }, make("summary", {}, "The same numbers as a table"));
  box.addEventListener("toggle", () => box.open && box.childElementCount === 1 && box.append(table(layer, h, tokens)));
  return box;
}

function table(layer, h, tokens) {
  const [queries, keys] = layer.shape;
  const full = isDense(layer) && keys <= 24;
  const most = Math.min(queries, 512);
  const heads = full ? tokens.slice(0, keys).map((token) => label(token)) : ["strongest keys, with weights"];
  const cells = (i) => (full
    ? Array.from({ length: keys }, (_, j) => (isMasked(layer.masked, layer.map.shape, i, j, h) ? "–" : say(at(layer.map, h, i, j))))
    : [linksOf(layer, h, i, "query").slice(0, LIST).map((link) => `${label(tokens[link.to])} ${say(link.weight)}`).join(", ") || "not kept"]);
  const rows = Array.from({ length: most }, (_, i) => make("tr", {},
    make("th", { scope: "row" }, `${i} ${label(tokens[i])}`), ...cells(i).map((cell) => make("td", {}, cell))));
  const cut = most < queries ? `; the first ${most} of ${queries} queries` : "";
  return make("div", { class: "ch-scroll", tabindex: "0", role: "region", "aria-label": "Weights" },
    make("table", {}, make("caption", {}, `Weights: rows are queries, columns are keys${cut}`),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "query"), ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows)));
}
