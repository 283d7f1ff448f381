// @ts-check
/** The Lens that writes: a prompt, its answer token by token, and what each token was written from. */
import { decode } from "/views/numbers.js";
import { make } from "/views/paint.js";
import { forget } from "./drafts.js";
import { jsonLines } from "./lines.js";
import { post, wait } from "./writing-request.js";
import { groups, Run, strongestPair, visible, weightsOf } from "./writing-text.js";
import { _ } from "./words.js";

/** @param {string} id @returns {any} */
const get = (id) => document.getElementById(id);
const form = get("write-form");
const fields = { prompt: get("write-prompt"), model: get("write-model"), chat: get("write-chat"), count: get("write-count") };
const says = get("write-says");
const view = get("write-view");
const UNITS = { tokens: _("tokens"), words: _("words"), lines: _("lines") };
const LIST = 8;

let asked = new AbortController();
/** What is shown: the runs (the answer, and beside it the one without some heads), and how they are looked at. */
const state = { runs: /** @type {Run[]} */ ([]), unit: "tokens", layer: -1, head: -1, place: -1, first: true, ended: "" };
/** @type {any} the parts of the page, made once */
let parts = null;

/** @param {string} message @param {boolean} [wrong] */
function say(message, wrong = false) {
  says.hidden = !message;
  says.textContent = message;
  says.classList.toggle("wrong", wrong);
}

const ENDS = {
  done: _("The model has ended its text."), full: _("There is no room for more tokens."),
  time: _("Stopped after a minute. Go on for more."), count: "",
};

/** What a request says of a text. @param {Run} run */
const request = (run) => ({ prompt: run.prompt, model: run.model, chat: run.chat, written: run.written(), without: run.without });

/** Let the model go on with a run. @param {Run} run @param {string} typed @param {AbortSignal} signal */
async function write(run, typed, signal) {
  const reply = await post("/lens/write", { ...request(run), typed, count: Number(fields.count.value) || 48 }, signal);
  if (!reply.ok) throw new Error((await reply.json()).error || _("The studio refused this. Reload the page."));
  let answered = false;
  for await (const line of jsonLines(/** @type {any} */ (reply.body))) {
    if (line.error) throw new Error(line.error);
    if (line.start) {
      run.begin(line.start);
      if (!parts) await build();
      signal.throwIfAborted();
    } else if (line.token) run.add({ ...line.token, row: decode(line.token.row) });
    else if (line.doing) progress(line);
    if (line.start) parts.why.clear();
    if (line.start || line.token) {
      say(run.note || "");
      show();
    }
    if ("end" in line) [answered, state.ended] = [true, line.end];
  }
  if (!answered) throw new Error(_("The answer was interrupted. Press Go on."));
}

/** @param {{doing: string, done: number, total: number}} at */
function progress({ doing, done, total }) {
  const words = {
    waiting: _("Waiting for another text to be read."), loading: _("Loading the model, a few seconds."), writing: "",
    why: _("Running the model once more over this text."),
    reading: total ? _("Reading: layer %(done)s of %(total)s.", { done, total }) : _("Reading."),
    heads: _("Switching off each head in turn: %(done)s of %(total)s.", { done, total }),
  };
  if (words[doing]) say(words[doing]);
}

/** Do some work that can be stopped, and say what went wrong. @param {(signal: AbortSignal) => Promise<void>} work */
async function busy(work) {
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  wait(view, get("write-stop"), true);
  const slow = setTimeout(() => says.hidden && say(_("Asking the model.")), 300);
  try {
    await work(signal);
    if (!signal.aborted) say(state.runs[0]?.note || ENDS[state.ended] || "");
  } catch (problem) {
    if (asked.signal !== signal) return;
    if (signal.aborted) say(_("Stopped. Go on when you like."));
    else if (problem instanceof TypeError) say(_("The studio does not answer. Start it again with `make studio`, then reload this page."), true);
    else say(/** @type {Error} */ (problem).message, true);
  } finally {
    clearTimeout(slow);
    if (asked.signal === signal) {
      wait(view, get("write-stop"), false);
      if (parts) show();
    }
  }
}

/** Start again from the form. */
function start() {
  state.runs = [new Run(fields.prompt.value.trim(), fields.model.value.trim(), fields.chat.checked, [])];
  Object.assign(state, { place: -1, layer: -1, head: -1, ended: "" });
  parts = null;
  view.hidden = true;
  view.replaceChildren();
  return busy((signal) => write(state.runs[0], "", signal));
}

/** Go on, in each run in turn. @param {string} [typed] */
const goOn = (typed = "") => busy(async (signal) => {
  for (const run of state.runs) {
    await write(run, typed, signal);
    await weightsAgain(run, signal);
  }
});

/** Put another token (or any text) in a place, and go on from there.
 * @param {number} place @param {number | null} id @param {string} name */
function change(place, id, name) {
  const run = state.runs[0];
  state.runs = [run];
  run.cut(place);
  if (id !== null) run.put(id, name);
  state.place = -1;
  return goOn(id === null ? name : "");
}

/** Write the same once more beside it, without some heads. @param {number[][]} without */
function fork(without) {
  const run = state.runs[0];
  state.runs = [run];
  if (!without.length) return show();
  const other = new Run(run.prompt, run.model, run.chat, without);
  state.runs.push(other);
  return busy(async (signal) => {
    await write(other, "", signal);
    await weightsAgain(other, signal);
  });
}

/** Fetch the weights of the chosen layer or head for a run. @param {Run} run @param {AbortSignal} signal */
async function weightsAgain(run, signal) {
  run.rows = null;
  if (state.layer < 0 || !run.made.length) return;
  const reply = await post("/lens/write/rows", { ...request(run), layer: state.layer, head: state.head < 0 ? null : state.head }, signal);
  for await (const line of jsonLines(/** @type {any} */ (reply.body))) {
    if (line.error) throw new Error(line.error);
    if (line.rows) run.rows = decode(line.rows);
    else if (line.doing) progress(line);
  }
}

/** Look through a layer, a head, or all of them. @param {number} layer @param {number} head */
function through(layer, head) {
  Object.assign(state, { layer, head: layer < 0 ? -1 : head });
  return busy(async (signal) => {
    for (const run of state.runs) await weightsAgain(run, signal);
  });
}

/** Which heads matter for the token that is pointed at, or the last. */
const matter = () => busy(async (signal) => {
  const run = state.runs[0];
  const place = state.place >= run.promptSize ? state.place : run.tokens.length - 1;
  parts.grid.paint(await parts.effectsOf(run, request(run), place, signal, progress));
});

// ---- the page --------------------------------------------------------------------------------------------------

/** The parts of the page that stay while the text changes. What only an answer needs is fetched with the first one. */
async function build() {
  const run = state.runs[0];
  const [{ effectsOf, headGrid }, { whyView }, { saveLine }, { textView }] = await Promise.all([
    import("./writing-heads.js"), import("./writing-why.js"), import("./writing-save.js"), import("./writing-view.js"),
  ]);
  if (run !== state.runs[0]) return; // another text was begun meanwhile
  const unit = make("select", { id: "write-unit", onchange: () => { state.unit = unit.value; show(); } },
    ...Object.entries(UNITS).map(([value, name]) => make("option", { value }, name)));
  const options = (count, all) => [make("option", { value: "-1" }, all), ...Array.from({ length: count }, (_none, i) => make("option", { value: i }, String(i)))];
  const layer = make("select", { onchange: () => through(Number(layer.value), -1) }, ...options(run.layers, _("all")));
  const head = make("select", { onchange: () => through(state.layer, Number(head.value)) }, ...options(run.heads, _("all")));
  const first = make("input", { type: "checkbox", checked: true, onchange: () => { state.first = first.checked; show(); } });
  const more = make("button", { type: "button", onclick: () => goOn() }, _("Go on"));
  const grid = headGrid(run, { look: through, fork, off: () => state.runs[1]?.without || [], at: () => state, matter });
  const why = whyView({ busy, progress, request, at: () => state });
  const texts = make("div", { class: "write-texts" });
  const lens = make("a", { class: "button" }, _("Every head of this text"));
  const saves = saveLine(() => state.runs, () => texts.querySelector(".write-paper"), "parquet" in view.dataset ? { busy, progress, request, at: () => state } : null);
  const aside = make("aside", { class: "write-aside", "aria-live": "polite", "aria-label": _("The token pointed at") });
  const field = (name, control) => make("label", { class: "write-field" }, name, " ", control);
  view.hidden = false;
  view.replaceChildren(
    make("div", { class: "write-tools" }, field(_("Units"), unit), field(_("Layer"), layer), field(_("Head"), head),
      make("label", { class: "write-field" }, first, " ", _("the first token, where heads rest"))),
    make("div", { class: "write-body" }, make("div", {}, texts, make("div", { class: "row" }, more, lens), saves), aside),
    why.element, grid.element);
  parts = { unit, layer, head, first, more, grid, texts, aside, why, lens, effectsOf, textView, views: [] };
}

/** Draw what is there. */
function show() {
  if (!parts) return;
  parts.layer.value = String(state.layer);
  parts.head.value = String(state.head);
  parts.head.disabled = state.layer < 0;
  parts.more.hidden = state.ended === "full";
  parts.texts.classList.toggle("write-two", state.runs.length > 1);
  while (parts.views.length > state.runs.length) parts.views.pop().element.remove();
  while (parts.views.length < state.runs.length) {
    const made = parts.textView((place) => { state.place = place; point(); }, (run, from, to) => parts.why.ask(run, strongestPair(run, from, to)));
    parts.views.push(made);
    parts.texts.append(made.element);
  }
  parts.lens.href = lensAddress(state.runs[0]);
  state.runs.forEach((run, i) => parts.views[i].draw(run, groups(run, state.unit), title(run), state));
  parts.grid.show();
  point();
}

/** The Lens over the text so far. @param {Run} run */
function lensAddress(run) {
  const answer = run.text(run.written().map((_id, i) => run.promptSize + i));
  const text = run.chat ? run.text(run.tokens.map((_name, i) => i)) : run.prompt + answer;
  return `/lens?${new URLSearchParams({ text: text.slice(0, 4000), model: run.model })}`;
}

const title = (run) => (run.without.length ? _("Without %(heads)s", { heads: run.without.map(([l, h]) => `${l}·${h}`).join(", ") })
  : state.runs.length > 1 ? _("With every head") : run.name);

/** Draw the links of the token that is pointed at, and list what it was written from. */
function point() {
  state.runs.forEach((run, i) => parts.views[i].point(run, state));
  const run = state.runs[0];
  const group = groups(run, state.unit).find((some) => some.includes(state.place));
  if (!group || group[group.length - 1] < run.promptSize) {
    parts.aside.replaceChildren(make("p", { class: "muted" }, _("Point at a word of the answer, or walk with the arrow keys, to see what it was written from.")));
    return;
  }
  const near = weightsOf(run, group, groups(run, state.unit), state.first);
  const seen = run.made.length ? run.text(group) : "";
  const list = near.slice(0, LIST).map(({ to, weight }) => make("li", {}, make("span", { class: "ch-pair" }, make("span", { class: "ch-k" }, visible(run.text(to)))),
    make("span", { class: "ch-meter", "aria-hidden": "true" }, make("span", { style: { width: `${100 * Math.min(weight, 1)}%` } })), make("span", { class: "write-number" }, weight.toFixed(3)),
    make("button", { type: "button", class: "write-why", "aria-label": _("Why was “%(from)s” written from “%(to)s”?", { from: visible(seen), to: visible(run.text(to)) }), onclick: () => parts.why.ask(run, strongestPair(run, group, to)) }, _("Why?"))));
  const through = state.layer < 0 ? _("mean over all heads") : state.head < 0 ? _("mean over layer %(layer)s", { layer: state.layer }) : _("layer %(layer)s, head %(head)s", { layer: state.layer, head: state.head });
  parts.aside.replaceChildren(
    make("h3", {}, _("“%(token)s” was written from", { token: visible(seen) })),
    make("p", { class: "write-note" }, _("%(through)s; the query is the token before it", { through })),
    make("ol", { class: "write-list" }, ...list),
    ...candidates(group.find((place) => place >= run.promptSize) ?? -1));
}

/** The candidates of a place, beside those of the other run. @param {number} place */
function candidates(place) {
  const [run, other] = state.runs;
  const step = run.made[place - run.promptSize];
  if (!step) return [];
  const beside = other?.made[place - run.promptSize];
  const same = beside && other.ids.slice(run.promptSize, place).join() === run.ids.slice(run.promptSize, place).join();
  const chance = (id) => { const known = same && beside.candidates.find(([number]) => number === id); return known ? known[2].toFixed(3) : "–"; };
  const rows = step.candidates.map(([id, name, p]) => make("tr", {},
    make("th", { scope: "row" }, make("button", { type: "button", class: "write-candidate", "aria-pressed": String(id === step.id), title: _("Go on from this one"), onclick: () => change(place, id, name) }, visible(name))),
    make("td", {}, p.toFixed(3)), ...(same ? [make("td", {}, chance(id))] : [])));
  const box = make("input", { type: "text", "aria-label": _("Another text here"), spellcheck: "false", maxlength: "500" });
  const edit = make("form", { class: "write-edit", onsubmit: (event) => { event.preventDefault(); if (box.value) change(place, null, box.value); } },
    box, make("button", {}, _("Go on from this")));
  const head = same ? [make("thead", {}, make("tr", {}, make("td", {}), make("th", { scope: "col" }, _("with")), make("th", { scope: "col" }, _("without"))))] : [];
  return [make("h3", {}, _("Candidates")), make("table", { class: "write-candidates" }, ...head, make("tbody", {}, ...rows)), edit];
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  forget(form);
  const address = new URLSearchParams({ prompt: fields.prompt.value, model: fields.model.value, ...(fields.chat.checked ? { chat: "1" } : {}), count: fields.count.value });
  if (String(address).length < 8000) history.pushState(null, "", `/lens/write?${address}`);
  start();
});
fields.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
get("write-stop").addEventListener("click", () => asked.abort());
window.addEventListener("popstate", () => location.reload());

/** Say how far the chat model's download is, as long as it takes. */
async function followDownload() {
  const line = get("write-fetch");
  for (;;) {
    const { chat } = await (await fetch("/lens/models")).json();
    line.hidden = chat.here || !chat.doing;
    const [done, total] = [chat.done >> 20, chat.total >> 20];
    line.textContent = chat.doing === "fetching" ? _("The chat model is being fetched: %(done)s of %(total)s MB.", { done, total })
      : chat.doing === "converting" ? _("The chat model is here and is being prepared, a minute.") : chat.error || "";
    if (chat.here && !line.dataset.seen) return;
    if (chat.here) { line.hidden = false; line.textContent = _("The chat model is ready. Reload the page to write with it."); return; }
    if (!chat.doing || chat.doing === "failed") return;
    line.dataset.seen = "1";
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}
followDownload().catch(() => {});
if (new URLSearchParams(location.search).has("prompt")) start();
