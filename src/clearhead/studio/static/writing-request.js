// @ts-check
/** Requests of the Lens that writes. */

const TOKEN = /** @type {any} */ (document.querySelector("meta[name=csrf]")).content;

/** @param {string} path @param {any} body @param {AbortSignal} signal */
export const post = (path, body, signal) => fetch(path, { method: "POST", signal, headers: { "x-csrf-token": TOKEN, "content-type": "application/json" }, body: JSON.stringify(body) });

/** Show that work is going on. @param {HTMLElement} view @param {HTMLElement} stop @param {boolean} now */
export function wait(view, stop, now) {
  view.setAttribute("aria-busy", String(now));
  stop.hidden = !now;
}
