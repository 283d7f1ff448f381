// A live figure is as tall as its page, where the browser lets one see it (not from a disk).
function fit(frame) {
  const page = frame.contentDocument;
  if (!page?.body) return;
  const measure = () => { frame.style.height = `${Math.ceil(page.documentElement.getBoundingClientRect().height) + 2}px`; };
  new ResizeObserver(measure).observe(page.documentElement);
  measure();
}

for (const frame of document.querySelectorAll("iframe.live")) {
  if (frame.contentDocument?.readyState === "complete" && frame.contentDocument.URL !== "about:blank") fit(frame);
  frame.addEventListener("load", () => fit(frame));
}

document.querySelector(".md-search")?.setAttribute("aria-label", "Search");

// Wide tables scroll, so they can be reached by keys.
for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) table.tabIndex = 0;
