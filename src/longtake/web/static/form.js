// The form: a start image, words, and how the video is to be made. What it says is planned as it is said.

import { Refusal, at, restore, send, upload } from "./api.js";
import { drawPlan, legend, summary } from "./plan.js";
import { $, clamp, debounced, framed, h } from "./dom.js";
import { ask, menu, note, tried } from "./dialogs.js";
import { READY, bodyOf, dropPreset, fill, keepDraft, keepPreset, loadDraft, ownPresets, path, randomSeed } from "./draft.js";
import { models, on, videos } from "./live.js";
import { Timeline } from "./timeline.js";
import { lasting, number, t } from "./words.js";

const EXAMPLES = ["01", "02", "03", "04", "05", "06", "07", "08"];
const PAUSE = 180; // milliseconds of quiet before a plan is asked for
const UPLOAD = /upload_[0-9a-f]{24}(\.\w+)?/g;
const LONGEST = 240; // seconds on the slider; the field takes more

// The fields that errors can name, by their names in a request.
const FIELDS = {
  prompt: "prompt", seconds: "seconds", num_frames: "seconds", seed: "seed", model: "model", order: "order", sampling_type: "order", schedule: "schedule",
  num_inference_steps: "steps", steps: "steps", true_cfg_scale: "guidance", guidance: "guidance", negative_prompt: "negative", size: "size", width: "size", height: "size",
  input_reference: "image", image: "image", video: "image", side: "image", storyboard: "storyboard", last_image: "storyboard",
};

// Turns of five sections, to show what an order does.
const TURNS = { vanilla: [1, 2, 3, 4, 5], inverted: [5, 4, 3, 2, 1], planned: [3, 4, 1, 5, 2], anti_drifting: [1, 3, 4, 5, 2] };

export class Form {
  constructor(root, { made }) {
    this.root = root;
    this.made = made;
    this.draft = loadDraft();
    this.plan = null;
    this.asking = null;
    this.coming = null;
    this.refusals = {};
    this.line = new Timeline($("#timeline"), $("#cue-editor"), this.draft, (refusal) => this.changed(refusal));
    this.replan = debounced(PAUSE, () => this.ask());
    this.redraw = framed(() => this.drawn());
    new ResizeObserver(this.redraw).observe($("#plan"));
    this.listen();
    this.examples();
    this.show();
    on("models", () => {
      this.offer();
      this.show();
      this.ask();
    });
  }

  field(name) {
    return this.root.elements[name];
  }

  listen() {
    const { root, draft } = this;
    const reads = {
      prompt: (value) => (draft.prompt = value),
      seconds: (value) => this.long(Number(value)),
      slider: (value) => this.long(Number(value)),
      seed: (value) => Object.assign(draft, { seed: Number(value), fresh: false }),
      fresh: (_, field) => (draft.fresh = field.checked),
      model: (value) => Object.assign(draft, { model: value, order: "", schedule: "", size: "" }),
      order: (value) => (draft.order = value),
      schedule: (value) => (draft.schedule = value.trim()),
      steps: (value) => (draft.steps = value === "" ? null : Number(value)),
      guidance: (value) => (draft.guidance = value === "" ? null : Number(value)),
      negative: (value) => (draft.negative = value),
      size: (value) => (draft.size = value),
      side: (value) => (draft.side = value),
      loop: (_, field) => (draft.loop = field.checked),
    };
    root.addEventListener("input", (event) => {
      const { name, value } = event.target;
      if (!(name in reads)) return;
      reads[name](value, event.target);
      if (name === "model") this.offer();
      if (["model", "seconds", "slider", "seed", "order"].includes(name)) this.show(event.target);
      this.changed();
    });
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    root.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) root.requestSubmit();
    });
    $("#loop").addEventListener("change", (event) => {
      draft.loop = event.target.checked;
      this.changed();
    });
    $("#image-file").addEventListener("change", (event) => {
      if (event.target.files[0]) this.image(event.target.files[0]);
      event.target.value = "";
    });
    $("#image-away").addEventListener("click", () => this.start(null));
    $("#roll-seed").addEventListener("click", () => {
      draft.seed = randomSeed();
      this.show();
      this.changed();
    });
    $("#presets").addEventListener("click", (event) => this.presets(event.currentTarget));
    $("#edit-away").addEventListener("click", () => this.leave());
  }

  // What the chosen model can do, as choices.
  offer() {
    const { draft } = this;
    const list = [...models.values()];
    if (!models.has(draft.model)) draft.model = (list.find((one) => one.longtake.default) ?? list[0])?.id ?? "";
    const choices = (select, values, words = (value) => value) => select.replaceChildren(...values.map((value) => h("option", { value }, words(value))));
    choices($("#model"), list.map((one) => one.id), (id) => (models.get(id).longtake.present ? id : t("model.absent", { id })));
    const model = this.model();
    if (!model) return;
    choices($("#size"), ["", ...model.sizes.map(([w, hgt]) => `${w}x${hgt}`)], (size) => (size || `${model.size[0]}x${model.size[1]}`).replace("x", " × ") + (size ? "" : ` · ${t("own")}`));
    $("#schedules").replaceChildren(...model.schedules.map((value) => h("option", { value })));
    $("#orders").replaceChildren(...["", ...model.orders.filter((order) => order !== model.order)].map((order) => this.choice(order, order || model.order)));
    this.field("steps").placeholder = model.steps;
    this.field("guidance").placeholder = model.guidance ?? 1;
    this.field("schedule").placeholder = model.schedule ?? "";
  }

  choice(value, order) {
    const turns = TURNS[order.replace(/_?\d.*$/, "")] ?? [];
    return h(
      "label",
      { class: "order" },
      h("input", { type: "radio", name: "order", value }),
      h("span", { class: "order-turns", "aria-hidden": "true" }, turns.map((turn) => h("span", { data: { turn } }, String(turn)))),
      h("span", { class: "order-name" }, t(`order.${order}`)),
    );
  }

  model() {
    return models.get(this.draft.model)?.longtake ?? null;
  }

  examples() {
    const pick = async (name) => {
      const [image, words] = await Promise.all(["png", "txt"].map((kind) => fetch(`examples/${name}.${kind}`)));
      this.draft.prompt = (await words.text()).trim();
      await this.image(new File([await image.blob()], `${name}.png`, { type: "image/png" }));
    };
    $("#examples").replaceChildren(
      ...EXAMPLES.map((name) =>
        h("button", { type: "button", class: "example", "aria-label": t("example", { n: Number(name) }), on: { click: () => (this.coming = tried(() => pick(name))) } }, h("img", { src: `examples/${name}.png`, alt: "", width: 160, height: 96 })),
      ),
    );
  }

  long(seconds) {
    if (Number.isFinite(seconds) && seconds > 0) this.draft.seconds = seconds;
  }

  // The draft on the form; a field that is being typed into stays as it is.
  show(typed = null) {
    const { draft, root } = this;
    const put = (name, value) => {
      const field = root.elements[name];
      if (field && field !== typed) field.value = value ?? "";
    };
    for (const name of ["prompt", "seconds", "seed", "model", "schedule", "steps", "guidance", "negative", "size"]) put(name, draft[name]);
    put("slider", clamp(draft.seconds, 1, LONGEST));
    const model = this.model();
    const order = draft.order === model?.order ? "" : draft.order;
    for (const radio of root.querySelectorAll("[name=order]")) radio.checked = radio.value === order;
    for (const radio of root.querySelectorAll("[name=side]")) radio.checked = radio.value === draft.side;
    this.field("fresh").checked = draft.fresh;
    $("#loop").checked = draft.loop;
    $("#loop").disabled = draft.mode === "extend";
    const extending = draft.mode === "extend";
    $("#sides").hidden = !extending;
    $("#start-title").textContent = t(extending ? "start.video" : "start");
    const picture = extending ? (videos.has(draft.video?.id) ? at.content(draft.video.id, "thumbnail", 1) : null) : draft.image && at.upload(draft.image);
    const shown = $("#image");
    shown.hidden = !picture;
    if (picture && shown.getAttribute("src") !== picture) shown.src = picture;
    $("#drop").classList.toggle("filled", Boolean(picture) || extending);
    $("#image-away").hidden = !(picture || extending);
    $("#extended").hidden = !extending;
    $("#extended").textContent = extending ? (videos.get(draft.video?.id)?.prompt ?? t("start.file")) : "";
    $("#start-examples").hidden = Boolean(picture) || extending;
    $("#editing").hidden = !draft.editing;
    $("#make-words").textContent = t(draft.editing ? "save" : "make");
  }

  // Says it, keeps it, and plans it again.
  changed(refusal = null) {
    keepDraft(this.draft);
    this.say("file", refusal);
    this.say("made", null);
    this.replan();
  }

  async ask() {
    if (!this.model()) return;
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    try {
      const plan = await send("v1/plan", bodyOf(this.draft), "POST", { signal: asking.signal });
      this.plan = plan;
      this.say("plan", null);
      this.redraw();
    } catch (error) {
      if (error.name !== "AbortError") this.say("plan", error);
    }
  }

  drawn() {
    const { plan } = this;
    if (!plan) return;
    this.line.show(plan);
    drawPlan($("#plan"), plan);
    $("#plan-summary").textContent = summary(plan);
    $("#plan-legend").replaceChildren(legend(plan));
    $("#told").replaceChildren(...(plan.told ?? []).map((line) => h("li", {}, line.replace(UPLOAD, t("told.file")))));
    $("#told").hidden = !plan.told?.length;
    $("#make-time").textContent = plan.estimate_seconds ? t("make.time", { time: lasting(plan.estimate_seconds) }) : "";
    $("#length-says").textContent = t("length.says", { n: plan.sections.length, seconds: number(plan.images / plan.fps, 2) });
  }

  // One sentence beside the field that it is about, from each of those who can refuse: planning, a file, making.
  say(who, refusal) {
    this.refusals[who] = refusal;
    for (const line of document.querySelectorAll(".fault[data-field]")) line.hidden = true;
    for (const field of this.root.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    for (const { message, param } of Object.values(this.refusals).filter(Boolean)) {
      const name = FIELDS[(param ?? "").split(".").at(-1)] ?? FIELDS[(param ?? "").split(".")[0]] ?? "form";
      const line = $(`.fault[data-field="${name}"]`);
      line.textContent = message;
      line.hidden = false;
      line.closest("details")?.setAttribute("open", "");
      const field = this.root.elements[name];
      if (field instanceof HTMLElement) field.setAttribute("aria-invalid", "true");
    }
  }

  start(image) {
    const { draft } = this;
    Object.assign(draft, { image, video: null, mode: "create" });
    this.show();
    this.changed();
  }

  image(file) {
    return (this.coming = this.taken(file));
  }

  async taken(file) {
    try {
      const { id, kind } = await upload(file);
      if (kind === "video") return this.extend(id);
      this.start(id);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.say("file", { message: error.message, param: "image" });
    }
    return undefined;
  }

  // A file from anywhere: one of our videos brings its settings, another one is made longer, an image is what to start from.
  async file(file) {
    if (!file.type.startsWith("video/")) return this.image(file);
    try {
      const { request, image } = await restore(file);
      this.use(request, { image });
      note(t("restored"));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.status !== 422) return this.say("file", { message: error.message, param: "image" });
      note(t("restored.not"));
      await this.image(file);
    }
    return undefined;
  }

  use(request, more = {}) {
    fill(this.draft, request, more);
    this.line.chosen = null;
    this.offer();
    this.show();
    this.changed();
    this.field("prompt").focus({ preventScroll: true });
  }

  edit(video) {
    this.use(video.longtake.request);
    this.draft.editing = video.id;
    this.show();
  }

  leave() {
    Object.assign(this.draft, { editing: null, mode: "create" });
    this.show();
    this.changed();
  }

  extend(video) {
    const known = videos.get(video);
    Object.assign(this.draft, { mode: "extend", editing: null, video: known ? { id: video } : video, side: "after", cues: [], loop: false, image: null });
    if (known) Object.assign(this.draft, { prompt: known.prompt, model: known.model, order: "", schedule: "", size: "" });
    this.line.draft = this.draft;
    this.show();
    this.changed();
    this.field("prompt").focus();
  }

  async submit() {
    const { draft } = this;
    const button = $("#make");
    await this.coming; // an image that is on its way
    if (draft.mode === "create" && !draft.image) return this.say("made", { message: t("start.missing"), param: "image" });
    button.disabled = true;
    try {
      if (draft.editing) {
        await send(`v1/videos/${draft.editing}`, { request: bodyOf(draft) }, "PATCH");
        this.leave();
        note(t("saved"));
      } else {
        const video = await send(path(draft), bodyOf(draft));
        this.made(video);
      }
      if (draft.fresh) draft.seed = randomSeed();
      keepDraft(draft);
      this.show();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.say("made", error);
    } finally {
      button.disabled = false;
    }
    return undefined;
  }

  presets(button) {
    const apply = (values) => () => {
      Object.assign(this.draft, values);
      this.offer();
      this.show();
      this.changed();
    };
    const own = ownPresets();
    menu(button, [
      ...Object.entries(READY).map(([name, values]) => ({ icon: "settings", label: t(`preset.${name}`), act: apply(values) })),
      null,
      ...Object.entries(own).map(([name, values]) => ({ icon: "settings", label: name, act: apply(values) })),
      { icon: "plus", label: t("preset.keep"), act: () => this.keepPreset() },
      ...Object.keys(own).map((name) => ({ icon: "trash", label: t("preset.drop", { name }), danger: true, act: () => dropPreset(name) })),
    ]);
  }

  async keepPreset() {
    const answer = await ask({ title: t("preset.keep"), fields: [{ name: "name", label: t("preset.name"), required: true, maxlength: 40 }], ok: t("save") });
    if (answer) keepPreset(answer.name, this.draft);
  }
}

