// @ts-check
/** One head: its map, its two lines of tokens, its strongest links, and the same numbers as a table. */
import { headMap } from "./map.js";
import { hasMedia, mediaView } from "./media.js";
import { at, isDense, isMasked, label, links, linksOf, resting, say, saySigned } from "./numbers.js";
import { make } from "./paint.js";
import { whyChart } from "./why.js";
import { _ } from "./words.js";

const LIST = 8;
const MOST_LINKS = 64; // links of a token, the same as in questions.py
const MOST_TELLING = 3; // queries in which two heads differ most
const ROW = 24; // pixels of a token in the two lines, and the width they are drawn at
const GAP = 150;
const WINDOW = 512; // tokens a line shows at a time
const LINK_WIDTH = 12; // pixels for weight 1

const WORDS = {
  weight: [_("weight"), _("How much of a key's value a query takes: the softmax of the scaled, masked logits over the row. 0 to 1; a row adds up to 1.")],
  breadth: [_("breadth"), _("How evenly a head's queries look: the entropy of its rows over the most it could be, the log of the number of keys in sight. 0: each query looks at one key; 1: at all keys equally.")],
  divergence: [_("KL divergence"), _("How differently two heads attend: the mean over queries of Σ a·ln(a / b), a this head's weights and b the other's. 0: the same; infinite where b gives nothing to a key that a looks at.")],
  query: [_("query"), _("The token that looks. One row of the map.")],
  key: [_("key"), _("The token that is looked at. One column of the map.")],
};

/** Draw one head into `large`, `list` and `more`; returns a function that shows a token (-1: none).
 * @param {any} scene @param {number} l @param {number} h */
export function openHead(scene, l, h) {
  const { layers, large: panel, list, more, close } = scene;
  const layer = layers[l];
  const all = links(layer, h);
  const pin = scene.pinned();
  const other = scene.compared(l, h);
  const map = headMap(scene, layer, l, h, other);
  const reasons = make("div", { class: "ch-why", "aria-live": "polite" });
  const media = hasMedia(scene.raw, layer);
  const why = scene.ask && !media && (scene.raw.units ?? "tokens") === "tokens" ? (link) => explainLink(scene, reasons, l, h, link) : null;
  const lines = media ? mediaView(scene, layer, l, h) : tokenLines(scene, layer, why);
  const explain = (word) => explainWord(more, word);
  const alone = layers.length === 1 && layer.heads === 1;
  const name = alone ? layer.name : _("Layer %(layer)s, head %(head)s", { layer: l, head: h });
  const breadth = scene.scores.breadth?.values[l][h];
  panel.replaceChildren(
    make("header", { class: "ch-head" },
      make("h2", {}, name),
      make("span", { class: "ch-acts" },
        scene.raw.other ? make("button", { type: "button", "aria-pressed": String(pin === "other"), onclick: () => scene.pin(pin === "other" ? "" : "other") }, pin === "other" ? _("This model alone") : _("Minus %(model)s", { model: scene.raw.other.model })) : null,
        alone || pin === "other" ? null : make("button", { type: "button", onclick: () => scene.pin(pin ? "" : `${l}.${h}`) }, pin ? _("Unpin %(head)s", { head: pin.replace(".", "·") }) : _("Pin to compare")),
        make("button", { type: "button", class: "ch-close", onclick: close }, _("Close"))),
      make("p", { class: "ch-note" }, alone ? "" : `${layer.name} · `, _("breadth"), " ", number("breadth", breadth?.toFixed(2) ?? "–", explain)),
      other ? make("p", { class: "ch-less" }, `${other.said} `, divergence(scene, l, h, other, explain))
        : pin === "other" ? make("p", { class: "ch-less" }, _("%(model)s has no such head over as many tokens.", { model: scene.raw.other.model }))
          : pin ? make("p", { class: "ch-less" }, _("Pinned. Open another head to see the difference.")) : null),
    make("div", { class: "ch-pictures" }, map.element, lines.element), reasons);
  more.replaceChildren(numbersTable(layer, h, other), definitions(), ...((scene.raw.text || scene.raw.file) && !alone ? [howComputed(scene.raw, layer, h)] : []));
  const fill = (token, side, near, note = "") => {
    lines.show(token, side, near);
    list.replaceChildren(strongest(layer, token, side, near.slice(0, LIST), explain, note, why));
  };
  let latest = 0;
  return async (token, side) => {
    const turn = ++latest;
    map.mark(token, side);
    fill(token, side, token >= 0 ? linksOf(layer, h, token, side) : all);
    if (token < 0 || isDense(layer) || !scene.ask) return;
    const question = { kind: "links", layer: l, head: h, token, side };
    await inParts(scene.ask, question, () => turn === latest && list.isConnected, (parts, done, total) => {
      const best = parts.flatMap((part) => part.links).sort((a, b) => b[2] - a[2]).slice(0, MOST_LINKS);
      const note = done < total ? _("Looking through the queries: %(done)s of %(total)s.", { done, total }) : "";
      fill(token, side, best.map(([from, to, weight]) => ({ from, to, weight })), note);
    });
  };
}

/** Fill `box` with the parts of one link's logit. @param {any} scene @param {HTMLElement} box
 * @param {{from: number, to: number}} link */
async function explainLink(scene, box, l, h, { from, to }) {
  const name = `${from}.${to}`;
  box.dataset.link = name;
  box.replaceChildren(make("p", { class: "ch-note" }, _("Running the model once more over this text.")));
  const answer = await scene.ask({ kind: "why", layer: l, head: h, query: from, key: to });
  if (box.dataset.link !== name || !box.isConnected) return;
  const { rows, cols } = scene.layers[l];
  box.replaceChildren(answer?.why
    ? whyChart(answer.why, { from: rows.tokens[from], to: cols.tokens[to], head: _("Layer %(layer)s, head %(head)s", { layer: l, head: h }) })
    : make("p", { class: "ch-less" }, answer?.error ?? _("The studio does not answer. Try again.")));
  box.scrollIntoView({ block: "nearest" });
}

/** Ask, and tell of each answer; what takes long comes in parts, asked for as long as it is wanted.
 * @param {(question: any) => Promise<any>} ask @param {any} question @param {() => boolean} wanted
 * @param {(parts: any[], done: number, total: number) => void} tell */
async function inParts(ask, question, wanted, tell) {
  const first = await ask(question);
  if (!wanted() || !first || first.error) return;
  if (!first.parts) return tell([first], 1, 1);
  const parts = [];
  for (let part = 0; part < first.parts; part++) {
    tell(parts, part, first.parts);
    parts.push(await ask({ ...question, part: [part, first.parts] }));
    if (!wanted() || !parts[part] || parts[part].error) return;
  }
  tell(parts, first.parts, first.parts);
}

/** A number that leads to what it means. */
const number = (word, shown, explain) =>
  make("button", { type: "button", class: "ch-number", title: _("What is %(word)s?", { word: WORDS[word][0] }), onclick: () => explain(word) }, shown);

/** How differently the two heads attend, filled in once Python has answered. */
function divergence(scene, l, h, other, explain) {
  const line = make("span", { "aria-live": "polite" });
  const fill = (mean, most = []) => {
    const where = most.map(([query, value]) => `“${label(scene.layers[l].rows.tokens[query])}” ${nats(value)}`).join(", ");
    const [before, after] = (where ? _("KL divergence %(number)s nats per query, most at %(where)s.", { where }) : _("KL divergence %(number)s nats per query.")).split("%(number)s");
    line.replaceChildren(before, number("divergence", nats(mean), explain), after ?? "");
  };
  if (other.kl !== undefined) fill(other.kl);
  if (!scene.ask) return line;
  const question = { kind: "kl", layer: l, head: h, with: other.place, model: other.model };
  setTimeout(() => inParts(scene.ask, question, () => line.isConnected, (parts, done, total) => {
    if (done < total) {
      if (other.kl === undefined) line.textContent = _("KL divergence: %(done)s of %(total)s.", { done, total });
      return;
    }
    const large = (value) => value ?? Infinity;
    const queries = parts.reduce((sum, part) => sum + part.queries, 0);
    const mean = parts.reduce((sum, part) => sum + large(part.mean) * part.queries, 0) / queries;
    fill(mean, parts.flatMap((part) => part.most).sort((a, b) => large(b[1]) - large(a[1])).slice(0, MOST_TELLING));
  }));
  return line;
}

/** @param {number | null} value null: infinite */
const nats = (value) => (value === null || value === Infinity ? "∞" : value.toFixed(value < 0.1 ? 3 : 2));

function explainWord(more, word) {
  const entry = more.querySelector(`[data-word="${word}"]`);
  entry.closest("details").open = true;
  entry.focus();
  entry.scrollIntoView({ block: "nearest" });
}

function definitions() {
  const entries = Object.entries(WORDS).flatMap(([word, [name, text]]) => [make("dt", { "data-word": word, tabindex: "-1" }, name), make("dd", {}, text)]);
  return make("details", { class: "ch-words" }, make("summary", {}, _("What the words mean")), make("dl", {}, ...entries));
}

/** The program that gives the same numbers, with what it ran on, to copy. */
function howComputed(raw, layer, h) {
  const model = raw.loaded_by ? JSON.stringify(raw.loaded_by) : "";
  const inUnits = (raw.units ?? "tokens") !== "tokens";
  const text = JSON.stringify(raw.text);
  const file = JSON.stringify(raw.file ?? (raw.sound ? "sound.wav" : "picture.png"));
  const read = raw.sound ? `read_sound(capture.load(${model}), ${file}, ${text})`
    : raw.pictures?.length ? (raw.text ? `read_with_picture(capture.load(${model}), ${text}, ${file})` : `read_picture(capture.load(${model}), ${file})`)
      : `read(capture.load(${model}), ${text}${raw.target ? `, target=${JSON.stringify(raw.target)}` : ""})`;
  const program = [
    inUnits ? "from clearhead import capture, views" : "from clearhead import capture", "",
    `reading = capture.${read}`,
    ...(inUnits ? [`reading = views.grouping.grouped(reading, ${JSON.stringify(raw.units)})`] : []),
    `weights = reading.record[${JSON.stringify(layer.name)}]   # (1, heads, queries, keys), never stored`,
    `print(reading.tokens)`, `print(weights[0, ${h}])`,
  ].join("\n");
  const versions = Object.entries(raw.versions).map(([name, version]) => `${name} ${version}`).join(", ");
  const copy = make("button", { type: "button", class: "ch-copy", onclick: async () => {
    await navigator.clipboard.writeText(program);
    copy.textContent = _("Copied");
  } }, _("Copy"));
  return make("details", { class: "ch-how" }, make("summary", {}, _("How was this computed")),
    make("pre", { tabindex: "0" }, make("code", {}, program)),
    make("p", { class: "ch-note" }, _("%(versions)s; no random number is drawn.", { versions }), " ", copy));
}

function strongest(layer, token, side, near, explain, note, why) {
  const { rows, cols } = layer;
  const here = { token: label((side === "query" ? rows : cols).tokens[token], 24) };
  const title = token < 0 ? _("Strongest links of this head")
    : side === "query" ? _("“%(token)s” looks at", here) : _("“%(token)s” is looked at by", here);
  const query = (link) => make("span", { class: "ch-q", title: rows.tokens[link.from] }, label(rows.tokens[link.from]));
  const key = (link) => make("span", { class: "ch-k", title: cols.tokens[link.to] }, label(cols.tokens[link.to]));
  const pair = (link) => (token < 0 ? [query(link), "→", key(link), make("small", {}, `${rows.place(link.from)} → ${cols.place(link.to)}`)]
    : side === "query" ? [key(link), make("small", {}, String(cols.place(link.to)))] : [query(link), make("small", {}, String(rows.place(link.from)))]);
  const reason = (link, act) => make("button", { type: "button", class: "ch-asks", "aria-label": _("Why does “%(from)s” look at “%(to)s”?", { from: label(rows.tokens[link.from]), to: label(cols.tokens[link.to]) }), onclick: () => act(link) }, _("Why?"));
  const items = near.map((link) => make("li", {},
    make("span", { class: "ch-pair" }, ...pair(link)),
    make("span", { class: "ch-meter", "aria-hidden": "true" }, make("span", { style: { width: `${100 * Math.min(link.weight, 1)}%` } })),
    number("weight", say(link.weight), explain), why && reason(link, why)));
  const nothing = isDense(layer) ? _("No weight: this token is masked out here.") : _("No link of this token was kept in this page.");
  return make("div", {}, make("h3", {}, title), items.length ? make("ol", { class: why ? "ch-explained" : null }, ...items) : note ? null : make("p", { class: "ch-note" }, nothing),
    note ? make("p", { class: "ch-note" }, note) : null);
}

// ---- two lines of tokens -------------------------------------------------------------------------------------

/** A very long text shows a window of its tokens, moved by buttons or by pointing elsewhere. */
function tokenLines(scene, layer, why) {
  const { state, change } = scene;
  const { rows, cols } = layer;
  const [queries, keys] = layer.shape;
  const most = Math.max(queries, keys);
  const size = Math.min(most, WINDOW);
  let start = 0;
  const svg = make("svg:svg", {
    class: "ch-links", viewBox: `0 0 ${GAP} ${ROW * size}`, preserveAspectRatio: "none", style: { height: `${ROW * size}px` }, "aria-hidden": "true",
  });
  const box = make("div", { class: "ch-lines" });
  const where = make("small", { "aria-live": "polite" });
  const line = (side, count) => make("div", { class: `ch-line ch-line-${side}`, role: "group", "aria-label": side === "query" ? _("Queries") : _("Keys") },
    make("p", { class: `ch-${side[0]} ch-line-name` }, side === "query" ? _("queries") : _("keys")),
    ...Array.from({ length: Math.max(Math.min(size, count - start), 0) }, (_, i) => make("button", {
      type: "button", class: "ch-token", tabindex: i === 0 && side === "query" ? "0" : "-1", title: (side === "query" ? rows : cols).tokens[start + i], "data-side": side, "data-token": start + i,
    }, label((side === "query" ? rows : cols).tokens[start + i]))));
  const button = (side, token) => box.querySelector(`[data-side="${side}"][data-token="${token}"]`);
  function turn(to) {
    start = Math.min(Math.max(to, 0), most - size);
    where.textContent = _("tokens %(first)s–%(last)s of %(all)s", { first: start, last: start + size - 1, all: most });
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
  const pages = most > size ? make("div", { class: "ch-tools" }, page(_("Earlier"), -size / 2), page(_("Later"), size / 2), where) : null;
  const long = most > 48 ? " " + _("At rest, links of up to 16 tokens are drawn.") : "";
  let again = () => {};

  function show(token, side, near) {
    again = () => show(-1, side, near);
    if (token >= 0 && !button(side, token)) turn(token - size / 2);
    const drawn = (token < 0 ? resting(near, most) : near).filter((link) => link.weight * LINK_WIDTH > 0.1);
    const inSight = (place) => place >= start && place < start + size;
    svg.replaceChildren(...drawn.filter((link) => inSight(link.from) || inSight(link.to)).map((link) => curve(link, start, why)));
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
      make("figcaption", {}, _("A link's width is its weight. Point at a token, or walk with the arrow keys."), long)),
    show,
  };
}

function curve(link, start, why) {
  const [y, to, inset] = [(link.from - start + 0.5) * ROW, (link.to - start + 0.5) * ROW, 2];
  return make("svg:path", {
    ...(why ? { class: "ch-asked", onclick: () => why(link) } : {}),
    d: `M${inset} ${y}C${GAP / 2} ${y} ${GAP / 2} ${to} ${GAP - inset} ${to}`,
    "vector-effect": "non-scaling-stroke", "stroke-width": Math.max(LINK_WIDTH * link.weight, 0.2).toFixed(2),
  });
}

// ---- the same numbers as a table -----------------------------------------------------------------------------

/** Built when it is opened: a long text has many rows. */
function numbersTable(layer, h, other) {
  const box = make("details", { class: "ch-table" }, make("summary", {}, _("The same numbers as a table")));
  box.addEventListener("toggle", () => box.open && box.childElementCount === 1 && box.append(table(layer, h, other)));
  return box;
}

function table(layer, h, other) {
  const [queries, keys] = layer.shape;
  const full = isDense(layer) && keys <= 24;
  const most = Math.min(queries, 512);
  const heads = full ? layer.cols.tokens.slice(0, keys).map((token) => label(token)) : [_("strongest keys, with weights")];
  const value = (i, j) => (other ? saySigned(at(layer.map, h, i, j) - at(other.layer.map, other.head, i, j)) : say(at(layer.map, h, i, j)));
  const cells = (i) => (full
    ? Array.from({ length: keys }, (_, j) => (isMasked(layer.masked, layer.map.shape, i, j, h) ? "–" : value(i, j)))
    : [linksOf(layer, h, i, "query").slice(0, LIST).map((link) => `${label(layer.cols.tokens[link.to])} ${say(link.weight)}`).join(", ") || _("not kept")]);
  const rows = Array.from({ length: most }, (_, i) => make("tr", {},
    make("th", { scope: "row" }, `${layer.rows.place(i)} ${label(layer.rows.tokens[i])}`), ...cells(i).map((cell) => make("td", {}, cell))));
  const caption = most < queries ? _("Weights: rows are queries, columns are keys; the first %(most)s of %(queries)s queries", { most, queries })
    : other && full ? _("Weights minus the other head's: rows are queries, columns are keys") : _("Weights: rows are queries, columns are keys");
  return make("div", { class: "ch-scroll", tabindex: "0", role: "region", "aria-label": _("Weights") },
    make("table", {}, make("caption", {}, caption),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, _("query")), ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows)));
}
