// The page: what the stream says goes to the models and the charts.

import { addActivity } from "./charts.js";
import { find } from "./dom.js";
import { loadModels, setInstances } from "./instances.js";
import { forgetKey, storedKey } from "./key.js";
import "./playground.js";
import { watch } from "./stream.js";

const WORDS = { live: "Live", lost: "No connection, trying again", locked: "Locked" };

function seen({ version, backend, dtype, device, instances, activity }) {
  find("server").textContent = `${version} · ${backend}, ${dtype} · ${device}`;
  setInstances(instances);
  addActivity(activity);
}

function changed(state) {
  const connection = find("connection");
  if (connection.dataset.state !== state) connection.textContent = WORDS[state];
  connection.dataset.state = state;
  find("enter-key").hidden = state !== "locked";
  find("forget-key").hidden = state !== "live" || !storedKey();
  if (state === "live") {
    loadModels();
  } else if (state === "locked") {
    find("models-none").textContent = "The server has keys. Enter one to see its models.";
  }
}

const again = watch("v1/activity", seen, changed);
find("enter-key").addEventListener("click", again);
find("forget-key").addEventListener("click", () => {
  forgetKey();
  location.reload();
});
