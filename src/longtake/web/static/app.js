// Puts the page together: words first, then the parts, then what the server tells.

import { onUnauthorized, signIn } from "./api.js";
import { $, h } from "./dom.js";
import { ask, tried } from "./dialogs.js";
import { Form } from "./form.js";
import { Library } from "./library.js";
import { active, health, listen, on, readHealth, readModels, videos, waiting } from "./live.js";
import { Queue } from "./queue.js";
import { Stage } from "./stage.js";
import { LANGUAGES, language, speak, speakIn, t } from "./words.js";

const AGAIN = 2000; // milliseconds until the server is asked whether its engine is there

speak();
document.body.hidden = false;

const languages = $("#language");
languages.replaceChildren(...Object.entries(LANGUAGES).map(([value, name]) => h("option", { value }, name)));
languages.value = language;
languages.addEventListener("change", () => speakIn(languages.value));

// One dialog, however many calls wait for it.
let asking = null;
const askForToken = () =>
  (asking ??= ask({
    title: t("token.title"),
    text: t("token.text"),
    fields: [{ name: "token", label: t("token"), type: "password", autocomplete: "off", required: true }],
    ok: t("token.ok"),
    check: ({ token }) => signIn(token),
  }).finally(() => (asking = null)));
onUnauthorized(askForToken);

const form = new Form($("#form"), {
  made: (video) => {
    const shown = stage.video;
    if (!shown || !active(shown)) stage.select(video.id);
    else $("#queue-says").textContent = t("queue.added");
  },
});
const stage = new Stage($("#stage"), form);
const queue = new Queue($("#queue"), { form, stage });
const library = new Library($("#library"), { form, stage, open });

function open(view) {
  for (const name of ["studio", "library"]) {
    $(`#${name}`).hidden = name !== view;
    $(`#to-${name}`).setAttribute("aria-current", name === view ? "page" : "false");
  }
  if (view === "library") library.draw();
  else queue.redraw();
  scrollTo(0, 0);
}
for (const name of ["studio", "library"]) $(`#to-${name}`).addEventListener("click", () => open(name));

// Files may be dropped anywhere, and pasted.
const files = (transfer) => [...(transfer?.files ?? [])].filter((file) => /^(image|video)\//.test(file.type));
let depth = 0;
addEventListener("dragenter", (event) => event.dataTransfer.types.includes("Files") && (depth++, document.body.classList.add("dropping")));
addEventListener("dragleave", (event) => event.dataTransfer.types.includes("Files") && --depth <= 0 && document.body.classList.remove("dropping"));
addEventListener("dragover", (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
addEventListener("drop", (event) => {
  depth = 0;
  document.body.classList.remove("dropping");
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  const given = event.dataTransfer.files[0];
  if (!given) return;
  open("studio");
  form.file(files(event.dataTransfer)[0] ?? given);
});
addEventListener("paste", (event) => {
  const [file] = files(event.clipboardData);
  if (!file) return;
  event.preventDefault();
  form.file(file);
});

function tellHealth() {
  const state = health.away ? "away" : health.engine;
  const line = $("#health");
  line.dataset.state = state;
  line.textContent = t(`health.${state}`, { version: health.version });
}
on("health", tellHealth);

// After the first reading: the video of the address, or the one that is being made.
on("read", () => {
  tried(readModels);
  if (stage.id) return videos.has(stage.id) ? stage.select(stage.id) : stage.select(null);
  stage.fromAddress();
  if (!stage.id) {
    const busy = [...videos.values()].find(active) ?? [...videos.values()].find(waiting);
    if (busy) stage.select(busy.id);
  }
  stage.redraw();
  return undefined;
});

async function begin() {
  await readHealth();
  if (health.authorization === "bearer") {
    // A request that needs the token asks for it; the cookie that it brings lets the events through.
    const token = sessionStorage.getItem("longtake.token");
    if (token) await signIn(token).catch(() => sessionStorage.removeItem("longtake.token"));
    while (!sessionStorage.getItem("longtake.token")) await askForToken();
  }
  await tried(readModels);
  listen();
  while (health.engine === "loading" || health.away) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
    await readHealth();
    if (health.engine === "ready") await tried(readModels);
  }
}

document.documentElement.dataset.ready = "true";
begin();

