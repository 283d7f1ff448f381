// Figures with one picture for each value of a slider: show the picture of the current value.

/** @param {HTMLElement} figure @param {number} place */
export function show(figure, place) {
  const values = JSON.parse(figure.dataset.values);
  figure.querySelectorAll(".frame").forEach((frame, at) => { frame.hidden = at !== place; });
  figure.querySelector("output").textContent = values[place];
  figure.querySelector("input").setAttribute("aria-valuetext", values[place]);
}

if (typeof document !== "undefined") {
  for (const figure of document.querySelectorAll("figure.frames")) {
    const slider = figure.querySelector("input");
    if (!slider) continue;
    slider.addEventListener("input", () => show(figure, Number(slider.value)));
    show(figure, Number(slider.value)); // a browser may bring back where it stood
  }
}
