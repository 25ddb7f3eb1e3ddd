// The storyboard: words, key images and seeds on tracks above the plan. What is dragged snaps to sections.

import { at as address, upload } from "./api.js";
import { Scale, secondsOf } from "./board.js";
import { clamp, h, icon, iconButton, keyed } from "./dom.js";
import { at as time, t } from "./words.js";

// Where each kind can stand, in boundaries between sections: an image where one ends, all else where one begins.
const KINDS = {
  prompt: { track: "prompt", least: 0, short: 1, fresh: () => ({ prompt: "" }) },
  image: { track: "image", least: 1, short: 0, fresh: () => ({ image: null }) },
  seed: { track: "seed", least: 0, short: 1, fresh: () => ({ seed: Math.floor(Math.random() * 1e6) }) },
  guidance: { track: "seed", least: 0, short: 1, fresh: () => ({ guidance: 2 }) },
};
const TRACKS = ["prompt", "image", "seed"];
const ICONS = { prompt: "words", image: "image", seed: "dice" };
const TICK = 56; // pixels that a time on the ruler needs
const LINE = 12; // and that a line between sections does

// The least of 1, 2, 5, 10, ... that is not below a number.
const rounded = (least) => [...Array(21).keys()].map((i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3)).find((step) => step >= least);

const source = (id) => address.upload(id);

let serial = 0;

export const cue = (kind, at, more = {}) => ({ id: ++serial, kind, at, until: null, ...KINDS[kind].fresh(), ...more });

// Cues as a storyboard has them, one for each thing that is said.
export function cuesOf(storyboard) {
  return (storyboard?.cues ?? []).flatMap(({ at, until = null, ...said }) =>
    Object.keys(KINDS)
      .filter((kind) => said[kind] !== null && said[kind] !== undefined)
      .map((kind) => cue(kind, at, { until: kind === "image" ? null : until, [kind]: said[kind] })),
  );
}

export function storyboardOf(draft) {
  const cues = draft.cues
    .filter(({ kind, [kind]: said }) => said !== null && said !== "")
    .map(({ kind, at, until, [kind]: said }) => ({ at, ...(until === null ? {} : { until }), [kind]: said }));
  return { cues, loop: draft.loop };
}

export class Timeline {
  constructor(root, editor, draft, changed) {
    Object.assign(this, { root, editor, draft, changed, chosen: null, plan: null });
    this.tracks = Object.fromEntries(TRACKS.map((name) => [name, this.track(name)]));
    this.ruler = h("div", { class: "ruler", "aria-hidden": "true" });
    this.start = h("img", { class: "lane-start", alt: "", hidden: true });
    this.whole = h("p", { class: "lane-words" });
    this.tracks.image.element.append(this.start);
    this.tracks.prompt.lane.prepend(this.whole);
    root.replaceChildren(this.ruler, ...Object.values(this.tracks).map(({ element }) => element));
  }

  track(name) {
    const items = h("div", { class: "items", role: "list", "aria-label": t(`track.${name}`) });
    const add = h(
      "button",
      { type: "button", class: "track-name", disabled: true, "aria-label": t(`track.${name}.add`), title: t(`track.${name}.add`), on: { click: () => this.add(name) } },
      icon("plus"),
      h("span", { class: "track-words" }, t(`track.${name}`)),
      h("span", { class: "track-icon" }, icon(ICONS[name])),
    );
    const lane = h("div", {
      class: "lane",
      on: {
        dblclick: (event) => event.target === lane && this.add(name, this.boundary(event, KINDS[name])),
        ...(name === "image" ? this.dropping() : {}),
      },
    });
    lane.append(items);
    return { element: h("div", { class: `track track-${name}` }, add, lane), lane, items };
  }

  // A picture dropped on its track becomes a key image there.
  dropping() {
    return {
      dragover: (event) => event.preventDefault(),
      drop: (event) => {
        const file = [...event.dataTransfer.files].find((one) => one.type.startsWith("image/"));
        if (!file) return;
        event.preventDefault();
        event.stopPropagation();
        document.body.classList.remove("dropping");
        this.add("image", this.boundary(event, KINDS.image), file);
      },
    };
  }

  boundary(event, { least, short }) {
    const x = event.clientX - this.root.getBoundingClientRect().left;
    return this.scale.nearest(x - (short ? this.scale.cell / 2 : 0), least, this.scale.places - short);
  }

  show(plan) {
    this.plan = plan;
    this.draw();
  }

  place(item) {
    const { least, short } = KINDS[item.kind];
    return clamp(Math.round(item.at / this.seconds), least, this.scale.places - short);
  }

  // The boundary where what is said ends: its own end, or where another of its kind begins.
  end(item) {
    const own = item.until === null ? this.scale.places : Math.round(item.until / this.seconds);
    const following = this.draft.cues.filter((other) => other.kind === item.kind && other.at > item.at).map((other) => this.place(other));
    return clamp(Math.min(own, ...following), this.place(item) + 1, this.scale.places);
  }

  draw() {
    if (!this.plan || !this.root.clientWidth) return;
    this.scale = new Scale(this.plan, this.root.clientWidth);
    this.seconds = secondsOf(this.plan);
    this.root.style.setProperty("--gutter", `${this.scale.gutter}px`);
    this.root.style.setProperty("--begin", `${this.scale.begin}px`);
    this.root.style.setProperty("--cell", `${this.scale.cell * rounded(LINE / this.scale.cell)}px`);
    this.root.style.setProperty("--room", `${this.scale.room}px`);
    this.root.classList.toggle("narrow", this.scale.narrow);
    this.around();
    for (const [name, { element, items }] of Object.entries(this.tracks)) {
      element.querySelector(".track-name").disabled = false;
      const mine = this.draft.cues.filter((item) => KINDS[item.kind].track === name);
      mine.sort((one, other) => one.at - other.at);
      keyed(items, mine, (item) => item.id, (item) => this.make(item), (element, item) => this.dress(element, item));
    }
    this.edit();
  }

  // What needs no cue: the scale of time, the start image, and the words that hold where no others do.
  around() {
    const every = rounded(TICK / this.scale.cell);
    const ticks = [...Array(Math.floor(this.scale.places / every) + 1).keys()].map((k) => k * every);
    this.ruler.replaceChildren(...ticks.map((k) => h("span", { style: { left: `${this.scale.place(k)}px` } }, time(k * this.seconds))));
    this.start.hidden = !this.draft.image || !this.scale.lead;
    if (!this.start.hidden) {
      if (this.start.getAttribute("src") !== source(this.draft.image)) this.start.src = source(this.draft.image);
      this.start.style.left = `${this.scale.gutter - 2}px`;
      this.start.style.width = `${this.scale.lead - 2}px`;
    }
    this.whole.textContent = this.draft.prompt;
    const heard = this.draft.cues.filter((item) => item.kind === "prompt").reduce((sum, item) => sum + this.end(item) - this.place(item), 0);
    this.whole.hidden = !this.draft.prompt || heard >= this.scale.places;
  }

  make(item) {
    const name = h("span", { class: "cue-words" });
    const button = h(
      "button",
      {
        type: "button",
        class: `cue cue-${item.kind}`,
        on: {
          click: () => this.choose(item, true),
          keydown: (event) => this.key(event, item),
          pointerdown: (event) => this.drag(event, item, button),
        },
      },
      item.kind === "image" ? h("img", { class: "cue-image", alt: "" }) : null,
      name,
      h("span", { class: "cue-time", "aria-hidden": "true" }),
    );
    return h("div", { role: "listitem", class: "cue-place" }, button);
  }

  says(item) {
    const words = item.kind === "prompt" ? item.prompt || t("cue.empty") : item.kind === "image" ? t("cue.image") : t(`cue.${item.kind}`, { value: String(item[item.kind]) });
    const place = this.place(item);
    const from = time(place * this.seconds);
    return { words, name: item.kind === "image" ? t("cue.name.at", { words, at: from }) : t("cue.name", { words, from, to: time(this.end(item) * this.seconds), section: place + 1 }) };
  }

  dress(element, item) {
    const button = element.firstChild;
    const place = this.place(item);
    const snapped = place * this.seconds;
    const { words, name } = this.says(item);
    element.style.left = `${this.scale.place(place)}px`;
    element.style.width = item.kind === "image" ? "0" : `${(this.end(item) - place) * this.scale.cell - 3}px`;
    button.setAttribute("aria-label", name);
    button.title = name;
    button.setAttribute("aria-pressed", String(this.chosen === item));
    button.querySelector(".cue-words").textContent = item.kind === "image" ? "" : words;
    const moved = Math.abs(item.at - snapped) > 0.01;
    button.querySelector(".cue-time").textContent = moved ? `${time(item.at)} → ${time(snapped)}` : time(snapped);
    const image = button.querySelector("img");
    if (!image) return;
    image.hidden = !item.image;
    if (item.image && image.getAttribute("src") !== source(item.image)) image.src = source(item.image);
  }

  async add(kind, boundary = null, file = null) {
    const { least, short } = KINDS[kind];
    const taken = new Set(this.draft.cues.filter((item) => item.kind === kind).map((item) => this.place(item)));
    const free = [...Array(this.scale.places - short - least + 1).keys()].map((k) => k + least).filter((k) => !taken.has(k));
    const wanted = boundary ?? (kind === "image" ? free.at(-1) : free[0]);
    if (wanted === undefined) return;
    const item = cue(kind, wanted * this.seconds);
    this.draft.cues.push(item);
    if (file) await this.picture(item, file);
    this.choose(item, true);
    this.changed();
  }

  async picture(item, file) {
    try {
      item.image = (await upload(file)).id;
      this.changed();
    } catch (refusal) {
      this.changed(refusal);
    }
    this.draw();
  }

  choose(item, focus = false) {
    this.chosen = item;
    this.draw();
    if (focus) this.editor.querySelector("textarea, input")?.focus();
  }

  remove(item) {
    const button = this.tracks[KINDS[item.kind].track].element.querySelector(".track-name");
    this.draft.cues.splice(this.draft.cues.indexOf(item), 1);
    if (this.chosen === item) this.chosen = null;
    this.draw();
    button.focus();
    this.changed();
  }

  move(item, boundary) {
    const { least, short } = KINDS[item.kind];
    const to = clamp(boundary, least, this.scale.places - short) * this.seconds;
    if (to === item.at) return;
    if (item.until !== null) item.until = Math.max(to + this.seconds, item.until + to - item.at);
    item.at = to;
    this.draw();
  }

  key(event, item) {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (direction && event.shiftKey && item.kind !== "image") {
      const end = clamp(this.end(item) + direction, this.place(item) + 1, this.scale.places);
      item.until = end === this.scale.places ? null : end * this.seconds;
      this.draw();
      this.changed();
    } else if (direction) {
      this.move(item, this.place(item) + direction);
      this.changed();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.remove(item);
    } else {
      return;
    }
    event.preventDefault();
  }

  drag(event, item, button) {
    if (event.button) return;
    const grabbed = event.clientX - this.root.getBoundingClientRect().left - this.scale.place(this.place(item));
    const ending = item.kind !== "image" && event.offsetX > button.clientWidth - 10;
    const before = [item.at, item.until];
    button.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const x = moved.clientX - this.root.getBoundingClientRect().left;
      button.classList.add("dragged");
      if (ending) {
        const end = this.scale.nearest(x, this.place(item) + 1);
        item.until = end === this.scale.places ? null : end * this.seconds;
        this.draw();
      } else this.move(item, this.scale.nearest(x - grabbed));
    };
    const done = () => {
      button.removeEventListener("pointermove", move);
      button.classList.remove("dragged");
      if (before[0] !== item.at || before[1] !== item.until) this.changed();
    };
    button.addEventListener("pointermove", move);
    button.addEventListener("lostpointercapture", done, { once: true });
  }

  // The fields of what is chosen, below the tracks.
  edit() {
    const item = this.draft.cues.includes(this.chosen) ? this.chosen : null;
    this.editor.hidden = !item;
    if (!item) return this.editor.replaceChildren();
    const { name } = this.says(item);
    const place = this.place(item);
    const from = time(place * this.seconds);
    const label = item.kind === "image" ? t("cue.at", { at: from }) : t("cue.from", { from, to: time(this.end(item) * this.seconds) });
    if (this.editor.dataset.item === String(item.id)) {
      this.editor.querySelector(".cue-when").textContent = label;
      return undefined;
    }
    this.editor.dataset.item = String(item.id);
    this.editor.setAttribute("aria-label", name);
    this.editor.replaceChildren(
      h("label", { class: "field" }, h("span", { class: "cue-when" }, label), this.field(item)),
      iconButton("trash", t("cue.remove"), () => this.remove(item)),
    );
  }

  field(item) {
    const changes = (read) => ({
      input: (event) => {
        item[item.kind] = read(event.target);
        this.draw();
        this.changed();
      },
    });
    if (item.kind === "prompt") return h("textarea", { rows: 2, placeholder: t("cue.prompt.hint"), value: item.prompt, on: changes((field) => field.value) });
    if (item.kind === "image") {
      return h("input", { type: "file", accept: "image/*", on: { change: (event) => event.target.files[0] && this.picture(item, event.target.files[0]) } });
    }
    const limits = item.kind === "seed" ? { min: 0, step: 1 } : { min: 1, max: 100, step: 0.1 };
    return h("input", { type: "number", ...limits, value: item[item.kind], on: changes((field) => (field.value === "" ? null : Number(field.value))) });
  }
}
