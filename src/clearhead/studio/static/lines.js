// A stream of JSON lines, read with a reader: WebKit cannot iterate a ReadableStream.

/**
 * Each line of a body, as it comes.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* jsonLines(body) {
  const reader = body.getReader();
  const text = new TextDecoder();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    rest += text.decode(part.value, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
  if (rest) yield JSON.parse(rest);
}
