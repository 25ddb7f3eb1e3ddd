// The queue: what is being made, what waits, what was made of late. Rows are dragged, or moved with the arrow keys.

import { at, send } from "./api.js";
import { $, framed, h, iconButton, keyed } from "./dom.js";
import { ask, menu, tried } from "./dialogs.js";
import { active, on, over, videos, waiting } from "./live.js";
import { act, downloads, statusOf } from "./stage.js";
import { lasting, t } from "./words.js";

const RECENT = 6;

const byPosition = (one, other) => (one.longtake.position ?? Infinity) - (other.longtake.position ?? Infinity) || one.created_at - other.created_at;
const newest = (one, other) => (other.completed_at ?? other.created_at) - (one.completed_at ?? one.created_at);

export async function remove(video) {
  const answer = await ask({ title: t("remove.title"), text: t("remove.text"), ok: t("act.remove"), danger: true });
  if (answer) await tried(() => send(`v1/videos/${video.id}`, {}, "DELETE"));
}

// The picture of a video: its start while it waits, its thumbnail when there is one.
export function posterOf(video) {
  const made = over(video) && video.longtake.images_done > 0;
  return made ? `${at.content(video.id, "thumbnail", 1)}&v=${video.completed_at ?? 0}` : at.source(video.id);
}

export class Queue {
  constructor(root, { form, stage }) {
    Object.assign(this, { root, form, stage });
    this.redraw = framed(() => this.draw());
    for (const type of ["video", "selected", "read"]) on(type, this.redraw);
    root.addEventListener("dragover", (event) => this.over(event));
    root.addEventListener("drop", (event) => this.dropped(event));
  }

  draw() {
    const all = [...videos.values()];
    const working = all.filter((video) => active(video) || video.status === "paused");
    const queued = all.filter(waiting).sort(byPosition);
    const recent = all.filter(over).sort(newest).slice(0, RECENT);
    const lists = { working, queued, recent };
    for (const [name, list] of Object.entries(lists)) {
      $(`#${name}-part`).hidden = !list.length;
      keyed($(`#${name}`), list, (video) => video.id, (video) => this.make(video, name === "queued"), (row, video) => this.dress(row, video));
    }
    $("#queue-empty").hidden = all.length > 0;
    $("#queue-count").textContent = queued.length ? String(queued.length) : "";
    document.title = working.length ? `${Math.round(working[0].progress)} % · longtake` : "longtake";
  }

  make(video, movable) {
    const { id } = video;
    const grip = iconButton("grip", t("queue.move"), () => {}, { class: "icon-button grip", hidden: !movable, on: { keydown: (event) => this.key(event, id) } });
    const row = h(
      "li",
      { class: "job", draggable: movable ? "true" : null, on: { dragstart: (event) => this.drag(event, row), dragend: () => row.classList.remove("dragged") } },
      movable ? grip : null,
      h(
        "button",
        { type: "button", class: "job-open", on: { click: () => this.stage.select(id) } },
        h("img", { alt: "", class: "job-image", width: 80, height: 48, on: { error: (event) => (event.target.style.visibility = "hidden"), load: (event) => (event.target.style.visibility = "") } }),
        h("span", { class: "job-words" }, h("span", { class: "job-prompt" }), h("span", { class: "job-status" }), h("progress", { max: 100, value: 0, "aria-label": t("progress") })),
      ),
      iconButton("more", t("queue.more"), (event) => this.menu(event.currentTarget, videos.get(id)), { "aria-haspopup": "menu" }),
    );
    return row;
  }

  dress(row, video) {
    const { eta_seconds: left } = video.longtake;
    const words = video.prompt || t("untitled");
    const status = [statusOf(video), active(video) && left !== null && left !== undefined ? t("fact.left", { time: lasting(left) }) : null].filter(Boolean).join(" · ");
    const image = $(".job-image", row);
    if (image.getAttribute("src") !== posterOf(video)) image.src = posterOf(video);
    $(".job-prompt", row).textContent = words;
    $(".job-status", row).textContent = status;
    $(".job-status", row).dataset.status = video.status;
    $("progress", row).value = video.progress;
    $("progress", row).hidden = !active(video) && video.status !== "paused";
    $(".job-open", row).setAttribute("aria-current", String(this.stage.id === video.id));
    $(".icon-button:last-child", row).setAttribute("aria-label", t("queue.more.of", { words }));
    $(".grip", row)?.setAttribute("aria-label", t("queue.move.of", { words }));
  }

  menu(button, video) {
    if (!video) return;
    const { id } = video;
    const row = button.closest(".job");
    menu(button, [
      waiting(video) && { icon: "edit", label: t("act.edit.job"), act: () => this.form.edit(video) },
      { icon: "copy", label: t("act.duplicate"), act: () => tried(() => this.duplicate(video)) },
      waiting(video) && row.previousElementSibling && { icon: "up", label: t("act.up"), act: () => this.shift(id, -1) },
      waiting(video) && row.nextElementSibling && { icon: "down", label: t("act.down"), act: () => this.shift(id, 1) },
      active(video) && { icon: "pause", label: t("act.pause"), act: () => act(id, "pause") },
      active(video) && { icon: "stop", label: t("act.stop"), act: () => act(id, "stop") },
      ["paused", "failed", "cancelled"].includes(video.status) && { icon: "play", label: t("act.resume"), act: () => act(id, "resume") },
      !over(video) && { icon: "cancel", label: t("act.cancel"), act: () => act(id, "cancel") },
      ...(video.longtake.images_done ? downloads(video) : []),
      null,
      { icon: "trash", label: t("act.remove"), danger: true, act: () => remove(video) },
    ]);
  }

  // The same again, with another seed, at the end of the queue.
  async duplicate(video) {
    const { bodyOf, fill, path, randomSeed } = await import("./draft.js");
    const draft = { model: video.model };
    fill(draft, video.longtake.request);
    draft.seed = randomSeed();
    await send(path(draft), bodyOf(draft));
  }

  order() {
    return [...$("#queued").children].map((row) => row.dataset.key);
  }

  shift(id, direction) {
    const order = this.order();
    const from = order.indexOf(id);
    const to = from + direction;
    if (to < 0 || to >= order.length) return;
    const rest = order.filter((one) => one !== id);
    this.move(id, rest[to] ?? null);
  }

  move(id, before) {
    return act(id, "move", { before });
  }

  key(event, id) {
    const direction = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    this.shift(id, direction);
  }

  drag(event, row) {
    event.dataTransfer.setData("application/x-longtake", row.dataset.key);
    event.dataTransfer.effectAllowed = "move";
    row.classList.add("dragged");
  }

  // Shows where a dragged row would go.
  over(event) {
    const moved = $(".job.dragged", this.root);
    const row = event.target.closest("#queued .job");
    if (!moved) return;
    event.preventDefault();
    if (!row || row === moved) return;
    const box = row.getBoundingClientRect();
    const below = event.clientY > box.top + box.height / 2;
    row.parentElement.insertBefore(moved, below ? row.nextSibling : row);
  }

  dropped(event) {
    const moved = $(".job.dragged", this.root);
    if (!moved) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(moved.dataset.key, moved.nextElementSibling?.dataset.key ?? null);
  }
}

