// @ts-check
/** The Lens page: ask the studio for a text's or a picture's attention, draw it, and keep the whole state in the address. */
import attention, { plainModel } from "/views/attention.js";
import { forget as forgetDraft } from "./drafts.js";
import { jsonLines } from "./lines.js";
import { saveLinks } from "./lens-saves.js";
import { asData } from "./reply.js";
import { asSmallPicture, asWav } from "./uploads.js";
import { _ } from "./words.js";

/** @param {string} id @returns {any} */
const get = (id) => document.getElementById(id);
const form = get("lens-form");
const fields = { text: get("lens-text"), other: get("lens-other"), model: get("lens-model"), second: get("lens-second"), target: get("lens-target") };
const rollout = get("lens-rollout");
const units = get("lens-units");
const says = get("lens-says");
const bar = get("lens-bar");
const places = [get("lens-view"), get("lens-beside")];
const STATE = ["layer", "head", "token"];
const SHARED = ["layer", "head", "order", "pin"]; // what two pictures side by side have in common
const MOST_FILE = 2_000_000; // bytes of an uploaded text
const MOST_ADDRESS = 8_000; // letters of a text that an address still holds
const TOKEN = /** @type {any} */ (document.querySelector("meta[name=csrf]")).content;

let asked = new AbortController();
/** @type {{model: any, clear: () => void}[]} the pictures shown */
let shown = [];
/** The uploaded file that the text is about: what it is, its key and its name. @type {{kind: "picture" | "sound", key: string, name: string} | null} */
let upload = null;
const attached = get("lens-with");

class Refused extends Error {
  /** @param {{error: string, consent?: boolean, model?: string}} answer */
  constructor(answer) {
    super(answer.error);
    this.consent = Boolean(answer.consent);
    this.model = answer.model ?? fields.model.value.trim();
  }
}

/** @param {string} message @param {boolean} [wrong] @param {...Node} after */
function say(message, wrong = false, ...after) {
  says.hidden = !message;
  says.replaceChildren(message, ...after);
  says.classList.toggle("wrong", wrong);
}

/** What the address says is open; null where it says nothing. */
function opened() {
  const address = new URLSearchParams(location.search);
  if (!address.has("layer")) return null;
  const state = Object.fromEntries(STATE.map((key) => [key, Number(address.get(key) ?? -1)]));
  return { ...state, side: address.get("side") === "key" ? "key" : "query", order: address.get("order") || "layer", pin: address.get("pin") || "" };
}

/** The form as an address, with only what was filled in and fits. */
function filled() {
  const address = new URLSearchParams();
  for (const [name, field] of Object.entries(fields)) {
    const value = field.value.trim();
    const isUnread = upload && (name === "other" || (name === "text" && form.classList.contains("lens-pictured")));
    if (value && value.length <= MOST_ADDRESS && !isUnread) address.set(name, value);
  }
  if (rollout.checked) address.set("rollout", "1");
  if (units.value !== "tokens") address.set("units", units.value);
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

/** @param {string} path @param {any} body @param {Record<string, any>} [more] */
const post = (path, body, more = {}) => fetch(path, { method: "POST", headers: { "x-csrf-token": TOKEN, "content-type": "application/json" }, body: JSON.stringify(body), ...more });

/** Read one text, telling how far it is. @param {string} text @param {AbortSignal} signal @param {(at: any) => void} tell */
async function read(text, signal, tell) {
  const wanted = upload ? { text, [upload.kind]: upload.key } : { text };
  const reply = await post("/lens/read", { ...wanted, model: fields.model.value, second: fields.second.value, target: fields.target.value, rollout: rollout.checked, units: units.value }, { signal });
  for await (const at of jsonLines(/** @type {any} */ (reply.body))) {
    if (at.payload) return at;
    if (at.error || !reply.ok) throw new Refused({ ...at, error: at.error || _("The studio refused this. Reload the page.") });
    tell(at);
  }
  throw new Refused({ error: _("The answer was interrupted. Press Read again.") });
}

/** How far a reading is, in words and as a bar. */
function progress({ doing, done, total }) {
  bar.hidden = false;
  if (total) [bar.max, bar.value] = [total, done];
  else bar.removeAttribute("value");
  const words = {
    waiting: _("Waiting for another text to be read."),
    loading: _("Loading the model. The first text waits for it, a few seconds."),
    reading: total ? _("Reading: layer %(done)s of %(total)s.", { done, total }) : _("Reading."),
    "second-waiting": _("Waiting for another text to be read."),
    "second-loading": _("Loading the second model."),
    "second-reading": total ? _("The second model reads: layer %(done)s of %(total)s.", { done, total }) : _("The second model reads."),
    grouping: _("Putting tokens together: layer %(done)s of %(total)s.", { done, total }),
    "second-grouping": _("Putting tokens together: layer %(done)s of %(total)s.", { done, total }),
    drawing: _("Finding the strongest links: layer %(done)s of %(total)s.", { done, total }),
  };
  says.hidden = false;
  if (says.textContent !== words[doing]) says.replaceChildren(words[doing]);
  says.classList.remove("wrong");
}

/** Draw one reading in its place. */
function draw(place, { key, payload }, state) {
  const answer = async (question) => {
    const reply = await asData(fetch(`/lens/answer?${new URLSearchParams({ key, question: JSON.stringify(question) })}`));
    if (reply.error && question.kind !== "why") say(reply.error, true); // that one is shown where it was asked
    return reply;
  };
  const model = plainModel({ ...(state || { ...payload.first, side: "query" }), payload }, answer);
  const clear = attention.render({ model, el: place });
  const saves = saveLinks(model, key, payload.saves);
  place.append(saves);
  return { model, clear: () => { clear(); saves.remove(); } };
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

/** Do some work, and say how far it is once it has taken 300 ms. @param {(tell: (at: any) => void) => Promise<any>} work */
async function unhurried(work) {
  let at = null, late = false;
  const wait = setTimeout(() => { late = true; if (at) progress(at); }, 300);
  try {
    return await work((now) => { at = now; if (late) progress(now); });
  } finally {
    clearTimeout(wait);
  }
}

/** Read the form's texts, or the picture, and draw them. @param {Record<string, any> | null} state what to open; null: what is telling */
async function show(state) {
  asked.abort();
  asked = new AbortController();
  const signal = asked.signal;
  const texts = [fields.text.value.trim(), ...(fields.other.value.trim() && !upload ? [fields.other.value.trim()] : [])];
  busy(true);
  try {
    const readings = [];
    for (const text of texts) {
      readings.push(await unhurried((tell) => read(text, signal, tell)));
    }
    if (signal.aborted) return;
    say("");
    shown.forEach((reading) => reading.clear());
    // Of two models, the difference is what was asked for.
    const first = state || { ...readings[0].payload.first, side: "query", pin: readings[0].payload.other ? "other" : "" };
    places[1].hidden = texts.length < 2;
    get("lens-views").classList.toggle("lens-two", texts.length > 1);
    // A token of one text is no token of the other.
    shown = readings.map((reading, i) => draw(places[i], reading, i ? { ...first, token: -1 } : first));
    tie();
    if (state) remember(shown[0].model);
    form.classList.toggle("lens-pictured", upload?.kind === "picture" && readings[0].payload.text === null);
    if (upload?.kind === "picture") say(_("The address keeps the model and the head, not the picture. The picture has to be chosen again when it is opened."));
    else if (upload) say(_("The address keeps the words, the model and the head, not the sound. The sound has to be chosen again when it is opened."));
    else if (texts.some((text) => text.length > MOST_ADDRESS)) say(_("This text is too long for an address: the address keeps the model and the head."));
  } catch (problem) {
    if (signal.aborted) { if (asked.signal === signal) say(_("Stopped.")); }
    else if (problem instanceof Refused) say(problem.message, true, ...(problem.consent ? [consent(problem.model)] : []));
    else if (problem instanceof TypeError) say(_("The studio does not answer. Start it again with `make studio`, then reload this page."), true);
    else throw problem;
  } finally {
    if (asked.signal === signal) busy(false);
  }
}

/** The button that lets a model's own code run: never an address alone, and until the studio stops. @param {string} model */
function consent(model) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: _("I have read its code: run it") });
  button.addEventListener("click", async () => {
    await post("/lens/trust", { model });
    show(null);
  });
  const line = document.createElement("span");
  line.className = "lens-consent";
  line.append(button);
  return line;
}

/** @param {boolean} now */
function busy(now) {
  get("lens-views").classList.toggle("waiting", now);
  get("lens-views").setAttribute("aria-busy", String(now));
  get("lens-stop").hidden = !now;
  bar.hidden = true;
}

/** @param {Event} event */
async function uploadText(event) {
  const [file] = /** @type {any} */ (event.target).files;
  if (!file) return;
  if (file.size > MOST_FILE) return say(_("%(name)s has %(size)s bytes, more than any model here takes. Choose a shorter text.", { name: file.name, size: file.size }), true);
  const text = await file.text();
  if (text.includes("\uFFFD") || text.includes("\0")) return say(_("%(name)s is not text in UTF-8. Save it as UTF-8 and choose it again.", { name: file.name }), true);
  fields.text.value = text.trim();
  forget();
  form.requestSubmit();
}

/** A large picture is made smaller here, before it is sent. @param {Event} event */
async function uploadPicture(event) {
  const [file] = /** @type {any} */ (event.target).files;
  if (!file) return;
  let small;
  try {
    small = await asSmallPicture(file);
  } catch {
    return say(_("%(name)s cannot be read as a picture. Choose a PNG, JPEG or WebP file.", { name: file.name }), true);
  }
  await attach("picture", small, file.name);
}

/** Any sound that the browser can play becomes the WAV file that the model hears. @param {Event} event */
async function uploadSound(event) {
  const [file] = /** @type {any} */ (event.target).files;
  if (!file) return;
  let content;
  try {
    content = await asWav(file);
  } catch {
    return say(_("%(name)s cannot be read as a sound. Choose a WAV, MP3, OGG or M4A file.", { name: file.name }), true);
  }
  if (!content) return say(_("%(name)s is longer than 30 seconds. Cut it.", { name: file.name }), true);
  await attach("sound", content, file.name);
}

/** Send a file and read the text with it. @param {"picture" | "sound"} kind @param {Blob} content @param {string} name */
async function attach(kind, content, name) {
  const answer = await asData(fetch("/lens/picture", { method: "POST", headers: { "x-csrf-token": TOKEN, "content-type": "application/octet-stream" }, body: content }));
  if (answer.error) return say(answer.error, true);
  forget();
  upload = { kind, key: answer.key, name };
  attached.hidden = false;
  attached.firstElementChild.textContent = kind === "picture" ? _("With the picture %(name)s.", { name }) : _("With the sound %(name)s.", { name });
  fields.text.required = kind === "sound";
  form.requestSubmit();
}

/** Back from a picture or a sound to the text alone. */
function forget() {
  upload = null;
  attached.hidden = true;
  form.classList.remove("lens-pictured");
  for (const id of ["lens-picture", "lens-sound"]) get(id).value = "";
  fields.text.required = true;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  forgetDraft(form);
  history.pushState(null, "", `/lens?${filled()}`);
  show(null);
});
for (const field of [fields.text, fields.other]) {
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}
rollout.addEventListener("change", () => form.requestSubmit());
/** The same head between other units: a token of one is no word of the other. */
units.addEventListener("change", () => {
  const model = shown[0]?.model;
  history.pushState(null, "", `/lens?${filled()}`);
  show(model ? { layer: model.get("layer"), head: model.get("head"), token: -1, side: "query", order: model.get("order"), pin: model.get("pin") } : null);
});
get("lens-file").addEventListener("change", uploadText);
get("lens-picture").addEventListener("change", uploadPicture);
get("lens-sound").addEventListener("change", uploadSound);
attached.lastElementChild.addEventListener("click", () => {
  forget();
  fields.text.focus();
});
get("lens-stop").addEventListener("click", () => asked.abort());
window.addEventListener("popstate", () => location.reload());
show(opened());
