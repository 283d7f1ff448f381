// @ts-check
/** The heads of a model that writes: show the weights of one, switch it off, and see which matter for a token. */
import { make, scaleBar } from "/views/paint.js";
import { jsonLines } from "./lines.js";
import { post } from "./writing-request.js";
import { visible } from "./writing-text.js";
import { _ } from "./words.js";

const SHADES = 8;

/** @param {any} run @param {{look: (layer: number, head: number) => any, fork: (without: number[][]) => any,
 *   off: () => number[][], at: () => {layer: number, head: number}, matter: () => any}} acts */
export function headGrid(run, { look, fork, off, at, matter }) {
  /** @type {HTMLElement[][]} */
  const cells = Array.from({ length: run.layers }, (_layer, l) => Array.from({ length: run.heads }, (_head, h) => make("button", {
    type: "button", class: "write-cell", tabindex: l + h ? "-1" : "0", role: "gridcell", "aria-label": name(l, h), title: name(l, h),
    onclick: () => look(l, h), onkeydown: (event) => walk(event, l, h),
  })));
  const note = make("p", { class: "write-note", "aria-live": "polite" }, _("Layers down, heads across. Choose a head to look through it."));
  const toggle = make("button", { type: "button", hidden: true, onclick: () => {
    const { layer, head } = at();
    const others = off().filter(([l, h]) => l !== layer || h !== head);
    fork(others.length < off().length ? others : [...others, [layer, head]]);
  } });
  const all = make("button", { type: "button", class: "quiet", hidden: true, onclick: () => fork([]) }, _("Switch all on"));
  const rows = cells.map((row, l) => make("div", { role: "row", class: "write-row" }, make("span", { role: "rowheader" }, String(l)), ...row));
  const grid = make("div", { role: "grid", class: "write-grid", "aria-label": _("Heads") }, ...rows);
  const scale = make("div", { class: "ch" });
  const element = make("details", { class: "write-heads", open: true }, make("summary", {}, _("Heads")),
    make("div", { class: "row" }, make("button", { type: "button", onclick: matter }, _("Which heads matter here")), toggle, all), note, scale, grid);
  element.style.setProperty("--across", String(run.heads));

  function walk(event, l, h) {
    const [down, across] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] || [0, 0];
    const to = (down || across) && cells[l + down]?.[h + across];
    if (!to) return;
    event.preventDefault();
    cells[l][h].tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  function show() {
    const { layer, head } = at();
    const without = off();
    cells.forEach((row, l) => row.forEach((cell, h) => {
      cell.setAttribute("aria-selected", String(l === layer && (head < 0 || h === head)));
      cell.classList.toggle("write-off", without.some(([a, b]) => a === l && b === h));
    }));
    toggle.hidden = layer < 0 || head < 0;
    toggle.textContent = without.some(([l, h]) => l === layer && h === head) ? _("Switch %(head)s on", { head: `${layer}·${head}` }) : _("Switch %(head)s off", { head: `${layer}·${head}` });
    all.hidden = !without.length;
  }

  /** @param {{effects: number[][], token: string}} ablation how much the log probability changes without each head */
  function paint({ effects, token }) {
    const most = Math.max(...effects.flat().map(Math.abs), 1e-9);
    effects.forEach((row, l) => row.forEach((value, h) => {
      const shade = Math.round(SHADES * Math.sqrt(Math.abs(value) / most));
      cells[l][h].style.setProperty("background-color", `var(--${value < 0 ? "w" : "d"}${shade})`);
      const about = _("%(head)s: without it, the log probability changes by %(nats)s", { head: name(l, h), nats: value.toFixed(3) });
      cells[l][h].title = about;
      cells[l][h].setAttribute("aria-label", about);
    }));
    scale.replaceChildren(scaleBar(most, _("nats lost without it"), true));
    const best = effects.flatMap((row, l) => row.map((value, h) => ({ l, h, value }))).sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, 3);
    note.textContent = _("For “%(token)s” these matter most: %(heads)s (nats of log probability; blue: less likely without it).", {
      token: token.trim() || visible(token), heads: best.map(({ l, h, value }) => `${l}·${h} (${value.toFixed(2).replace("-", "−")})`).join(", ") });
  }

  return { element, show, paint };
}

/** What each head does to the token at a place. @param {any} run @param {any} request @param {number} place
 * @param {AbortSignal} signal @param {(at: any) => void} tell */
export async function effectsOf(run, request, place, signal, tell) {
  const written = request.written.slice(0, place - run.promptSize + 1);
  const reply = await post("/lens/write/heads", { ...request, written, without: [] }, signal);
  for await (const line of jsonLines(/** @type {any} */ (reply.body))) {
    if (line.error) throw new Error(line.error);
    if (line.effects) return { ...line, token: run.tokens[place] };
    tell(line);
  }
  throw new Error(_("The answer was interrupted. Try again."));
}

/** @param {number} layer @param {number} head */
const name = (layer, head) => _("Layer %(layer)s, head %(head)s", { layer, head });
