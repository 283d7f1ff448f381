// @ts-check
/** Helpers that draw: elements, colours and small canvases. */
import { isMasked, shade } from "./numbers.js";
import { _ } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const SHADES = 9; // --w0 … --w8

/** Make an element; a tag "svg:path" makes an SVG one. @param {string} tag @param {Record<string, any>} [props]
 * @param {...(Node | string | null)} children @returns {any} */
export function make(tag, props = {}, ...children) {
  const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    // By property, not as an attribute: a page may forbid style attributes.
    else if (name === "style") for (const [key, to] of Object.entries(value)) /** @type {any} */ (element).style.setProperty(key, to);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(.../** @type {any[]} */ (children.filter((child) => child !== null)));
  return element;
}

/** 256 colours from --w0 … --w8 (or --d0 … --d8: less than another head), as the page's theme has them now.
 * @param {Element} el @param {string} [ramp] */
export function palette(el, ramp = "w") {
  const style = getComputedStyle(el);
  const context = make("canvas", { width: SHADES, height: 1 }).getContext("2d", { willReadFrequently: true });
  for (let i = 0; i < SHADES; i++) {
    context.fillStyle = style.getPropertyValue(`--${ramp}${i}`).trim();
    context.fillRect(i, 0, 1, 1);
  }
  const stops = context.getImageData(0, 0, SHADES, 1).data;
  const colours = new Uint8ClampedArray(256 * 4);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (SHADES - 1);
    const low = Math.min(Math.floor(place), SHADES - 2);
    for (let c = 0; c < 4; c++) {
      colours[i * 4 + c] = stops[low * 4 + c] + (place - low) * (stops[low * 4 + 4 + c] - stops[low * 4 + c]);
    }
  }
  return colours;
}

/** How bright a colour of CSS is, 0 to 1. @param {string} colour */
export function brightness(colour) {
  const context = make("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
}

/** One head's block, a pixel a cell; masked cells are left clear, and the hatching behind shows through.
 * @param {Block} block @param {Masked} masked */
export function paint(block, masked, head, top, colours, less = colours) {
  const [, rows, cols] = block.shape;
  const canvas = make("canvas", { width: cols, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(cols, rows);
  for (let i = 0; i < rows * cols; i++) {
    if (isMasked(masked, block.shape, Math.floor(i / cols), i % cols, head)) continue;
    const value = block.values[head * rows * cols + i] * block.scale;
    const colour = Math.round(255 * shade(Math.abs(value), top));
    image.data.set((value < 0 ? less : colours).subarray(colour * 4, colour * 4 + 4), i * 4);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** A scale bar with numbers, 0 (or minus `top`) to `top`, spaced as the colours are.
 * @param {number} top @param {string} name @param {boolean} [signed] */
export function scaleBar(top, name, signed = false) {
  const parts = signed ? [-1, -0.2, 0, 0.2, 1] : [0, 0.05, 0.2, 0.5, 1];
  const place = (part) => (signed ? 50 + 50 * Math.sign(part) * Math.sqrt(Math.abs(part)) : 100 * Math.sqrt(part));
  const numbers = parts.map((part) => String(Number((part * top).toPrecision(2))).replace("-", "−"));
  const ticks = parts.map((part, i) => make("span", { style: { left: `${place(part)}%` } }, numbers[i]));
  const longest = Math.max(...numbers.map((number) => number.length));
  return make("div", { class: "ch-scale", role: "img", "aria-label": _("Colour scale, %(name)s: %(least)s to %(most)s, square-root spacing", { name, least: signed ? -top : 0, most: top }) },
    make("span", {}, name),
    make("div", { class: "ch-scale-bar", style: { "--digits": String(longest) } }, make("div", { class: signed ? "ch-scale-ramp ch-signed" : "ch-scale-ramp" }), make("div", { class: "ch-ticks" }, ...ticks)));
}
