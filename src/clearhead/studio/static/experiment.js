// Experiment: run a measurement without leaving the page, and say how far it has come.

import { jsonLines } from "./lines.js";
import { _ } from "./words.js";

/** @param {HTMLFormElement} form */
function start(form) {
  const says = form.querySelector("[role=status]");
  const result = document.getElementById("result");
  const button = form.querySelector("button");
  const progress = form.querySelector("progress");

  for (const slider of form.querySelectorAll("input[type=range]")) {
    const values = slider.dataset.values.split(" ");
    const name = () => {
      slider.labels[0].querySelector("output").textContent = values[slider.value];
      slider.setAttribute("aria-valuetext", values[slider.value]);
    };
    slider.addEventListener("input", name);
    name();
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    progress.hidden = false;
    progress.value = 0;
    says.textContent = _("Starting …");
    try {
      const answer = await fetch(`/experiments/${form.dataset.name}?${new URLSearchParams(new FormData(form))}`);
      for await (const line of jsonLines(answer.body)) {
        if (line.html) result.innerHTML = line.html;
        progress.value = line.done ?? progress.value;
        says.textContent = line.error ?? (line.done === line.of ? _("Done.") : _("%(done)s of %(all)s points", { done: line.done, all: line.of }));
      }
    } catch (problem) {
      says.textContent = _("The request failed (%(problem)s). Is the studio still running?", { problem: problem.message });
    } finally {
      button.disabled = false;
      progress.hidden = true;
    }
  });
}

if (typeof document !== "undefined") {
  const form = document.querySelector("form.experiment");
  if (form) start(form);
}
