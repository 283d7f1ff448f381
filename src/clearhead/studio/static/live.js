// Programs of a page that can be edited: run one in place, stop it, and restore it.

import { edit } from "./edit.js";
import { _ } from "./words.js";

/** Where a program's output or pictures are: beside its field, or around it where it draws a figure. */
const placeOf = (field) => field.closest("figure.frames, .live").querySelector(".came");

/** @param {HTMLTextAreaElement} field */
function start(field) {
  const row = field.nextElementSibling;
  const [run, cancel, back] = row.querySelectorAll("button");
  const says = row.querySelector("[role=status]");
  const came = placeOf(field);
  const figure = field.closest("figure.frames");
  const first = came.innerHTML;
  const editor = edit(field);
  let way = null;

  const shown = (html) => {
    came.innerHTML = html;
    figure?.querySelector("input[type=range]")?.dispatchEvent(new Event("input"));
  };
  const changed = () => { back.hidden = field.value === field.defaultValue && came.innerHTML === first; };

  async function send() {
    way = new AbortController();
    const body = new URLSearchParams(new FormData(field.form, run)); // before the button is off, which would leave it out
    run.disabled = true;
    cancel.hidden = false;
    says.textContent = _("It runs …");
    try {
      const reply = await fetch(field.form.action, { method: "POST", body, signal: way.signal, headers: { accept: "application/json" } });
      if (!reply.ok) throw new Error(String(reply.status));
      const outcome = await reply.json();
      if (outcome.html) shown(outcome.html);
      says.textContent = outcome.problem || _("It ran.");
    } catch (problem) {
      says.textContent = way.signal.aborted ? _("Cancelled.") : _("The request failed (%(problem)s). Is the studio still running?", { problem: problem.message });
    } finally {
      run.disabled = false;
      cancel.hidden = true;
      changed();
    }
  }

  run.addEventListener("click", (event) => {
    event.preventDefault();
    send();
  });
  cancel.addEventListener("click", () => way?.abort());
  back.addEventListener("click", () => {
    field.value = field.defaultValue;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    shown(first);
    says.textContent = "";
    changed();
    editor.focus();
  });
  field.addEventListener("input", changed);
  const sends = (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.repeat) return;
    event.preventDefault();
    event.stopPropagation(); // a page may have a key of its own for it
    if (!run.disabled) send();
  };
  editor.element.addEventListener("keydown", sends);
  changed();
}

if (typeof document !== "undefined") {
  for (const field of document.querySelectorAll("textarea[form=page-programs]")) start(field);
}
