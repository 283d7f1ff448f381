// Turns a field with a program into an editor, if set-up has built one (editor/ in the repository). The field stays and
// holds the text. Without the bundle, the plain field is used.

import { _ } from "./words.js";

/** Make a field as high as what is in it, now and while one types: on a phone, lines wrap. @param {HTMLTextAreaElement} field */
function grow(field) {
  const fit = () => {
    field.style.height = "auto"; // as many rows as the page asks for
    const border = field.offsetHeight - field.clientHeight;
    if (field.scrollHeight > field.clientHeight) field.style.height = `${field.scrollHeight + border}px`;
  };
  field.addEventListener("input", fit);
  addEventListener("resize", fit);
  fit();
}

/**
 * Put an editor before a field. What it returns works at once, and follows the editor once it is there.
 * @param {HTMLTextAreaElement} field
 * @returns {{ element: HTMLElement, focus: () => void }}
 */
export function edit(field) {
  const element = document.createElement("div");
  element.className = "editor-place";
  field.before(element);
  element.append(field);
  let inside = field;
  grow(field);
  const editor = { element, focus: () => inside.focus() };
  if (!("editor" in document.documentElement.dataset)) return editor;
  import("./codemirror.js").then(({ open }) => {
    const label = field.getAttribute("aria-label") ?? field.labels[0]?.textContent ?? "";
    const help = _("Tab indents. To leave the editor press Escape, then Tab.");
    const hadFocus = document.activeElement === field;
    inside = open(field, { label, help });
    for (const named of field.labels) named.addEventListener("click", () => inside.focus());
    if (hadFocus) inside.focus();
  }, (problem) => console.info("the plain field is used:", problem.message));
  return editor;
}
