// What the server knows, kept current by its events. Whoever shows it listens; nobody polls.

import { read } from "./api.js";

export const videos = new Map(); // id -> Video, with its plan where that was read
export const previews = new Map(); // id -> the newest look at the section in work
export const models = new Map(); // id -> model
export const live = new EventTarget();
export const health = { engine: "loading", workers: 0, queued: 0, authorization: "none", version: "", away: false };

const TYPES = ["job", "plan", "step", "preview", "section", "deleted", "log"];
const PAGE = 100;
const RETRY = 1000; // milliseconds, as the server says, where the browser has given up

const tell = (type, detail = {}) => live.dispatchEvent(new CustomEvent(type, { detail }));

export const on = (type, listener) => live.addEventListener(type, (event) => listener(event.detail));

export const active = (video) => video.status === "in_progress";
export const waiting = (video) => video.status === "queued";
export const over = (video) => ["completed", "failed", "cancelled"].includes(video.status);
export const partial = (video) => video.status === "completed" && video.progress < 100;

// True of a section whose images are there: decoding can be one section behind.
export const there = (video, one) => one?.state === "done" && (Boolean(one.meter) || video.status === "completed");

// A mark of what a section holds, which changes when it is made again.
export const madeAs = (section) => `${section.index}.${section.seconds ?? 0}`;

function merged(video) {
  const known = videos.get(video.id);
  const plan = video.longtake.plan ?? known?.longtake.plan ?? null;
  return { ...known, ...video, longtake: { ...known?.longtake, ...video.longtake, plan } };
}

function keep(video) {
  videos.set(video.id, merged(video));
  tell("video", { id: video.id });
}

// Percent of the steps of all sections.
function progress({ longtake: { sections } }) {
  const made = sections.map(({ state, step, steps }) => (state === "done" ? 1 : state === "working" ? step / (steps || 1) : 0));
  return Math.floor((100 * made.reduce((sum, share) => sum + share, 0)) / (sections.length || 1));
}

const HANDLERS = {
  job: (video) => {
    if (!active(video)) previews.delete(video.id);
    keep(video);
  },
  plan: ({ id, plan }) => {
    const video = videos.get(id);
    if (!video) return;
    video.longtake.plan = plan;
    tell("video", { id });
  },
  step: ({ id, section, place, step, steps, eta_seconds }) => {
    const video = videos.get(id);
    const known = video?.longtake.sections.find((one) => one.place === place);
    if (!known) return;
    Object.assign(known, { index: section, state: "working", step, steps });
    video.longtake.eta_seconds = eta_seconds;
    video.progress = progress(video);
    tell("video", { id });
  },
  preview: (preview) => {
    previews.set(preview.id, preview);
    tell("preview", { id: preview.id });
  },
  section: ({ id, section, place, images_done, seconds, meter, ready }) => {
    const video = videos.get(id);
    if (!video) return;
    const sections = video.longtake.sections;
    const known = sections.find((one) => one.place === place);
    if (known) Object.assign(known, { index: section, state: "done", seconds });
    for (const decoded of meter ?? []) {
      const one = sections.find((other) => other.place === decoded.place);
      if (one) one.meter = decoded;
    }
    video.longtake.images_done = images_done;
    video.progress = progress(video);
    previews.delete(id);
    tell("section", { id, place, ready: ready ?? [place] });
    tell("video", { id });
  },
  deleted: ({ id }) => {
    videos.delete(id);
    previews.delete(id);
    tell("deleted", { id });
    tell("video", { id });
  },
  log: ({ id, message }) => tell("log", { id, message }),
};

async function readAll() {
  const found = new Map();
  for (let after = ""; ; ) {
    const page = await read(`v1/videos?limit=${PAGE}&order=desc${after && `&after=${after}`}`);
    for (const video of page.data) found.set(video.id, video);
    if (!page.has_more) break;
    after = page.last_id;
  }
  for (const id of videos.keys()) if (!found.has(id)) HANDLERS.deleted({ id });
  for (const video of found.values()) keep(video);
}

// A video with its plan; lists come without.
export async function whole(id) {
  const video = await read(`v1/videos/${id}`);
  keep(video);
  return videos.get(id);
}

export async function readModels() {
  const { data } = await read("v1/models");
  models.clear();
  for (const model of data) models.set(model.id, model);
  tell("models");
}

export async function readHealth() {
  try {
    Object.assign(health, await read("health"), { away: false });
  } catch {
    health.away = true;
  }
  tell("health");
  return health;
}

let last = "";
let held = null; // what is told while all is read: it is newer

// Listens first and reads then, so that nothing falls between; after a break it reads all again.
export function listen() {
  const source = new EventSource(`v1/events${last && `?after=${last}`}`);
  for (const type of TYPES) {
    source.addEventListener(type, (event) => {
      last = event.lastEventId || last;
      const data = JSON.parse(event.data);
      if (held) held.push([type, data]);
      else HANDLERS[type](data);
    });
  }
  source.addEventListener("open", async () => {
    const mine = (held = []);
    await readHealth();
    try {
      await readAll();
      if (held === mine) held = null;
      for (const [type, data] of mine) HANDLERS[type](data);
      tell("read");
    } catch {
      health.away = true; // again: the next line that opens reads anew
      tell("health");
    }
  });
  source.addEventListener("error", () => {
    health.away = true;
    tell("health");
    if (source.readyState !== EventSource.CLOSED) return; // the browser asks again by itself
    source.close();
    setTimeout(listen, RETRY);
  });
}
