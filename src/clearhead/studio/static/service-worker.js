// Without a network, every page becomes the page of cards, and what that page needs comes from the cache.
// With a network, everything comes from the studio, so nothing is ever out of date.

const SHELL = "shell";
const NEEDED = [
  "/offline",
  "/manifest.webmanifest",
  ...["style.css", "code.css", "learn.css", "dark.css", "stix-two-math.woff2", "icon.svg", "studio.js", "drafts.js", "sending.js", "words.js", "offline.js", "cards.js"].map(
    (name) => `/static/${name}`,
  ),
];

addEventListener("install", (event) => {
  event.waitUntil(caches.open(SHELL).then((cache) => cache.addAll(NEEDED)).then(() => skipWaiting()));
});

addEventListener("activate", (event) => event.waitUntil(clients.claim()));

/** From the studio, kept for later; from the cache where the studio does not answer. */
async function fresh(request, path) {
  try {
    const answer = await fetch(request);
    if (answer.ok) await (await caches.open(SHELL)).put(path, answer.clone());
    return answer;
  } catch (problem) {
    const kept = await caches.match(path);
    if (kept) return kept;
    throw problem;
  }
}

addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname, search } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin) return;
  if (NEEDED.includes(pathname)) event.respondWith(fresh(request, pathname));
  // A page that is fetched here counts as the studio's own: what another site opens with a query goes to the studio as it is.
  else if (request.mode === "navigate" && (!search || request.referrer.startsWith(`${origin}/`))) event.respondWith(fetch(request).catch(() => caches.match("/offline")));
});
