// A figure of the Lens inside a page: fetch what a `data-source` names and draw it where it stands.
import attention, { plainModel } from "/views/attention.js";

/** What a place says is to be opened first; null where it says nothing. */
function opened(place) {
  const { layer, head, token } = place.dataset;
  return layer === undefined ? null : { layer: Number(layer), head: Number(head), token: Number(token ?? -1) };
}

/** @param {HTMLElement} place */
export async function draw(place) {
  try {
    const reply = await fetch(place.dataset.source);
    const payload = await reply.json();
    if (!reply.ok) throw new Error(payload.error);
    place.replaceChildren();
    attention.render({ model: plainModel({ ...(opened(place) ?? payload.first), side: "query", payload }), el: place });
  } catch (problem) {
    place.textContent = problem.message;
  }
}

if (typeof document !== "undefined") document.querySelectorAll(".embed[data-source]").forEach(draw);
