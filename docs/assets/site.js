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

// Wide tables scroll, so they can be reached by keys. The theme wraps them when it likes.
const reach = () => { for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) table.tabIndex = 0; };
new MutationObserver(reach).observe(document.body, { childList: true, subtree: true });
reach();

// A long name or path breaks after a dot, a slash or an underscore, and not within a word.
for (const code of document.querySelectorAll(".md-typeset :not(pre) > code, .md-typeset h1, .md-typeset .doc-object-name")) {
  for (const text of [...code.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE)) {
    const parts = text.data.split(/(?<=[\p{L}\d][._/]+)(?=[\p{L}\d])/u);
    text.replaceWith(...parts.flatMap((part, index) => (index ? [document.createElement("wbr"), part] : [part])));
  }
}
