// @ts-check
/** The Lens page: ask the studio for a text's attention, draw it, and keep the whole state in the address. */
import attention, { plainModel } from "/views/attention.js";

/** @param {string} id @returns {any} */
const get = (id) => document.getElementById(id);
const form = get("lens-form");
const fields = { text: get("lens-text"), other: get("lens-other"), model: get("lens-model") };
const rollout = get("lens-rollout");
const says = get("lens-says");
const places = [get("lens-view"), get("lens-beside")];
const STATE = ["layer", "head", "token"];
const SHARED = ["layer", "head", "order", "pin"]; // what two pictures side by side have in common
const MOST_FILE = 200_000; // bytes of an uploaded text; the longest model here takes far fewer

let asked = new AbortController();
/** @type {{model: any, clear: () => void}[]} the pictures shown */
let shown = [];

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
  return { ...state, side: address.get("side") === "key" ? "key" : "query", order: address.get("order") || "layer", pin: address.get("pin") || "" };
}

/** The form as an address, with only what was filled in. */
function filled() {
  const address = new URLSearchParams();
  for (const [name, field] of Object.entries(fields)) if (field.value.trim()) address.set(name, field.value.trim());
  if (rollout.checked) address.set("rollout", "1");
  return address;
}

/** Put the state into the address, without a new step in the history. */
function remember(model) {
  const address = filled();
  for (const key of STATE) address.set(key, String(model.get(key)));
  if (model.get("side") === "key") address.set("side", "key");
  if (model.get("order") !== "layer") address.set("order", model.get("order"));
  if (model.get("pin")) address.set("pin", model.get("pin"));
  history.replaceState(null, "", `/lens?${address}`);
}

/** The address of one text's data. @param {string} text */
function source(text) {
  const address = new URLSearchParams({ text });
  if (fields.model.value.trim()) address.set("model", fields.model.value.trim());
  if (rollout.checked) address.set("rollout", "1");
  return address;
}

/** @param {string} text @param {AbortSignal} signal */
async function read(text, signal) {
  const reply = await fetch(`/lens/data?${source(text)}`, { signal });
  const payload = await reply.json();
  if (!reply.ok) throw new Error(payload.error);
  return payload;
}

/** Draw one text's payload in its place. */
function picture(place, text, payload, state) {
  const address = source(text);
  const answer = async (question) => (await fetch(`/lens/answer?${address}&question=${encodeURIComponent(JSON.stringify(question))}`)).json();
  const model = plainModel({ ...(state || { ...payload.first, side: "query" }), payload }, answer);
  return { model, clear: attention.render({ model, el: place }) };
}

/** Two pictures open the same head: what changes in one changes in the other. */
function tie() {
  for (const { model } of shown) {
    model.on("change", () => {
      for (const other of shown) {
        if (other.model === model) continue;
        for (const name of SHARED) other.model.set(name, model.get(name));
        other.model.save_changes();
      }
      remember(shown[0].model);
    });
  }
}

/** Read the form's texts and draw them. @param {Record<string, any> | null} state what to open; null: what is telling */
async function show(state) {
  asked.abort();
  asked = new AbortController();
  const signal = asked.signal;
  const texts = [fields.text.value.trim(), ...(fields.other.value.trim() ? [fields.other.value.trim()] : [])];
  busy(true);
  const slow = setTimeout(() => say("Reading. The first text waits for the model to load, a few seconds."), 400);
  try {
    const payloads = await Promise.all(texts.map((text) => read(text, signal)));
    say("");
    shown.forEach((one) => one.clear());
    const first = state || { ...payloads[0].first, side: "query" };
    places[1].hidden = texts.length < 2;
    get("lens-views").classList.toggle("lens-two", texts.length > 1);
    // A token of one text is no token of the other.
    shown = payloads.map((payload, i) => picture(places[i], texts[i], payload, i ? { ...first, token: -1 } : first));
    tie();
    if (state) remember(shown[0].model);
  } catch (problem) {
    if (signal.aborted) say("Stopped waiting.");
    else if (problem instanceof TypeError) say("The studio does not answer. Start it again with `make studio`, then reload this page.", true);
    else say(problem.message, true);
  } finally {
    clearTimeout(slow);
    if (asked.signal === signal) busy(false);
  }
}

/** @param {boolean} now */
function busy(now) {
  get("lens-views").classList.toggle("waiting", now);
  get("lens-views").setAttribute("aria-busy", String(now));
  get("lens-stop").hidden = !now;
}

/** @param {Event} event */
async function upload(event) {
  const [file] = /** @type {any} */ (event.target).files;
  if (!file) return;
  if (file.size > MOST_FILE) return say(`${file.name} has ${file.size} bytes, more than any model here takes. Choose a shorter text.`, true);
  const text = await file.text();
  if (text.includes("\uFFFD") || text.includes("\0")) return say(`${file.name} is not text in UTF-8. Save it as UTF-8 and choose it again.`, true);
  fields.text.value = text.trim();
  form.requestSubmit();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  history.pushState(null, "", `/lens?${filled()}`);
  show(null);
});
for (const field of [fields.text, fields.other]) {
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}
rollout.addEventListener("change", () => form.requestSubmit());
get("lens-file").addEventListener("change", upload);
get("lens-stop").addEventListener("click", () => asked.abort());
window.addEventListener("popstate", () => location.reload());
show(opened());
