// A word of a sentence looks back: guess at what, then see what a head of the demo model does; change a word, and again.

import { replyFrom } from "./reply.js";
import { _ } from "./words.js";

const FEW = 0.03; // a weight below this is not written under its word

/** The place of the largest weight on another word than the one that looks. */
export function top(weights, at) {
  return weights.reduce((best, weight, place) => (place !== at && (best < 0 || weight > weights[best]) ? place : best), -1);
}

/** A weight with two places, or three where two would be 0.00. */
export const written = (weight) => weight.toFixed(3);

/** @param {HTMLElement} figure */
function start(figure) {
  const { text, token, change, to } = figure.dataset;
  const [asks, sentence, says, otherwise] = ["asks", "sentence", "says", "otherwise"].map((name) => figure.querySelector(`.${name}`));
  const [changes, again] = figure.querySelectorAll(".guess-row button");
  const question = asks.innerHTML, names = figure.querySelector("figcaption");
  let asked = text, before = null;

  const replies = new Map(); // address -> the reply, or a promise of it
  const look = (layer, head, of = asked) => {
    const address = `/look.json?${new URLSearchParams({ text: of, token, layer, head })}`;
    if (!replies.has(address)) replies.set(address, replyFrom(address));
    replies.get(address).catch(() => replies.delete(address));
    return replies.get(address);
  };

  function write(words, weights = null) {
    sentence.replaceChildren(...words.flatMap((word, place) => {
      const looks = word === token;
      const element = Object.assign(document.createElement(looks || weights ? "span" : "button"), { className: `word${looks ? " q" : ""}`, textContent: word });
      if (element.matches("button")) {
        element.type = "button";
        element.addEventListener("click", () => guess(place));
      }
      if (weights) {
        const step = Math.round(weights[place] * 8);
        element.classList.add(`heat-${step}`);
        if (weights[place] >= FEW) element.append(Object.assign(document.createElement("small"), { textContent: written(weights[place]) }));
        if (word === to && asked !== text) element.classList.add("changed");
      }
      return [element, " "];
    }));
  }

  const line = (sentenceText) => Object.assign(document.createElement("p"), { textContent: sentenceText });

  async function guess(place) {
    const words = asked.split(/\s+/);
    const yours = words[place];
    says.replaceChildren(line(_("You said “%(word)s”. The model reads …", { word: yours })));
    try {
      const { weights, at } = await look(figure.dataset.layer, figure.dataset.head);
      const best = top(weights, at), word = words[best];
      write(words, weights);
      names.hidden = false; // which head it was, told once it has answered
      const values = { word, weight: written(weights[best]), token, yours, other: written(weights[place]) };
      const agreed = best === place;
      const lines = [agreed
        ? _("A trained model says so too. One small part of it, a head, puts %(weight)s of the attention of “%(token)s” on “%(word)s”.", values)
        : _("You said “%(yours)s”. One small part of a trained model, a head, puts %(weight)s of the attention of “%(token)s” on “%(word)s”, and %(other)s on yours.", values)];
      if (asked === text) before = { word, weight: weights[best] };
      else lines.push(...await compared(word, weights[best]));
      says.replaceChildren(...lines.map(line));
      changes.hidden = !change || asked !== text;
      again.hidden = asked === text;
      if (!changes.hidden) changes.focus({ preventScroll: true });
    } catch (problem) {
      says.replaceChildren(line(problem.message));
      otherwise.hidden = false;
      write(words);
    }
  }

  /** What the change did to this head, and to another one. */
  async function compared(word, weight) {
    const values = { word, was: before.word, first: written(before.weight), then: written(weight) };
    const lines = [word === before.word
      ? _("It held on to “%(word)s”: %(first)s before, %(then)s now. One head does not read for sense.", values)
      : _("It changed its mind: “%(was)s” (%(first)s) before, “%(word)s” (%(then)s) now.", values)];
    if (!figure.dataset.other) return lines;
    const [layer, head] = figure.dataset.other.split(" ");
    const [was, now] = await Promise.all([look(layer, head, text), look(layer, head)]);
    // Among the two words that this is about: where the head looked before, and where it gained most.
    const gained = now.weights.map((weight, place) => (place === now.at || now.words[place] === to ? -1 : weight - was.weights[place]));
    const place = gained.indexOf(Math.max(...gained));
    const old = was.words.indexOf(before.word);
    const shown = { layer, head, word: now.words[place], first: written(was.weights[place]), then: written(now.weights[place]), was: before.word, second: written(was.weights[old]), last: written(now.weights[old]) };
    if (place !== old && was.weights[old] > was.weights[place] && now.weights[place] > now.weights[old]) {
      lines.push(_("Head %(head)s of layer %(layer)s let go: “%(was)s” fell from %(second)s to %(last)s, and “%(word)s” rose from %(first)s to %(then)s.", shown));
    } else if (place !== old) lines.push(_("In head %(head)s of layer %(layer)s “%(word)s” went from %(first)s to %(then)s, and “%(was)s” from %(second)s to %(last)s.", shown));
    return lines;
  }

  function put(of, html) {
    asked = of;
    asks.innerHTML = html;
    says.replaceChildren();
    changes.hidden = again.hidden = otherwise.hidden = names.hidden = true;
    write(of.split(/\s+/));
  }

  changes.addEventListener("click", () => {
    put(text.split(/\s+/).map((word) => (word === change ? to : word)).join(" "), question);
    says.replaceChildren(line(_("Now it says “%(word)s”. What will the head look at? Pick a word.", { word: to })));
    sentence.querySelector("button")?.focus({ preventScroll: true });
  });
  again.addEventListener("click", () => put(text, question));
  put(text, question);
  look(figure.dataset.layer, figure.dataset.head).catch(() => {}); // the model is loaded while somebody reads
}

if (typeof document !== "undefined") {
  for (const figure of document.querySelectorAll("figure.guess")) start(figure);
}
