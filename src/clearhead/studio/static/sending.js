// Forms that change something are sent by a request of this module, so that one that cannot be sent stays on its page as it
// was filled in. A browser would leave the page for an error of its own, and forget what was chosen. Without this module
// the browser sends them.

import * as drafts from "./drafts.js";
import { _ } from "./words.js";

const HEADER = "x-sent-by"; // answered with 204 and the address of the next page, where a browser's form is redirected

/** The request that is under way. @type {AbortController | null} */
let way = null;
/** Whether the next form is the browser's to send. */
let asBrowser = false;

/** Stop sending. The form stays as it is. */
export function stop() {
  way?.abort();
  way = null;
}

/** Where a form says how it is: at the end of the row of its button. @param {HTMLFormElement} form @param {Element | null} button */
export const rowOf = (form, button) => (button ?? form.querySelector("button.main"))?.closest("p, fieldset, section, form");

/** Say beside a form's button that the form was not sent. @param {HTMLFormElement} form @param {Element | null} button */
export function sayUnsent(form, button) {
  const sign = Object.assign(document.createElement("strong"), { className: "small unsent" });
  sign.setAttribute("role", "alert");
  (rowOf(form, button) ?? form).append(" ", sign);
  sign.textContent = _("Not sent: the studio cannot be reached. Nothing is lost: this page keeps it. Send it again in a moment.");
}

/** Show the page that follows a form, also where only the place in the page differs. @param {string} address */
function go(address) {
  const next = new URL(address, location.href);
  if (!next.hash || next.href.split("#")[0] !== location.href.split("#")[0]) return void location.assign(next);
  history.replaceState(null, "", next);
  location.reload();
}

/** @param {HTMLFormElement} form @param {HTMLButtonElement | null} button */
async function send(form, button) {
  stop();
  const mine = (way = new AbortController());
  const address = new URL(button?.getAttribute("formaction") ?? form.getAttribute("action") ?? location.href, location.href);
  const body = new URLSearchParams(new FormData(form, button));
  document.querySelectorAll(".unsent").forEach((sign) => sign.remove());
  let reply;
  try {
    reply = await fetch(address, { method: "POST", body, signal: mine.signal, headers: { accept: "text/html", [HEADER]: "script" } });
  } catch {
    if (mine.signal.aborted) return;
    document.querySelectorAll(".underway").forEach((sign) => sign.remove());
    return void sayUnsent(form, button);
  }
  if (mine.signal.aborted) return;
  const next = reply.status === 204 && reply.headers.get("location");
  if (next) {
    drafts.sent(form);
    return void go(next + (next.includes("#") ? "" : address.hash));
  }
  document.querySelectorAll(".underway").forEach((sign) => sign.remove());
  asBrowser = true; // the studio has a page to say: it comes by the browser's own form, for an answer counts once
  form.requestSubmit(button);
}

/** @param {SubmitEvent} event */
function submitted(event) {
  const form = /** @type {HTMLFormElement} */ (event.target), button = /** @type {HTMLButtonElement | null} */ (event.submitter);
  if (event.defaultPrevented || (button?.formMethod || form.method) !== "post") return;
  if (asBrowser) {
    asBrowser = false;
    return void drafts.sent(form);
  }
  event.preventDefault();
  send(form, button);
}

/** Send every form of this page from now on; call it after all who may keep a form from being sent. */
export function start() {
  document.addEventListener("submit", submitted);
}
