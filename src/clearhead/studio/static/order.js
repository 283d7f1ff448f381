// Steps to put in order: dragged by mouse or finger, or moved with arrows. The selects stay what the form sends.

import { _ } from "./words.js";

/** The rows in the order that their selects say. @param {HTMLElement} list */
export function sorted(list) {
  const placeOf = (row) => Number(row.querySelector("select").value);
  return [...list.children].sort((a, b) => placeOf(a) - placeOf(b));
}

/** @param {HTMLElement} list */
function start(list) {
  const form = list.closest("form");
  const says = form.querySelector("[data-moved]");
  const letterOf = (row) => row.querySelector(".letter").firstChild.textContent.trim();

  /** The places of the selects follow the rows. */
  function number() {
    [...list.children].forEach((row, at) => {
      row.querySelector("select").value = String(at + 1);
      row.querySelector("[data-by='-1']").disabled = at === 0;
      row.querySelector("[data-by='1']").disabled = at === list.children.length - 1;
    });
  }

  function moved(row) {
    number();
    const place = [...list.children].indexOf(row) + 1;
    says.textContent = _("Step %(letter)s is now at place %(place)s of %(all)s.", { letter: letterOf(row), place, all: list.children.length });
    row.querySelector("select").dispatchEvent(new Event("input", { bubbles: true }));
  }

  function move(row, by) {
    const rows = [...list.children];
    const other = rows[rows.indexOf(row) + by];
    if (!other) return;
    if (by < 0) other.before(row);
    else other.after(row);
    moved(row);
  }

  list.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-by]");
    if (!button) return;
    move(button.closest("li"), Number(button.dataset.by));
    if (button.disabled) button.parentElement.querySelector("button:enabled")?.focus();
    else button.focus();
  });
  list.addEventListener("keydown", (event) => {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const button = event.target.closest?.("[data-by]");
    if (!by || !button || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(button.closest("li"), by);
    (button.disabled ? button.parentElement.querySelector("button:enabled") : button)?.focus();
  });

  let held = null;
  list.addEventListener("pointerdown", (event) => {
    const row = event.target.closest("li");
    if (event.button || !row || event.target.closest("button, pre") || (event.pointerType !== "mouse" && !event.target.closest(".grip"))) return;
    held = { row, from: [...list.children].indexOf(row) };
    row.classList.add("held");
    list.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  list.addEventListener("pointermove", (event) => {
    if (!held) return;
    for (const other of list.children) {
      if (other === held.row) continue;
      const { top, height } = other.getBoundingClientRect();
      const after = Boolean(other.compareDocumentPosition(held.row) & Node.DOCUMENT_POSITION_PRECEDING);
      if (after && event.clientY > top + height / 2) other.after(held.row);
      else if (!after && event.clientY < top + height / 2) other.before(held.row);
      else continue;
      break;
    }
  });
  const drop = () => {
    if (!held) return;
    const { row, from } = held;
    held = null;
    row.classList.remove("held");
    if ([...list.children].indexOf(row) !== from) moved(row);
  };
  list.addEventListener("pointerup", drop);
  list.addEventListener("pointercancel", drop);

  const draw = () => {
    list.replaceChildren(...sorted(list));
    number();
  };
  form.addEventListener("input", ({ target }) => target === form && draw()); // a draft was cleared
  draw();
}

if (typeof document !== "undefined") {
  for (const list of document.querySelectorAll("#question ol.order")) start(list);
}
