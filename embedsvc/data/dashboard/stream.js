// One stream of events for the whole page, begun again when it breaks. An EventSource could not
// send a key, so the answer to a fetch is read.

import { ask } from "./api.js";

const LONGEST = 30;  // seconds between two tries

// `seen` is called with each event, `changed` with "live", "lost", or "locked": no key was given.
export function watch(path, seen, changed) {
  let stop = null;

  async function run() {
    stop?.abort();
    const mine = stop = new AbortController();
    let wait = 1;
    while (!mine.signal.aborted) {
      try {
        const answer = await ask(path, { signal: mine.signal });
        changed("live");
        wait = 1;
        await read(answer.body, seen);
      } catch (error) {
        if (mine.signal.aborted) return;
        if (error.status === 401) return changed("locked");
        if (!("status" in error) && error.name !== "TypeError") throw error;  // a bug of ours
      }
      changed("lost");
      await new Promise((done) => setTimeout(done, wait * (500 + 500 * Math.random())));
      wait = Math.min(2 * wait, LONGEST);
    }
  }

  addEventListener("pagehide", () => stop?.abort());
  addEventListener("pageshow", (event) => { if (event.persisted) run(); });
  run();
  return run;
}

async function read(body, seen) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event.startsWith("data: ")) seen(JSON.parse(event.slice("data: ".length)));
    }
  }
}
