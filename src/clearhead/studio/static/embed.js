// Figures of the Lens inside a page: fetch the data named by `data-source` and draw it in place, once it is near.
import attention, { plainModel } from "/views/attention.js";
import { replyFrom } from "./reply.js";

/** What is opened first: the payload's own choice; of a head alone, the token that the place points at. */
export function opened(payload, point) {
  if (point === undefined) return payload.first;
  return { layer: 0, head: 0, token: point ? payload.tokens.indexOf(point) : -1 };
}

/** @param {HTMLElement} place */
async function draw(place) {
  try {
    const payload = await replyFrom(place.dataset.source);
    place.replaceChildren();
    attention.render({ model: plainModel({ ...opened(payload, place.dataset.point), side: "query", payload }), el: place });
  } catch (problem) {
    place.textContent = problem.message;
  }
}

if (typeof document !== "undefined") {
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "600px" });
  for (const place of document.querySelectorAll(".embed[data-source]")) near.observe(place);
}
