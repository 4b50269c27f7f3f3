// Requests to the server. Where it wants a key, the user is asked.

import { askForKey, storedKey } from "./key.js";

const ROOT = new URL("../", import.meta.url);

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const address = (path) => new URL(path, ROOT).href;

// The answer to a request. Throws an ApiError in the server's words.
export async function ask(path, { method = "GET", body, signal } = {}) {
  for (;;) {
    const headers = {}, key = storedKey();
    if (key) headers.authorization = `Bearer ${key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    let answer;
    try {
      answer = await fetch(new URL(path, ROOT), {
        method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer.", 0);
    }
    if (answer.ok) return answer;
    if (answer.status === 401) {
      // Another request may have asked for the key meanwhile.
      if (storedKey() !== key || await askForKey()) continue;
      throw new ApiError("The server wants a key.", 401);
    }
    const said = await answer.json().catch(() => null);
    // An object under `error` as OpenAI has it, or the words as TEI's routes have them.
    throw new ApiError(said?.error?.message ?? said?.error
      ?? `The server answered ${answer.status}.`, answer.status);
  }
}

export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

// Vectors of texts: { vectors: [Float32Array], tokens, truncated }. Texts too long are cut.
export async function embed(model, input, more = {}) {
  const body = { model, input, truncate: "end", encoding_format: "base64", ...more };
  const answer = await ask("v1/embeddings", { method: "POST", body });
  const { data, usage } = await answer.json();
  return {
    vectors: data.map((row) => floats(row.embedding)),
    tokens: usage.prompt_tokens,
    truncated: Number(answer.headers.get("x-embedsvc-truncated") ?? 0),
  };
}

export function cosine(a, b) {
  let product = 0, ofA = 0, ofB = 0;
  for (let i = 0; i < a.length; i++) {
    product += a[i] * b[i];
    ofA += a[i] * a[i];
    ofB += b[i] * b[i];
  }
  return product / (Math.sqrt(ofA * ofB) || 1);
}

function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);  // little-endian, whatever this machine is
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}
