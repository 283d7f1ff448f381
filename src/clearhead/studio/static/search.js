// Search while typing: the server searches, this module shows the results; arrow keys move through them.

import { unreached } from "./reply.js";

const field = /** @type {HTMLInputElement} */ (document.getElementById("q"));
const WAIT = 150; // ms after the last letter
let waiting = 0;
let asked = 0;

/** Instead of results that do not come. @param {Error} problem */
function say(problem) {
  const line = Object.assign(document.createElement("p"), { textContent: unreached(problem) });
  line.setAttribute("role", "alert");
  document.getElementById("results").replaceChildren(line);
}

/** Ask for what is typed now, and show the reply unless a later one was asked for. */
async function find() {
  const mine = ++asked;
  const address = `/search?q=${encodeURIComponent(field.value)}`;
  let reply;
  try {
    reply = await fetch(address);
  } catch (problem) {
    return void (mine === asked && say(problem));
  }
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  const results = page.getElementById("results");
  if (!reply.ok || !results || mine !== asked) return;
  document.getElementById("results").replaceWith(document.adoptNode(results));
  history.replaceState(null, "", address);
}

/** @param {KeyboardEvent} event */
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const links = [...document.querySelectorAll("#results .hit a")];
  const here = links.indexOf(document.activeElement);
  if (!step || !links.length || (here < 0 && document.activeElement !== field)) return;
  event.preventDefault();
  (links[here + step] ?? (here + step < 0 ? field : links.at(-1))).focus();
}

field.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(find, WAIT);
});
document.addEventListener("keydown", walk);
