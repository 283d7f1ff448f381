// @ts-check
/** The sound of a side, along a time axis: its moments are pointed at, marked, or coloured by weights. */
import { roundUp } from "./numbers.js";
import { make } from "./paint.js";
import { partAt, pointing, veil } from "./patches.js";
import { _ } from "./words.js";

const COLUMNS = 512; // of the coloured strip, at most: each shows the largest weight of its frames
const TICKS = 4;
const FAR = 10; // frames that an arrow up or down moves

/** A moment, in as many digits as its steps need. */
const inSeconds = (value) => _("%(seconds)s s", { seconds: String(Number(value.toFixed(2))) });

/** @param {{seconds: number, duration: number, heard: number, wave: number[]}} sound @param {string} side
 * @param {() => number} here @param {(token: number) => void} point */
export function soundStrip(sound, side, here, point) {
  const { seconds, heard, wave } = sound;
  const columns = Math.min(heard, COLUMNS);
  const over = make("canvas", { width: columns, height: 1, class: "ch-over" });
  const mark = make("div", { class: "ch-mark ch-moment", hidden: true });
  const loudest = Math.max(...wave, 1e-6);
  const line = wave.map((peak, i) => `M${i + 0.5} ${50 - 46 * (peak / loudest)}V${50 + 46 * (peak / loudest)}`).join("");
  const box = make("div", { class: "ch-sound", tabindex: "0", role: "group", "aria-label": side === "query" ? _("Moments of the sound as queries; arrow keys move") : _("Moments of the sound as keys; arrow keys move") },
    over, make("svg:svg", { viewBox: `0 0 ${wave.length} 100`, preserveAspectRatio: "none", "aria-hidden": "true" }, make("svg:path", { d: line, "vector-effect": "non-scaling-stroke" })), mark);
  const step = roundUp((heard * seconds) / TICKS);
  const ticks = Array.from({ length: Math.floor((heard * seconds) / step + 1e-6) + 1 }, (_, i) => i * step);
  const axis = make("div", { class: "ch-ticks" }, ...ticks.map((tick) => make("span", { style: { left: `${(100 * tick) / (heard * seconds)}%` } }, inSeconds(tick))));
  const said = make("p", { class: "ch-note", "aria-live": "polite" });
  pointing(box, (event) => {
    const place = box.getBoundingClientRect();
    return partAt(event.clientX - place.left, place.width, heard);
  }, point, (key) => {
    const by = { ArrowUp: -FAR, ArrowDown: FAR, ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0;
    const now = here();
    return Math.min(Math.max(now < 0 ? 0 : now + by, 0), heard - 1);
  });
  return {
    element: make("div", { class: "ch-strip" }, box, axis, said),
    holds: (token) => token >= 0,
    /** @param {Float32Array} values by token */
    largest: (values) => values.subarray(0, heard).reduce((most, value) => Math.max(most, value), 0),
    /** @param {Float32Array | null} values by token */
    paint(values, top, colours) {
      const columnsOf = Array.from({ length: columns }, (_, i) => {
        const frames = values?.slice(Math.floor((i * heard) / columns), Math.max(Math.ceil(((i + 1) * heard) / columns), 1));
        return frames ? Math.max(...frames) : undefined;
      });
      veil(over, columnsOf, top, colours);
      const after = values?.slice(heard).reduce((sum, weight) => sum + weight, 0) ?? 0;
      said.textContent = values && heard < values.length ? _("%(weight)s of the weight is on the silence after the sound.", { weight: after.toFixed(2) }) : "";
    },
    mark(token) {
      mark.hidden = token < 0 || token >= heard;
      mark.style.setProperty("left", `${(100 * token) / heard}%`);
      mark.style.setProperty("width", `${100 / heard}%`);
      if (token >= 0) said.textContent = _("%(from)s to %(to)s", { from: inSeconds(token * seconds), to: inSeconds((token + 1) * seconds) });
    },
  };
}
