// JSON replies of the studio. If its queue is full, the request is repeated after the time that the reply names.

import { _ } from "./words.js";

const TRIES = 5;

/** Why nothing came. @param {Error} problem */
export const unreached = (problem) => _("The request failed (%(problem)s). Is the studio still running?", { problem: problem.message });

/** The JSON of a reply, or an `error` for the reader if none comes. @param {Promise<Response>} asked */
export const asData = (asked) => asked.then((reply) => reply.json()).catch((problem) => ({ error: unreached(problem) }));

/**
 * The JSON at an address. What goes wrong is an Error with a sentence for the reader.
 * @param {string} address
 */
export async function replyFrom(address) {
  for (let tried = 1; ; tried++) {
    const reply = await fetch(address, { headers: { accept: "application/json" } });
    if (reply.status === 429 && tried < TRIES) {
      await new Promise((done) => setTimeout(done, 1000 * (Number(reply.headers.get("retry-after")) || 2)));
      continue;
    }
    const isJson = reply.headers.get("content-type")?.includes("json");
    if (reply.ok && isJson) return reply.json();
    const problem = isJson ? (await reply.json()).error : "";
    throw new Error(problem || unreached(new Error(String(reply.status))));
  }
}
