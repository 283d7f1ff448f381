// On Home: send the grades given offline, then download the cards that are due.

import { fetchCards, send } from "./cards.js";

async function start() {
  if (!("serviceWorker" in navigator) || !("caches" in globalThis)) return;
  try {
    await navigator.serviceWorker.register("/service-worker.js");
    if (await send()) await fetchCards();
  } catch (problem) {
    console.info("not taken along:", problem.message); // private windows may refuse; the studio works all the same
  }
}

start();
