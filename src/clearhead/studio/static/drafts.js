// Drafts: text that is typed into a form and not sent yet is kept in this browser for this learner, and restored when the
// form is shown again. Without this module, only the browser can restore it, on Back.

import { _ } from "./words.js";

const PREFIX = "draft:";
const WHO = "clearhead-learner"; // the cookie that says who is logged in to a shared studio
const TYPED = ["textarea", "[type=text]", "[type=search]"].join();
const LEFT_OUT = ["[type=hidden]", "[type=password]", "[type=file]", "button", "fieldset", "output", "[data-no-draft]"].join(); // an option is chosen again

/** A control's name and its values; where these are letters, which another look deals out again, what the letters mean. */
const nameOf = (control) => control.dataset.as ?? control.name;
const meaningOf = (control) => control.dataset.means ?? control.value;

/** The controls of a form that somebody fills in. @param {HTMLFormElement} form */
export function controls(form) {
  return [...form.elements].filter((control) => control.name && !control.matches(LEFT_OUT));
}

/**
 * What a form holds: name -> values. `given` reads what the server wrote into it.
 * @param {HTMLFormElement} form
 */
export function held(form, given = false) {
  const values = {};
  for (const control of controls(form)) {
    const all = (values[nameOf(control)] ??= []);
    if (control.matches("[type=radio], [type=checkbox]")) {
      if (given ? control.defaultChecked : control.checked) all.push(meaningOf(control));
    } else if (control.matches("select")) {
      const chosen = given ? ([...control.options].find((option) => option.defaultSelected) ?? control.options[0]) : control.selectedOptions[0];
      all.push(chosen ? meaningOf(chosen) : "");
    } else all.push(given ? control.defaultValue : control.value);
  }
  return values;
}

/** Put values into a form. @param {HTMLFormElement} form @param {Record<string, string[]>} values */
export function fill(form, values) {
  const left = structuredClone(values);
  for (const control of controls(form)) {
    const all = left[nameOf(control)];
    if (!all) continue;
    if (control.matches("[type=radio], [type=checkbox]")) control.checked = all.includes(meaningOf(control));
    else if (control.matches("select")) {
      const value = all.shift();
      const option = [...control.options].find((other) => meaningOf(other) === value);
      if (option) option.selected = true;
    } else if (all.length) control.value = all.shift();
  }
}

/** What of a form is typed: only where the server wrote the same does a draft still belong to it. */
function typedInto(form) {
  const given = held(form, true);
  return Object.fromEntries(controls(form).filter((control) => control.matches(TYPED)).map((control) => [nameOf(control), given[nameOf(control)]]));
}

const learner = () => document.documentElement.dataset.learner;
const keyOf = (form) => `${PREFIX}${learner()}:${form.dataset.draft}`;
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** Use the browser's store, which may be off or full. Then drafts are not kept, and everything else works. */
function stored(act) {
  try {
    return act(globalThis.localStorage);
  } catch (problem) {
    console.info("drafts are not kept:", problem.message);
    return null;
  }
}

const get = (key) => JSON.parse(stored((store) => store.getItem(key)) ?? "null");
const put = (key, draft) => stored((store) => store.setItem(key, JSON.stringify(draft)));
const drop = (key) => stored((store) => store.removeItem(key));
const keys = () => stored((store) => Object.keys(store).filter((key) => key.startsWith(PREFIX))) ?? [];

/** Keep what a form holds now, if it differs from what the server wrote into it. */
function keep(form) {
  if (same(held(form), held(form, true))) drop(keyOf(form));
  else put(keyOf(form), { typed: typedInto(form), values: held(form) });
}

/** Forget what was typed into a form. @param {HTMLFormElement} form */
export function forget(form) {
  drop(keyOf(form));
}

/** Put a draft back into the form it belongs to, and say so. @param {HTMLFormElement} form */
export function restore(form) {
  const draft = get(keyOf(form));
  if (!draft) return;
  if (!same(draft.typed, typedInto(form))) return void forget(form);
  fill(form, draft.values); // where the browser was not first
  form.querySelector(".draft")?.remove();
  const line = Object.assign(document.createElement("p"), { className: "small muted draft" });
  line.setAttribute("role", "status");
  const away = Object.assign(document.createElement("button"), { type: "button", className: "quiet small", textContent: _("Clear it") });
  away.addEventListener("click", () => {
    form.reset();
    forget(form);
    form.dispatchEvent(new Event("input", { bubbles: true }));
    line.remove();
  });
  line.append(_("What you had filled in has been restored."), " ", away);
  form.prepend(line);
}

/**
 * A page of the studio that came by a form says that the form arrived; one that came by Back, that it did not; and one
 * that refuses it, that it did not either: then the keys of its drafts are returned, for this page may send it again.
 */
function arrived() {
  const [way] = performance.getEntriesByType("navigation");
  if (!way || way.type === "back_forward") return [];
  const refused = document.querySelector("[data-refused]");
  const sent = keys().filter((key) => get(key)?.sent);
  for (const key of sent) refused ? put(key, { ...get(key), sent: false }) : drop(key);
  return refused ? sent : [];
}

const cameBack = () => performance.getEntriesByType("navigation")[0]?.type === "back_forward";

/** Delete the drafts of everybody but the learner who is logged in. */
function mineAlone() {
  if (Number(learner()) < 0) return; // nobody is logged in yet
  for (const key of keys()) if (!key.startsWith(`${PREFIX}${learner()}:`)) drop(key);
}

/**
 * On Back, a browser shows a page from its memory: a page of a learner who has logged out since is emptied and asked for
 * again.
 */
function afterLogOut() {
  const shared = Number(learner()) > 0;
  if (!shared || document.cookie.split("; ").includes(`${WHO}=${learner()}`)) return;
  document.body.replaceChildren();
  location.reload();
}

let refused = [];

/** The form is sent: the page that comes decides whether its draft arrived. @param {HTMLFormElement} form */
export function sent(form) {
  if (form.matches("[data-forget-all]")) for (const key of keys()) drop(key);
  if (form.closest("[data-refused]")) for (const key of refused) put(key, { ...get(key), sent: true });
  const draft = form.dataset.draft && get(keyOf(form));
  if (draft) put(keyOf(form), { ...draft, sent: true });
}

/** Restore the drafts of this page's forms and keep them from now on. */
export function start() {
  mineAlone();
  refused = arrived();
  for (const form of document.querySelectorAll("form[data-draft]")) restore(form);
  document.addEventListener("input", ({ target }) => {
    const form = target.form ?? target.closest?.("form"); // a field may stand outside of its form
    if (form?.matches("[data-draft]")) keep(form);
  });
  addEventListener("pageshow", ({ persisted }) => persisted && afterLogOut());
  if (cameBack()) afterLogOut();
  document.addEventListener("click", ({ target }) => {
    const link = target.closest?.("[data-forget]");
    const form = link && (link.closest("form[data-draft]") ?? document.querySelector("form[data-draft]"));
    if (form) forget(form);
  });
}
