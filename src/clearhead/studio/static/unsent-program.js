// Build: an editor for the program, a run without its tests that stays on the page, and Cancel for both.

import { edit } from "./edit.js";
import * as sending from "./sending.js";
import { _ } from "./words.js";

const PAUSE = 5000; // ms after the last keystroke; until then the browser keeps it (drafts.js)

/** What is typed is kept in the studio too, so that it is there in another browser. @param {HTMLTextAreaElement} field */
function keepOnServer(field) {
  const form = field.form;
  let waits = 0, kept = field.value;
  const send = () => {
    clearTimeout(waits);
    if (field.value === kept) return;
    kept = field.value;
    navigator.sendBeacon("/programs/draft", new URLSearchParams({ csrf: form.elements.csrf.value, ticket: form.elements.ticket.value, program: kept }));
  };
  field.addEventListener("input", () => {
    clearTimeout(waits);
    waits = setTimeout(send, PAUSE);
  });
  addEventListener("pagehide", send); // for those who leave within the pause
  form.addEventListener("submit", () => {
    clearTimeout(waits);
    kept = field.value; // it is on its way
  });
}

/** @param {HTMLTextAreaElement} field */
function start(field) {
  const form = field.form;
  const run = form.querySelector("[data-run-untested]");
  const cancel = form.querySelector("[data-cancel]");
  const says = form.querySelector("[data-run-says]");
  const ran = form.querySelector(".ran");
  let way = null;
  edit(field);
  keepOnServer(field);

  const busy = (on) => {
    run.disabled = on;
    cancel.hidden = !on;
  };

  function show(output) {
    const label = Object.assign(document.createElement("p"), { className: "label", textContent: _("What it printed") });
    const text = Object.assign(document.createElement("pre"), { className: "output", textContent: output, tabIndex: 0 });
    ran.replaceChildren(label, text);
  }

  run.addEventListener("click", async (event) => {
    event.preventDefault();
    way = new AbortController();
    busy(true);
    says.textContent = _("It runs …");
    try {
      const body = new URLSearchParams(new FormData(form));
      const reply = await fetch(run.formAction, { method: "POST", body, signal: way.signal, headers: { accept: "application/json" } });
      if (!reply.headers.get("content-type").includes("json")) return void form.requestSubmit(run); // it says what it lacks
      const { output } = await reply.json();
      show(output);
      says.textContent = "";
    } catch (problem) {
      says.textContent = way.signal.aborted ? _("Cancelled.") : _("The request failed (%(problem)s). Is the studio still running?", { problem: problem.message });
    } finally {
      way = null;
      busy(false);
    }
  });
  // The tests lead to a page of their own: to cancel them is to stop sending the form, or loading that page.
  form.addEventListener("submit", ({ submitter, defaultPrevented }) => {
    if (!defaultPrevented && submitter?.matches(".main")) cancel.hidden = false;
  });
  cancel.addEventListener("click", () => {
    if (way) return void way.abort();
    sending.stop();
    stop();
    cancel.hidden = true;
    for (const sign of document.querySelectorAll(".underway")) sign.remove();
    says.textContent = _("Cancelled. No try is counted.");
  });
  addEventListener("pageshow", () => { cancel.hidden = !way; });
}

if (typeof document !== "undefined") {
  const field = document.querySelector("#question textarea.code[name=program]");
  if (field) start(field);
}
