// A page that waits for proofs requests itself again until they are there. A page to read then takes over the new parts and
// leaves the rest unchanged, with whatever was guessed, typed, opened or focused in it. Any other page is reloaded, once.

import * as drafts from "./drafts.js";

const EVERY = 4000; // ms
const WAITS = "script[src='/static/waiting.js']";
const READ = "main > article";

/** An element as the server sent it: of the article and its text, child by child. */
function sent(element) {
  const parted = element.matches(`${READ}, ${READ} > .text`);
  return { element, html: element.outerHTML, children: parted ? [...element.children].map(sent) : null };
}

/**
 * Bring an element up to date: its children that were sent again unchanged stay, the others are replaced.
 * @param {ReturnType<typeof sent>} old
 * @param {ReturnType<typeof sent>} fresh
 */
export function merge(old, fresh) {
  const left = [...fresh.children];
  for (const child of old.children) {
    const place = left.findIndex((other) => (child.children ? other.children : other.html === child.html));
    if (place < 0) {
      child.element.remove();
      continue;
    }
    const before = left.splice(0, place + 1), same = before.pop();
    child.element.before(...before.map(({ element }) => element));
    if (child.children) merge(child, same);
  }
  old.element.append(...left.map(({ element }) => element));
}

/** Take over what of a page that came is new, then the styles and modules that only it names. @param {Document} page */
function takeOver(old, page) {
  const fresh = sent(page.querySelector(READ));
  merge(old, fresh);
  for (const form of document.querySelectorAll("form[data-draft]")) if (!known.has(form)) drafts.restore(form);
  const named = (element) => element.getAttribute("href") ?? element.getAttribute("src");
  const here = new Set([...document.head.querySelectorAll("link, script")].map(named));
  for (const element of page.head.querySelectorAll("link, script")) {
    if (here.has(named(element))) continue;
    const copy = document.createElement(element.localName); // a script that was parsed elsewhere never runs
    for (const { name, value } of element.attributes) copy.setAttribute(name, value);
    document.head.append(copy);
  }
}

/** Ask for the page: take it over, load it, or ask again later. */
async function ask(old) {
  const reply = await fetch(location.href, { headers: { accept: "text/html" } });
  if (reply.redirected) return void location.replace(reply.url);
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  const here = !page.querySelector(WAITS);
  if (here && !old) location.reload();
  else if (here && page.querySelector(READ)) takeOver(old, page);
  else setTimeout(again, EVERY, old); // not yet, or the studio is busy
}

/** A studio that does not answer may do so later. */
const again = (old) => ask(old).catch(() => setTimeout(again, EVERY, old));

const known = new Set(); // forms whose drafts are already back
if (typeof document !== "undefined") {
  for (const form of document.querySelectorAll("form[data-draft]")) known.add(form);
  const article = document.querySelector(READ);
  setTimeout(again, EVERY, article && sent(article)); // read before any other module changes it
}
