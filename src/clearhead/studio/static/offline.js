// The page of cards without a network: one after another, a grade kept on this device until it can be sent.

import { back, cardsHere, keep, send, waiting } from "./cards.js";
import { _ } from "./words.js";

const place = document.querySelector("#cards");
const says = document.querySelector("#says");

function button(text, key, act, main = false) {
  const made = Object.assign(document.createElement("button"), { textContent: text, className: main ? "main" : "" });
  made.dataset.key = key;
  made.addEventListener("click", act, { once: true });
  const shown = Object.assign(document.createElement("kbd"), { textContent: key.split(" ").at(-1) });
  made.append(" ", shown);
  return made;
}

async function tell(left) {
  const count = (await waiting()).length;
  const parts = [];
  if (left) parts.push(_("Cards left: %(count)s.", { count: left }));
  if (count) parts.push(_("Graded here, to be sent when the studio can be reached: %(count)s.", { count }));
  says.textContent = parts.join(" ");
}

async function show() {
  const cards = await cardsHere();
  await tell(cards.length);
  if (!cards.length) {
    place.replaceChildren(Object.assign(document.createElement("p"), { textContent: _("No card is left on this device.") }));
    return;
  }
  const [card] = cards;
  const topic = Object.assign(document.createElement("p"), { className: "trail", textContent: card.topic });
  const title = Object.assign(document.createElement("h2"), { className: "label", textContent: card.title });
  const face = Object.assign(document.createElement("div"), { className: "card-face", innerHTML: card.stem });
  const row = Object.assign(document.createElement("p"), { className: "row" });
  row.append(button(_("Show the answer"), "Enter Space", () => turn(card, row), true));
  place.replaceChildren(topic, title, face, row);
}

async function turn(card, row) {
  const other = Object.assign(document.createElement("div"), { className: "card-back", innerHTML: await back(card.ticket) });
  other.setAttribute("aria-live", "polite");
  const grade = async (response) => {
    await keep(card.ticket, response);
    await trySend();
    await show();
  };
  row.before(other);
  row.replaceChildren(button(_("Again"), "1", () => grade("again")), button(_("Good"), "Enter Space 2", () => grade("good"), true));
}

async function trySend() {
  try {
    await send();
  } catch {
    // no network: they wait
  }
}

addEventListener("online", async () => {
  await trySend();
  await tell((await cardsHere()).length);
});
await trySend();
await show();
