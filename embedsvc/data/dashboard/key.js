// The key of a server that has keys. It stays in this tab, and is sent in a header, never in a URL.

import { find } from "./dom.js";

const NAME = "embedsvc-key";
let asking = null;

export const storedKey = () => sessionStorage.getItem(NAME);

export function forgetKey() {
  sessionStorage.removeItem(NAME);
}

// Ask for a key, once for all who wait for it. False if the user would rather not.
export function askForKey() {
  asking ??= ask().finally(() => { asking = null; });
  return asking;
}

function ask() {
  const dialog = find("key-dialog"), input = find("key"), said = find("key-said");
  const wrong = storedKey() !== null;
  said.hidden = !wrong;
  input.setAttribute("aria-invalid", String(wrong));
  input.value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((settle) => {
    dialog.addEventListener("close", () => {
      const key = dialog.returnValue === "ok" ? input.value.trim() : "";
      input.value = "";
      if (key) sessionStorage.setItem(NAME, key);
      settle(Boolean(key));
    }, { once: true });
  });
}
