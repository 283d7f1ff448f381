// @ts-check
/** Why a token was written from another: the heads that look there, and one head's logit as bars. */
import { make } from "/views/paint.js";
import { whyChart } from "/views/why.js";
import { jsonLines } from "./lines.js";
import { post } from "./writing-request.js";
import { visible } from "./writing-text.js";
import { _ } from "./words.js";

/** @param {{busy: (work: (signal: AbortSignal) => Promise<void>) => Promise<void>, progress: (at: any) => void,
 *   request: (run: any) => any, at: () => {layer: number, head: number}}} page */
export function whyView({ busy, progress, request, at }) {
  const box = make("div", { class: "ch" });
  const element = make("section", { class: "write-reasons", "aria-live": "polite" }, box);
  const clear = () => box.replaceChildren();

  /** Ask about one link, through the head that is chosen. @param {any} run @param {{place: number, key: number}} link */
  const ask = (run, link) => through(run, link, at().layer, at().head);

  const through = (run, { place, key }, layer, head) => busy(async (signal) => {
    const chosen = (number) => (number < 0 ? null : number);
    const reply = await post("/lens/write/why", { ...request(run), layer: chosen(layer), head: chosen(head), place, key }, signal);
    const tokens = { from: run.tokens[place - 1], to: run.tokens[key] };
    for await (const line of jsonLines(/** @type {any} */ (reply.body))) {
      if (line.error) box.replaceChildren(make("p", { class: "ch-less" }, line.error));
      else if (line.heads) box.replaceChildren(heads(run, { place, key }, line.heads));
      else if (line.why) box.replaceChildren(whyChart(line.why, { ...tokens, head: _("Layer %(layer)s, head %(head)s", { layer, head }) }));
      else progress(line);
    }
    element.scrollIntoView({ block: "nearest" });
  });

  /** The heads that look along a link, each a button. */
  function heads(run, link, strongest) {
    const names = { from: visible(run.tokens[link.place]), to: visible(run.tokens[link.key]) };
    return make("div", { class: "ch-whybox" }, make("h3", {}, _("Which heads look from “%(from)s” to “%(to)s”", names)),
      make("p", { class: "ch-note" }, _("What is drawn is a mean over heads, and each has a reason of its own. Choose one:")),
      make("p", { class: "write-chosen" }, ...strongest.map(([layer, head, weight]) => make("button", { type: "button", class: "ch-number", onclick: () => through(run, link, layer, head) },
        _("layer %(layer)s, head %(head)s: %(weight)s", { layer, head, weight: weight.toFixed(3) })))));
  }

  return { element, ask, clear };
}
