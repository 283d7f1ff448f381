// @ts-check
/** The words of the pictures in the language of the page around them: the English text itself, unless the page brings a
 * template#words that holds others, as the studio's does. */

/** @param {Document | undefined} page @returns {Record<string, string>} */
function broughtBy(page) {
  const holder = /** @type {HTMLTemplateElement | null | undefined} */ (page?.querySelector("template#words"));
  return holder ? JSON.parse(holder.content.textContent || "{}") : {};
}

const inItsLanguage = broughtBy(globalThis.document);

/** The text in the page's language; `%(name)s` in it is filled from `values`.
 * @param {string} text @param {Record<string, string | number>} [values] */
export function _(text, values = {}) {
  return (inItsLanguage[text] ?? text).replace(/%\((\w+)\)s/g, (whole, name) => String(values[name] ?? whole));
}
