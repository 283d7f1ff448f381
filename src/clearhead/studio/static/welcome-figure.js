// The picture on the first page: turn the query and see the weights of exactly that attention.

import { _ } from "./words.js";

/** The five keys, in degrees; learn/welcome_figure.py draws the first state from the same list. */
export const ANGLES = [18, 85, 160, 232, 305];
const CENTRE = { x: 200, y: 165 };
const REACH = 18; // pixels of the arrow for one unit of the query's length

/**
 * Softmax of q·k/√2 over the five unit keys.
 * @param {number} turn direction of the query, degrees
 * @param {number} length of the query
 * @returns {number[]} five weights that add up to 1
 */
export function weights(turn, length) {
  const logits = ANGLES.map((angle) => (length * Math.cos(((turn - angle) * Math.PI) / 180)) / Math.SQRT2);
  const top = Math.max(...logits);
  const parts = logits.map((logit) => Math.exp(logit - top));
  const sum = parts.reduce((a, b) => a + b);
  return parts.map((part) => part / sum);
}

/** @param {HTMLElement} figure */
function start(figure) {
  const svg = figure.querySelector("svg");
  const links = [...svg.querySelectorAll(".link")];
  const numbers = [...svg.querySelectorAll(".number")];
  const arrow = svg.querySelector(".query");
  const handle = svg.querySelector(".handle");
  const turn = figure.querySelector("#turn");
  const length = figure.querySelector("#length");

  function draw() {
    const angle = (turn.valueAsNumber * Math.PI) / 180;
    const x = CENTRE.x + REACH * length.valueAsNumber * Math.cos(angle);
    const y = CENTRE.y - REACH * length.valueAsNumber * Math.sin(angle);
    arrow.setAttribute("x2", x);
    arrow.setAttribute("y2", y);
    handle.setAttribute("cx", x);
    handle.setAttribute("cy", y);
    weights(turn.valueAsNumber, length.valueAsNumber).forEach((weight, i) => {
      links[i].setAttribute("stroke-width", 1 + 15 * weight);
      links[i].setAttribute("stroke", `var(--w${Math.max(1, Math.round(weight * 8))})`);
      numbers[i].textContent = weight.toFixed(2);
    });
    const all = numbers.map((n) => n.textContent).join(", ");
    turn.setAttribute("aria-valuetext", _("%(angle)s degrees; weights %(weights)s", { angle: Math.round(turn.valueAsNumber), weights: all }));
  }

  /** @param {PointerEvent} event */
  function drag(event) {
    if (event.type === "pointermove" && !svg.hasPointerCapture(event.pointerId)) return;
    event.preventDefault(); // no text is selected on the way
    if (event.type === "pointerdown") svg.setPointerCapture(event.pointerId);
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const [dx, dy] = [at.x - CENTRE.x, CENTRE.y - at.y];
    turn.valueAsNumber = (Math.atan2(dy, dx) * 180) / Math.PI + (dy < 0 ? 360 : 0);
    length.valueAsNumber = Math.hypot(dx, dy) / REACH;
    draw();
  }

  for (const slider of [turn, length]) slider.addEventListener("input", draw);
  for (const kind of ["pointerdown", "pointermove"]) svg.addEventListener(kind, drag);
  draw();
}

if (typeof document !== "undefined") {
  const figure = document.getElementById("welcome-figure");
  if (figure) start(figure);
}
