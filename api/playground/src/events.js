/**
 * Parses server-sent events from a response body. EventSource cannot send a bearer, so fetch is used.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<{event: string, data: string}>}
 */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    pending += value;
    const blocks = pending.split(/\r\n\r\n|\n\n/);
    pending = blocks.pop();
    for (const block of blocks) {
      const message = { event: 'message', data: [] };
      for (const line of block.split(/\r?\n/)) {
        const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
        if (field === 'event') message.event = text;
        if (field === 'data') message.data.push(text);
      }
      yield { event: message.event, data: message.data.join('\n') };
    }
  }
}
