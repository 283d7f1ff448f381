// @ts-check
/** The Lens page: ask the studio for a text's attention, draw it, and keep the whole state in the address. */
import attention, { plainModel } from "/views/attention.js";

const form = /** @type {HTMLFormElement} */ (document.getElementById("lens-form"));
const text = /** @type {HTMLTextAreaElement} */ (document.getElementById("lens-text"));
const name = /** @type {HTMLInputElement} */ (document.getElementById("lens-model"));
const says = /** @type {HTMLElement} */ (document.getElementById("lens-says"));
const view = /** @type {HTMLElement} */ (document.getElementById("lens-view"));
const STATE = ["layer", "head", "token"];

let clear = () => {};
let asked = new AbortController();

/** @param {string} message @param {boolean} [wrong] */
function say(message, wrong = false) {
  says.hidden = !message;
  says.textContent = message;
  says.classList.toggle("wrong", wrong);
}

/** What the address says is open; null where it says nothing. */
function opened() {
  const address = new URLSearchParams(location.search);
  if (!address.has("layer")) return null;
  const state = Object.fromEntries(STATE.map((key) => [key, Number(address.get(key) ?? -1)]));
  return { ...state, side: address.get("side") === "key" ? "key" : "query", order: address.get("order") || "layer" };
}

/** Put the state into the address, without a new step in the history. */
function remember(model) {
  const address = new URLSearchParams({ text: text.value.trim() });
  if (name.value.trim()) address.set("model", name.value.trim());
  for (const key of STATE) address.set(key, String(model.get(key)));
  if (model.get("side") === "key") address.set("side", "key");
  if (model.get("order") !== "layer") address.set("order", model.get("order"));
  history.replaceState(null, "", `/lens?${address}`);
}

/** Read the text in the form and draw it. @param {Record<string, any> | null} state what to open; null: what is telling */
async function show(state) {
  asked.abort();
  asked = new AbortController();
  const signal = asked.signal;
  view.classList.add("waiting");
  view.setAttribute("aria-busy", "true");
  const slow = setTimeout(() => say("Reading. The first text waits for the model to load, a few seconds."), 400);
  try {
    const address = new URLSearchParams({ text: text.value, model: name.value });
    const reply = await fetch(`/lens/data?${address}`, { signal });
    const payload = await reply.json();
    clearTimeout(slow);
    if (!reply.ok) return say(payload.error, true);
    say("");
    clear();
    const answer = async (question) => (await fetch(`/lens/answer?${address}&${new URLSearchParams({ question: JSON.stringify(question) })}`)).json();
    const model = plainModel({ ...(state || { ...payload.first, side: "query" }), payload }, answer);
    clear = attention.render({ model, el: view });
    model.on("change", () => remember(model));
    if (state) remember(model);
  } catch (problem) {
    if (!signal.aborted) say("The studio does not answer. Start it again with `make studio`, then reload this page.", true);
  } finally {
    clearTimeout(slow);
    if (!signal.aborted) {
      view.classList.remove("waiting");
      view.removeAttribute("aria-busy");
    }
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const address = new URLSearchParams({ text: text.value.trim() });
  if (name.value.trim()) address.set("model", name.value.trim());
  history.pushState(null, "", `/lens?${address}`);
  show(null);
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
window.addEventListener("popstate", () => location.reload());
show(opened());
