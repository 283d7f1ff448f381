// @ts-check
/** A text that a model writes: its tokens, the weights of each step, and tokens grouped into words or lines. */

/** @typedef {{id: number, p: number, candidates: [number, string, number][], row: {values: any, scale: number}}} Step */

/** One text: the prompt's tokens, and those after it with the step that wrote each. */
export class Run {
  /** @param {string} prompt @param {string} model @param {boolean} chat @param {number[][]} without */
  constructor(prompt, model, chat, without) {
    Object.assign(this, { prompt, model, chat, without });
    this.without = without;
    this.layers = this.heads = this.promptSize = 0;
    this.name = model;
    this.note = null;
    /** @type {string[]} */ this.tokens = [];
    /** @type {number[]} */ this.ids = [];
    /** @type {boolean[]} */ this.special = [];
    /** @type {Step[]} */ this.made = [];
    /** @type {{values: any, scale: number, shape: number[]} | null} the weights of one layer or head, a row a step */
    this.rows = null;
  }

  /** The tokens after the prompt, as the studio knows them. */
  written() { return this.ids.slice(this.promptSize); }

  /** @param {any} start */
  begin(start) {
    Object.assign(this, { layers: start.layers, heads: start.heads, promptSize: start.prompt, name: start.model, note: start.note });
    this.tokens = start.tokens;
    this.ids = start.ids;
    this.special = start.special;
  }

  /** @param {any} token with its row unpacked */
  add(token) {
    for (const [place, name] of Object.entries(token.names)) this.tokens[Number(place)] = /** @type {string} */ (name);
    this.ids[token.place] = token.id;
    this.special[token.place] = token.special;
    this.made[token.place - this.promptSize] = { id: token.id, p: token.p, candidates: token.candidates, row: token.row };
    this.rows = null;
  }

  /** Drop what was written from a place on. @param {number} place */
  cut(place) {
    const size = Math.max(place, this.promptSize);
    this.tokens.length = this.ids.length = this.special.length = size;
    this.made.length = size - this.promptSize;
    this.rows = null;
  }

  /** Put a token at the end, written by the step that offered it. @param {number} id @param {string} name */
  put(id, name) {
    this.ids.push(id);
    this.tokens.push(name);
    this.special.push(false);
  }

  /** The text of some tokens; the parts of one character are that character. @param {number[]} places */
  text(places) {
    return places.map((place) => this.tokens[place]).join("").replace(/(.)\[1\/(\d)\](?:\1\[\d\/\2\])+/gu, "$1");
  }

  /** The weight from the step that wrote the token at `place` to an earlier token. */
  weight(place, to) {
    const step = place - this.promptSize;
    if (this.rows) {
      const [count, size] = this.rows.shape;
      return step < count && to < size ? this.rows.values[step * size + to] * this.rows.scale : 0;
    }
    const row = this.made[step]?.row;
    return row && to < row.values.length ? row.values[to] * row.scale : 0;
  }
}

/** The places of a text in groups: each token, the tokens of each word, or of each line. The prompt and the answer, and
 * special tokens, are never put together. @param {Run} run @param {string} unit @returns {number[][]} */
export function groups(run, unit) {
  /** @type {number[][]} */
  const grouped = [];
  run.tokens.forEach((name, place) => {
    const last = grouped[grouped.length - 1];
    const before = last ? run.text(last) : "";
    const apart = !last || place === run.promptSize || run.special[place] || run.special[place - 1] || unit === "tokens"
      || (unit === "words" ? /^\s/.test(name) || /\S\s+$/.test(before) : before.includes("\n"));
    if (apart) grouped.push([place]);
    else last.push(place);
  });
  return grouped;
}

/** What a group was written from, strongest first: the sum over the tokens of the other group, the mean over its own.
 * @param {Run} run @param {number[]} group @param {number[][]} all @param {boolean} first whether token 0 counts
 * @returns {{to: number[], weight: number}[]} */
export function weightsOf(run, group, all, first) {
  const steps = group.filter((place) => place >= run.promptSize && (run.made[place - run.promptSize] || run.rows));
  if (!steps.length) return [];
  return all.filter((to) => to[0] <= group[group.length - 1] && (first || to[0] > 0))
    .map((to) => ({ to, weight: steps.reduce((sum, place) => sum + to.reduce((part, key) => part + (key < place ? run.weight(place, key) : 0), 0), 0) / steps.length }))
    .filter(({ weight }) => weight > 0)
    .sort((a, b) => b.weight - a.weight);
}

/** The link with the most weight between two groups: the place of the step's token, and of the one it looked at.
 * @param {Run} run @param {number[]} group @param {number[]} to */
export function strongestPair(run, group, to) {
  const pairs = group.filter((place) => place >= run.promptSize).flatMap((place) => to.filter((key) => key < place).map((key) => ({ place, key, weight: run.weight(place, key) })));
  return pairs.reduce((best, pair) => (pair.weight > best.weight ? pair : best));
}

/** How much a step looked back: at other tokens than the first and the query itself. @param {Run} run @param {number} place */
export function lookedBack(run, place) {
  if (!run.made[place - run.promptSize] && !run.rows) return 0;
  return Math.max(0, 1 - run.weight(place, 0) - (place > 1 ? run.weight(place, place - 1) : 0));
}

/** Spaces at the ends, and line ends, as signs. @param {string} name */
export const visible = (name) => name.replaceAll("\n", "⏎").replace(/^ | $/g, "␣") || "∅";
