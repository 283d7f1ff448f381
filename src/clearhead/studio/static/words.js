// The words of the modules in the language of the page: the English text itself, or what base.html's template holds.

/** @param {Document | undefined} page */
function catalog(page) {
  const holder = page?.querySelector("template#words");
  return holder ? JSON.parse(holder.content.textContent) : {};
}

const words = catalog(globalThis.document);

/**
 * The text in the page's language; `%(name)s` in it is filled from `values`.
 * @param {string} text
 * @param {Record<string, string | number>} values
 */
export function _(text, values = {}) {
  return (words[text] ?? text).replace(/%\((\w+)\)s/g, (whole, name) => String(values[name] ?? whole));
}
