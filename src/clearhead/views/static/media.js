// @ts-check
/** Words, patches and moments instead of lines of tokens: point at one on either side, and the other side shows where
 * its weight goes, over the picture, along the seconds and under the words. */
import { decode, isDense, label, roundUp, say, shade } from "./numbers.js";
import { make, scaleBar } from "./paint.js";
import { pictureBox } from "./patches.js";
import { soundStrip } from "./seconds.js";
import { _ } from "./words.js";

const LEAST_SHOWN = 0.0005; // a word with less weight shows no number
const MARGIN = 1.001; // weights are rounded to 16 bits

/** What an axis of a layer holds besides words: the payload's pictures and sound, if it runs along all of the input.
 * @param {any} raw @param {any} layer @param {"queries" | "keys"} side */
function mediaOf(raw, layer, side) {
  const axis = raw.axes?.[layer[side]];
  const isInput = !axis || (axis.sequence === "input" && !axis.tokens);
  return isInput ? { pictures: raw.pictures ?? [], sound: raw.sound ?? null } : { pictures: [], sound: null };
}

/** Whether a layer has a picture or a sound along one of its axes. @param {any} raw @param {any} layer */
export function hasMedia(raw, layer) {
  return ["queries", "keys"].some((side) => {
    const { pictures, sound } = mediaOf(raw, layer, /** @type {any} */ (side));
    return pictures.length > 0 || sound !== null;
  });
}

/** @param {any} scene @param {any} layer @param {number} l @param {number} h */
export function mediaView(scene, layer, l, h) {
  const { state, change } = scene;
  const scale = make("div");
  const sides = { query: half("query"), key: half("key") };
  const wordTop = layer.looks?.[h] ?? 0;
  const isHeard = [...sides.query.boxes, ...sides.key.boxes].length > 0 && scene.raw.sound;
  let turn = 0;

  /** One side, in the order of the text: its words, its pictures or its sound. */
  function half(name) {
    const tokens = (name === "query" ? layer.rows : layer.cols).tokens;
    const { pictures, sound } = mediaOf(scene.raw, layer, name === "query" ? "queries" : "keys");
    const here = () => (state().side === name ? state().token : -1);
    const point = (token) => (state().token !== token || state().side !== name) && change({ token, side: name });
    const boxes = sound ? [soundStrip(sound, name, here, point)] : pictures.map((picture) => pictureBox(picture, name, here, point));
    const chips = new Map();
    const said = make("p", { class: `ch-${name[0]} ch-line-name` });
    const parts = [];
    let words = null, last = null;
    for (let token = 0; token < tokens.length; token++) {
      const box = boxes.find((box) => box.holds(token));
      if (box) {
        if (box !== last) parts.push(box.element);
        [last, words] = [box, null];
        continue;
      }
      if (pictures.some(({ first, rows, cols, gap }) => gap && token > first && token < first + rows * (cols + gap) - gap)) continue; // ends a row
      if (!words) parts.push(words = make("p", { class: "ch-chips" }));
      const chip = make("button", { type: "button", class: `ch-chip ch-${name[0]}`, title: tokens[token], onclick: () => point(token) }, label(tokens[token], 24), make("small"));
      chips.set(token, chip);
      words.append(chip);
    }
    return { boxes, chips, said, element: make("div", { class: "ch-half" }, said, ...parts) };
  }

  function fill(token, side, values) {
    const [from, to] = side === "key" ? [sides.key, sides.query] : [sides.query, sides.key];
    const own = Math.max(0, ...to.boxes.map((box) => box.largest(values)));
    const isShared = side === "query" && own <= MARGIN * wordTop;
    const top = roundUp(isShared ? wordTop : own);
    for (const box of to.boxes) {
      box.mark(-1);
      box.paint(values, top, scene.colours());
    }
    for (const box of from.boxes) {
      box.paint(null, 1, scene.colours());
      box.mark(token);
    }
    to.element.classList.add("ch-told");
    from.element.classList.remove("ch-told");
    from.chips.forEach((chip, i) => write(chip, "", 0, i === token));
    to.chips.forEach((chip, i) => write(chip, values[i] < LEAST_SHOWN ? "" : say(values[i]), shade(values[i], 1), false));
    const said = side === "key" ? [_("queries: what looks at it"), _("keys: point at one")] : [_("queries: point at one"), _("keys: where it looks")];
    [sides.query.said.textContent, sides.key.said.textContent] = said;
    scale.replaceChildren(...(isShared || own > 0 ? [scaleBar(top, _("weight")), scaleNote(isShared)] : []));
  }

  /** On which scale the picture or the strip is coloured. */
  function scaleNote(isShared) {
    if (!isShared) return make("p", {}, _("This one has a scale of its own."));
    return make("p", {}, isHeard ? _("One scale for all words of this head: the most that a word gives to a moment is %(weight)s.", { weight: say(wordTop) })
      : _("One scale for all words of this head: the most that a word gives to a patch is %(weight)s.", { weight: say(wordTop) }));
  }

  function write(chip, weight, part, isHere) {
    chip.lastChild.textContent = weight;
    chip.style.setProperty("--part", String(part));
    chip.classList.toggle("ch-here", isHere);
  }

  async function show(token, side, near) {
    const now = ++turn;
    if (token < 0) {
      for (const { boxes, chips, element } of Object.values(sides)) {
        for (const box of boxes) {
          box.paint(null, 1, scene.colours());
          box.mark(-1);
        }
        chips.forEach((chip) => write(chip, "", 0, false));
        element.classList.remove("ch-told");
      }
      [sides.query.said.textContent, sides.key.said.textContent] = [_("queries: point at one"), _("keys: point at one")];
      return scale.replaceChildren();
    }
    const values = new Float32Array(layer.shape[side === "key" ? 0 : 1]);
    for (const link of near) values[side === "key" ? link.from : link.to] = link.weight;
    fill(token, side, values);
    if (isDense(layer) || !scene.ask) return;
    const reply = await scene.ask({ kind: "row", layer: l, head: h, token, side });
    if (!reply?.row || now !== turn) return;
    const block = decode(reply.row);
    fill(token, side, Float32Array.from(block.values, (value) => value * block.scale));
  }

  const few = isDense(layer) || scene.ask ? "" : " " + _("In this file the eight strongest of each query are kept.");
  const how = isHeard ? _("Point at a word or a moment, or walk the strip with the arrow keys: the other side is coloured by its weights.")
    : _("Point at a word or a patch, or walk the picture with the arrow keys: the other side is coloured by its weights.");
  return {
    element: make("figure", { class: isHeard ? "ch-linebox ch-patches ch-heard" : "ch-linebox ch-patches" }, make("div", { class: "ch-halves" }, sides.query.element, sides.key.element),
      make("figcaption", {}, scale, how, few)),
    show,
  };
}
