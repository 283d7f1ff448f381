// Keys, hints and copying. Every page is complete without this file, which only makes it faster to use.

import * as drafts from "./drafts.js";
import * as sending from "./sending.js";
import { _ } from "./words.js";

/** Names of keys as `KeyboardEvent.key` has them, for the words an author writes in `data-key`. */
const NAMED = { Space: " " };

const TYPED = ["textarea", "input:not([type=radio], [type=checkbox], [type=range], [type=hidden])"].join();

/**
 * Focus the first field of a page that asks for typed text, if the device has a keyboard, the address names no place in
 * the page, and nothing else has the focus. A program's editor does not take the focus.
 */
function focusTyped() {
  if (!matchMedia("(hover: hover) and (pointer: fine)").matches || location.hash || document.activeElement !== document.body) return;
  const field = document.querySelector("[data-focus], #question textarea:not([name=program], [name=note]), #question input[type=text]");
  field?.focus({ preventScroll: true });
}

/**
 * Whether a key press belongs to the focused element, so that it is not one of our keys.
 * @param {Element | null} target
 * @param {string} key
 */
export function belongsTo(target, key) {
  if (!target) return false;
  if (target.matches("textarea, select, [contenteditable], .editor")) return true;
  if (target.matches("input:not([type=radio], [type=checkbox], [type=range])")) return true;
  if (key === "Enter" || key === " ") return target.matches("a, button, summary") || (key === " " && target.matches("input"));
  return false;
}

/**
 * The control a key works: one whose `data-key` lists it.
 * @param {Document} page
 * @param {string} key
 */
export function controlFor(page, key) {
  const shown = (control) => !control.disabled && (control.checkVisibility?.() ?? !control.closest("[hidden]"));
  for (const control of page.querySelectorAll("[data-key]")) {
    const keys = control.dataset.key.split(" ").map((name) => NAMED[name] ?? name);
    if (keys.includes(key) && shown(control)) return control;
  }
  return null;
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.isComposing) return;
  if (event.ctrlKey || event.metaKey || event.altKey) {
    const sends = event.key === "Enter" && !event.altKey && !event.repeat && controlFor(document, "Control+Enter");
    if (sends) sends.click();
    return;
  }
  if (event.key === "Escape") sending.stop();
  if (event.key === "Escape") returned();
  if (event.key === "Escape") return void (closeKeys() || (event.target.matches?.(TYPED) && event.target.blur()));
  if (event.key === "Enter" && event.target.matches?.("textarea.line")) {
    event.preventDefault();
    return void (event.repeat || event.target.form.requestSubmit());
  }
  if (belongsTo(event.target, event.key)) return;
  if (event.key.length === 1 && document.documentElement.dataset.keys === "off") return;
  if (event.key === "?") return void toggleKeys();
  if (event.key === "/") {
    event.preventDefault();
    return void location.assign("/search");
  }
  const option = event.key.length === 1 && document.querySelector(`[data-letter="${CSS.escape(event.key.toLowerCase())}"]`);
  const control = option || controlFor(document, event.key);
  if (!control) return;
  event.preventDefault();
  if (option) {
    option.checked = option.type === "radio" || !option.checked;
    option.focus();
  } else if (!event.repeat) control.click();
}

/**
 * A hint, or the options: asked of the server, which counts them, without leaving the page.
 * @param {SubmitEvent} event
 */
async function help(event) {
  const button = event.submitter;
  if (!button?.hasAttribute("data-help")) return;
  event.preventDefault();
  const form = /** @type {HTMLFormElement} */ (event.target);
  document.querySelectorAll(".unsent").forEach((sign) => sign.remove());
  const body = new URLSearchParams(new FormData(form, button));
  const reply = await fetch(button.formAction, { method: "POST", body }).catch(() => null);
  if (!reply) return sending.sayUnsent(form, button);
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  const put = page.getElementById("question");
  if (!reply.ok || !put) return void location.reload();
  form.replaceWith(document.adoptNode(put));
  (document.querySelector(".hints .newest") ?? document.getElementById("question").querySelector("fieldset input"))?.focus();
  runClock();
}

const SOON = 400; // ms in which most answers are there
const GIVEN_UP = 10_000; // ms after which a form may be sent again, for who has stopped the page loading

/**
 * A form whose reply takes longer than a moment says that it is under way. Until then a second click sends nothing: it
 * would only replace the reply by one that says that there was an answer already.
 * @param {SubmitEvent} event
 */
function underway(event) {
  const row = sending.rowOf(event.target, event.submitter);
  if (!row || event.defaultPrevented) return;
  const sent = row.querySelector(".underway");
  if (sent && Date.now() - Number(sent.dataset.since) < GIVEN_UP) return void event.preventDefault();
  sent?.remove();
  const sign = Object.assign(document.createElement("span"), { className: "small muted underway" });
  sign.setAttribute("role", "status");
  sign.dataset.since = String(Date.now());
  row.append(" ", sign);
  setTimeout(() => (sign.textContent = _("Working on it…")), SOON);
}

/** After Back to a page that was left by a form, or Escape, which stops loading: the form is no longer under way. */
function returned() {
  for (const sign of document.querySelectorAll(".underway")) sign.remove();
}

/** What had the focus before the list of keys took it. */
let before = null;

/** The keys of this page and what each does: those of its controls that are shown, its options, its figures, and ours. */
function keysHere() {
  const rows = [];
  const letters = [...document.querySelectorAll("[data-letter]")].map((option) => option.dataset.letter);
  if (letters.length) rows.push([[_("%(first)s to %(last)s", { first: letters[0], last: letters.at(-1) })], _("Choose an option")]);
  for (const control of document.querySelectorAll("[data-key]")) {
    const keys = control.dataset.key.split(" ").filter((name) => controlFor(document, NAMED[name] ?? name) === control);
    const label = control.getAttribute("aria-label") || control.childNodes[0].textContent;
    if (keys.length) rows.push([keys.map((name) => name.replace("Control+", "Ctrl ")), label.trim()]);
  }
  for (const figure of document.querySelectorAll("[data-keys-help]")) {
    rows.push(...figure.dataset.keysHelp.split(";").map((pair) => pair.split("=").map((part) => part.trim())).map(([key, what]) => [[key], what]));
  }
  return [...rows, [["/"], _("Search")], [["?"], _("Show or hide this list")], [["Esc"], _("Close this list")]];
}

/** The list of keys that work on this page. */
function toggleKeys() {
  if (closeKeys()) return;
  before = document.activeElement;
  const box = document.createElement("section");
  box.className = "keys";
  box.setAttribute("role", "dialog");
  box.setAttribute("aria-label", _("Keys on this page"));
  box.tabIndex = -1;
  const list = document.createElement("dl");
  for (const [keys, what] of keysHere()) {
    const name = document.createElement("dt");
    for (const key of keys) name.append(Object.assign(document.createElement("kbd"), { textContent: key }), " ");
    list.append(name, Object.assign(document.createElement("dd"), { textContent: what }));
  }
  box.append(Object.assign(document.createElement("strong"), { textContent: _("Keys on this page") }), list);
  document.body.append(box);
  box.focus();
}

function closeKeys() {
  const open = document.querySelector(".keys");
  const within = open?.contains(document.activeElement);
  open?.remove();
  if (within) before?.focus();
  return Boolean(open);
}

function addCopyButtons() {
  for (const program of document.querySelectorAll(".how pre.program, .report pre")) {
    const button = Object.assign(document.createElement("button"), { className: "quiet small", textContent: _("Copy"), type: "button" });
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(program.textContent);
      button.textContent = _("Copied");
    });
    program.after(button);
  }
}

/** Whether keys or the pointer were used last: after a key whatever has the focus shows it, in every engine. */
function followHands() {
  const by = (keys) => () => document.documentElement.classList.toggle("by-keys", keys);
  addEventListener("keydown", by(true), { capture: true });
  addEventListener("pointerdown", by(false), { capture: true });
}

/** The quiet clock: a thin line that shortens. When it is out, a sentence says so and nothing else happens. */
function runClock() {
  const clock = document.querySelector(".clock");
  if (!clock) return;
  const [line, words] = clock.children;
  const all = Number(clock.dataset.seconds);
  const end = Date.now() + (all - Number(clock.dataset.gone)) * 1000;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const tick = () => {
    if (!clock.isConnected) return;
    const left = Math.max(0, (end - Date.now()) / 1000);
    line.style.transform = `scaleX(${left / all})`;
    if (left > 0) setTimeout(tick, still ? 5000 : 250);
    else words.textContent = _("The time is up. You can still answer, but it does not count for the badge.");
  };
  tick();
}

/** The button of a page that is made for paper. */
function printPage(event) {
  if (event.target.closest?.("[data-print]")) print();
}

if (typeof document !== "undefined") {
  drafts.start(); // before a page's own module reads its form
  document.documentElement.classList.add("scripted");
  followHands();
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", printPage);
  document.addEventListener("submit", help);
  document.addEventListener("submit", underway);
  sending.start(); // after what keeps a form from being sent
  addEventListener("pageshow", returned);
  addEventListener("beforeprint", () => document.querySelectorAll("details:is(.folded, .at-a-glance, .asked)").forEach((program) => { program.open = true; }));
  const here = document.querySelector(".tabs [aria-current]"); // on a phone the row is wider than the window
  if (here) here.closest("ul").scrollLeft = here.offsetLeft - here.closest("ul").offsetLeft - 40;
  addCopyButtons();
  runClock();
  focusTyped();
}
