// The video that is being thought of: what the form and the time line say, as the server wants it. A reload keeps it.

import { cuesOf, storyboardOf } from "./timeline.js";

const KEY = "longtake.draft";
const PRESETS = "longtake.presets";

const EMPTY = {
  mode: "create", // or extend
  editing: null, // id of the queued video that is edited
  video: null, // what is made longer: { id } or an upload's id
  side: "after",
  image: null, // an upload's id
  prompt: "",
  model: "",
  seconds: 12,
  order: "",
  schedule: "",
  steps: null,
  guidance: null,
  negative: "",
  size: "",
  seed: 0,
  fresh: true, // another seed for each video
  cues: [],
  loop: false,
  extra: {}, // of a restored request, what the form has no field for
};

// Fields of a request that have one on the form; null keeps the form's own.
const KNOWN = {
  prompt: "prompt",
  model: "model",
  seconds: "seconds",
  order: "order",
  schedule: "schedule",
  steps: "steps",
  guidance: "guidance",
  negative_prompt: "negative",
  seed: "seed",
  image: "image",
};
const APART = new Set([...Object.keys(KNOWN), "storyboard", "width", "height", "video", "side"]);

// Ready choices; {} of them is what the model itself would do.
export const READY = {
  usual: { seconds: 12, order: "", schedule: "", steps: null, guidance: null, loop: false },
  sketch: { seconds: 6, steps: 4, order: "", schedule: "" },
  take: { seconds: 30, order: "vanilla", schedule: "", steps: null },
  backwards: { seconds: 18, order: "inverted", schedule: "", steps: null, loop: false },
  circle: { seconds: 12, order: "vanilla", schedule: "", steps: null, loop: true },
};

export const randomSeed = () => Math.floor(Math.random() * 2 ** 31);

export function loadDraft() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return { ...EMPTY, seed: randomSeed(), ...kept, cues: cuesOf(kept.storyboard) };
  } catch {
    return { ...EMPTY, seed: randomSeed(), cues: [] };
  }
}

export function keepDraft({ cues, ...draft }) {
  localStorage.setItem(KEY, JSON.stringify({ ...draft, storyboard: storyboardOf({ cues, loop: draft.loop }) }));
}

export const ownPresets = () => JSON.parse(localStorage.getItem(PRESETS) ?? "{}");

export function keepPreset(name, draft) {
  const { model, seconds, order, schedule, steps, guidance, negative, size, loop } = draft;
  localStorage.setItem(PRESETS, JSON.stringify({ ...ownPresets(), [name]: { model, seconds, order, schedule, steps, guidance, negative, size, loop } }));
}

export function dropPreset(name) {
  const { [name]: dropped, ...rest } = ownPresets();
  localStorage.setItem(PRESETS, JSON.stringify(rest));
}

// What a request says, into the draft; what it leaves open is the model's own choice again.
export function fill(draft, request, { image = request.image ?? null } = {}) {
  const kept = { model: draft.model };
  Object.assign(draft, structuredClone(EMPTY), kept, { fresh: false });
  for (const [name, own] of Object.entries(KNOWN)) if (request[name] !== undefined && request[name] !== null) draft[own] = request[name];
  draft.image = image;
  if (request.width && request.height) draft.size = `${request.width}x${request.height}`;
  if (request.video) Object.assign(draft, { mode: "extend", video: request.video, side: request.side ?? "after" });
  draft.cues = cuesOf(request.storyboard);
  draft.loop = Boolean(request.storyboard?.loop);
  draft.extra = Object.fromEntries(Object.entries(request).filter(([name, value]) => !APART.has(name) && value !== null && JSON.stringify(value) !== "{}"));
}

export const path = (draft, verb = "videos") => (verb === "videos" && draft.mode === "extend" ? "v1/videos/extensions" : `v1/${verb}`);

// The body of a call that plans or makes the draft.
export function bodyOf(draft) {
  const board = storyboardOf(draft);
  const body = {
    prompt: draft.prompt,
    model: draft.model || undefined,
    seconds: draft.seconds,
    seed: draft.seed,
    order: draft.order || undefined,
    schedule: draft.schedule || undefined,
    num_inference_steps: draft.steps ?? undefined,
    true_cfg_scale: draft.guidance ?? undefined,
    negative_prompt: draft.negative || undefined,
    size: draft.size || undefined,
    storyboard: board.cues.length || board.loop ? board : undefined,
    longtake: Object.keys(draft.extra).length ? draft.extra : undefined,
  };
  if (draft.mode === "extend") return { ...body, video: draft.video, side: draft.side };
  return { ...body, input_reference: draft.image ?? undefined };
}
