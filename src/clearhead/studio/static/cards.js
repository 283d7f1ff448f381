// Downloaded cards, and grades that wait for the network. Used by Home, to fetch and send, and by Offline.

const CARDS = "cards"; // a cache: the list of cards, and the other side of each at its own address
const LIST = "/offline/cards";

/** @param {string} ticket */
const backOf = (ticket) => `/offline/back?ticket=${encodeURIComponent(ticket)}`;

/** @returns {Promise<IDBDatabase>} */
function database() {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("clearhead", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("grades", { keyPath: "ticket" });
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
}

/** Run a transaction on the waiting grades; resolves with its result. */
async function grades(mode, act) {
  const db = await database();
  return new Promise((resolve, reject) => {
    const transaction = db.transaction("grades", mode);
    const asked = act(transaction.objectStore("grades"));
    transaction.oncomplete = () => resolve(asked?.result);
    transaction.onerror = () => reject(transaction.error);
  }).finally(() => db.close());
}

/** @returns {Promise<{ ticket: string, response: string, at: number }[]>} */
export const waiting = () => grades("readonly", (store) => store.getAll());

/** Keep a grade until it can be sent. A second grade of the same card changes nothing. */
export async function keep(ticket, response) {
  if ((await waiting()).some((answer) => answer.ticket === ticket)) return;
  await grades("readwrite", (store) => store.put({ ticket, response, at: Date.now() / 1000 }));
}

/** Send the waiting grades. Grades that did not arrive stay; one that arrives twice counts once. True if none is left. */
export async function send() {
  const all = await waiting();
  if (!all.length) return true;
  const page = new DOMParser().parseFromString(await (await fetch("/offline")).text(), "text/html");
  const token = page.querySelector('meta[name="csrf"]').content;
  const headers = { "content-type": "application/json", "x-csrf-token": token };
  const answer = await fetch("/offline/attempts", { method: "POST", headers, body: JSON.stringify(all) });
  if (!answer.ok) return false;
  const { done } = await answer.json();
  await forget(done);
  await grades("readwrite", (store) => void done.forEach((ticket) => store.delete(ticket)));
  return true;
}

/** Remove cards whose grades have arrived. */
async function forget(tickets) {
  const kept = await caches.match(LIST);
  if (!kept) return;
  const cards = (await kept.json()).cards.filter((card) => !tickets.includes(card.ticket));
  await (await caches.open(CARDS)).put(LIST, new Response(JSON.stringify({ cards })));
}

/** Download the cards that are due now; earlier ones are deleted. */
export async function fetchCards() {
  const answer = await fetch(LIST);
  if (!answer.ok) return;
  const { cards } = await answer.clone().json();
  const cache = await caches.open(CARDS);
  const wanted = new Set(cards.map((card) => backOf(card.ticket)));
  await Promise.all([...wanted].map((address) => cache.add(address)));
  await cache.put(LIST, answer);
  for (const { url } of await cache.keys()) {
    const { pathname, search } = new URL(url);
    if (pathname !== LIST && !wanted.has(pathname + search)) await cache.delete(url);
  }
}

/** @returns {Promise<{ ticket: string, title: string, topic: string, stem: string }[]>} cards not graded yet */
export async function cardsHere() {
  const kept = await caches.match(LIST);
  if (!kept) return [];
  const graded = new Set((await waiting()).map((answer) => answer.ticket));
  return (await kept.json()).cards.filter((card) => !graded.has(card.ticket));
}

/** @returns {Promise<string>} the other side of a card, as HTML of the studio's own */
export async function back(ticket) {
  const kept = await caches.match(backOf(ticket));
  return kept ? (await kept.json()).back : "";
}
