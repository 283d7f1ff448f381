// @ts-check
/** Links of the reading Lens that save a picture or the numbers. */
import { _ } from "./words.js";

/** Links that save the open head, or all heads, as a file. @param {any} model @param {string} key @param {string[]} kinds */
export function saveLinks(model, key, kinds) {
  const links = kinds.map((kind) => Object.assign(document.createElement("a"), { textContent: kind === "parquet" ? "Parquet" : kind.toUpperCase(), download: "" }));
  const line = document.createElement("p");
  const label = document.createElement("span");
  line.className = "lens-save small muted";
  line.append(label, ...links);
  const update = () => {
    const [layer, head] = [model.get("layer"), model.get("head")];
    label.textContent = layer < 0 ? _("Save all heads:") : _("Save layer %(layer)s, head %(head)s:", { layer, head });
    links.forEach((link, i) => { link.href = `/lens/save?${new URLSearchParams({ key, kind: kinds[i], layer, head })}`; });
  };
  model.on("change", update);
  update();
  return line;
}
