// The module that static/edit.js imports: it turns a field with a program into a CodeMirror editor. The editor is in a
// shadow tree, where its styles are constructable style sheets, which the studio's content security policy allows.

import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { bracketMatching, HighlightStyle, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorState, Prec } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";

// The colours of static/code.css, which follow the theme by themselves.
const HIGHLIGHT = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.bool, tags.null], color: "var(--accent)" },
  { tag: tags.string, color: "var(--key)" },
  { tag: tags.number, color: "var(--query)" },
  { tag: tags.comment, color: "var(--muted)", fontStyle: "italic" },
  { tag: [tags.definition(tags.variableName), tags.definition(tags.className), tags.definition(tags.function(tags.variableName))], fontWeight: "600" },
]);

const THEME = EditorView.theme({
  "&": { color: "var(--ink)", background: "var(--paper)", border: "1px solid var(--muted)", borderRadius: "4px" },
  // By the browser's own word for it: CodeMirror sets its class a moment after the focus came.
  "&:focus-within": { outline: "2px solid var(--accent)", outlineOffset: "1px" },
  ".cm-scroller": { font: "0.9375rem/1.55 var(--mono)", overflowX: "auto" },
  ".cm-content": { caretColor: "var(--ink)", padding: "0.55rem 0", minHeight: "var(--editor-height, 0)" },
  ".cm-line": { padding: "0 0.75rem 0 1.7rem", textIndent: "-1.2rem" }, // a line that wraps hangs
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  ".cm-gutters": { background: "var(--paper)", color: "var(--muted)", border: "0" },
  ".cm-activeLine, .cm-activeLineGutter": { background: "transparent" },
  "&.cm-focused .cm-activeLine": { background: "color-mix(in srgb, var(--tint) 70%, transparent)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": { background: "color-mix(in srgb, var(--accent) 25%, transparent)" },
  "&.cm-focused .cm-matchingBracket": { background: "color-mix(in srgb, var(--accent) 18%, transparent)" },
});

// Chromium keeps the colours of deleted text by inline styles, which the content security policy refuses; plain text has
// none. A keyboard on glass sends Enter as a change of the text, which CodeMirror reads from `true` alone.
const EDITABLE = (() => {
  const probe = document.createElement("div");
  try {
    probe.contentEditable = "plaintext-only";
  } catch {
    return "true"; // Firefox before 136
  }
  return matchMedia("(pointer: coarse)").matches ? "true" : "plaintext-only";
})();

/**
 * A letter typed over selected text. Chromium would keep the colour of the deleted text by an inline style, with
 * "plaintext-only" too.
 */
const REPLACES = EditorView.domEventHandlers({
  beforeinput(event, view) {
    if (event.inputType !== "insertText" || !event.data || event.isComposing || view.state.selection.main.empty) return false;
    view.dispatch(view.state.replaceSelection(event.data), { userEvent: "input.type", scrollIntoView: true });
    return true;
  },
});

/** Keys that the page has: Control and Enter sends. The press goes on to the page. */
const OURS = Prec.highest(keymap.of([{ key: "Mod-Enter", run: () => true }]));

/**
 * Open an editor in the place of this field, which keeps the text and is sent with its form.
 * @param {HTMLTextAreaElement} field
 * @param {{ label: string, help: string }} words
 */
export function open(field, { label, help }) {
  const place = document.createElement("div");
  place.className = "editor"; // studio.js leaves the keys pressed in here alone
  const root = place.attachShadow({ mode: "open" });
  field.before(place);
  let taking = false;
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: field.value,
      extensions: [
        OURS, REPLACES, EditorView.lineWrapping, lineNumbers(), history(), drawSelection(), indentUnit.of("    "), EditorState.tabSize.of(4), indentOnInput(),
        bracketMatching(), highlightActiveLine(), python(), syntaxHighlighting(HIGHLIGHT), THEME,
        keymap.of([...defaultKeymap, ...historyKeymap, indentWithTab]),
        EditorView.contentAttributes.of({ "aria-label": label, "aria-description": help, contenteditable: EDITABLE, tabindex: "0", spellcheck: "false", autocapitalize: "off" }),
        EditorView.updateListener.of((update) => {
          if (!update.docChanged || taking) return;
          field.value = update.state.doc.toString();
          field.dispatchEvent(new Event("input", { bubbles: true }));
        }),
      ],
    }),
  });
  const take = () => {
    if (field.value === view.state.doc.toString()) return;
    taking = true;
    view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: field.value } });
    taking = false;
  };
  field.addEventListener("input", take);
  field.form?.addEventListener("input", take);
  field.form?.addEventListener("reset", () => setTimeout(take));
  field.required = false; // a field that is not shown cannot be focused; the studio says what is missing
  field.hidden = true;
  field.labels.forEach((named) => named.addEventListener("click", () => view.focus()));
  return { focus: () => view.focus() };
}
