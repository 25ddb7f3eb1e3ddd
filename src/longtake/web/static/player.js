// Plays a video while it is made. One MediaSource has the length of the whole from the beginning; each section is put where
// it belongs as it arrives, in whatever order, and one that is made again is taken out first.

import { at, bytes } from "./api.js";
import { active, live, madeAs, on, partial, there } from "./live.js";

const Source = globalThis.ManagedMediaSource ?? globalThis.MediaSource;
const EDGE = 1.5; // images from the end of what is there that count as being at it
const BEHIND = 30; // seconds of film that stay when memory runs out

export const canStream = (codec) => Boolean(Source && codec && Source.isTypeSupported(codec));

const settled = (target, type) => new Promise((resolve) => target.addEventListener(type, resolve, { once: true }));

export class Player {
  constructor(element) {
    this.element = element;
    this.video = null; // as the server tells of it
    this.looping = true;
    this.following = true;
    this.held = new Map(); // place -> mark of what the buffer holds there, or will
    this.full = new Set(); // places that it holds
    this.work = Promise.resolve();
    this.epoch = 0;
    element.addEventListener("timeupdate", () => this.turn());
    element.addEventListener("ended", () => this.turn(true));
    element.addEventListener("waiting", () => this.turn());
    element.addEventListener("seeking", () => this.refill());
    on("section", ({ id, ready }) => id === this.video?.id && this.arrived(ready));
  }

  // Opens a video, or brings one that is open up to date.
  show(video) {
    const opened = this.video?.id !== video.id;
    const again = !opened && this.mode === "file" && !video.longtake.sections.every((one) => one.state === "done") && !partial(video);
    this.video = video;
    if (opened || again) this.open();
    else if (this.mode === "wait") this.open();
    else this.refill();
  }

  close() {
    this.epoch++;
    this.video = null;
    this.mode = "none";
    this.held.clear();
    this.full.clear();
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.element.removeAttribute("src");
    this.element.load();
  }

  open() {
    const video = this.video;
    this.close();
    this.video = video;
    const { plan, codec, images_done } = video.longtake;
    if (video.status === "completed") this.file(0);
    else if (!plan || !images_done || !codec) this.mode = "wait";
    else if (canStream(codec)) this.stream(codec, plan);
    else this.file(1);
  }

  // The file as it is: all of it, or what is decoded in a row from its beginning.
  file(growing) {
    this.mode = growing ? "growing" : "file";
    this.element.loop = false;
    this.element.src = `${at.content(this.video.id, "video", growing)}&v=${this.video.longtake.images_done}.${this.video.longtake.revision}.${this.video.completed_at ?? 0}`;
    this.play();
  }

  stream(codec, plan) {
    const epoch = this.epoch;
    const source = new Source();
    this.mode = "stream";
    this.source = source;
    this.element.disableRemotePlayback = true;
    this.url = URL.createObjectURL(source);
    this.element.src = this.url;
    this.work = settled(source, "sourceopen").then(() => {
      if (epoch !== this.epoch) return;
      source.duration = plan.images / plan.fps;
      this.buffer = source.addSourceBuffer(codec);
      this.buffer.mode = "segments";
      this.refill();
    });
  }

  // Every section that is made and not in the buffer is fetched; every one that is in it and not made any more leaves.
  refill() {
    if (this.mode === "growing") return this.grow();
    if (this.mode !== "stream" || !this.video) return undefined;
    const { sections, plan } = this.video.longtake;
    const state = new Map(sections.map((one) => [one.place, one]));
    if (this.lead()) this.want(-1, "first");
    for (const section of plan.sections) {
      const one = state.get(section.place);
      if (there(this.video, one)) this.want(section.place, madeAs(one));
      else if (this.held.has(section.place)) this.drop(section.place);
    }
    return undefined;
  }

  grow() {
    const wanted = this.video.status === "completed" ? 0 : 1;
    const mark = `v=${this.video.longtake.images_done}.`;
    if (this.element.src.includes(mark) && wanted) return;
    const { currentTime, paused } = this.element;
    this.file(wanted);
    this.element.currentTime = currentTime;
    if (paused) this.element.pause();
  }

  // What came last is looked at first; the video's own change follows, and fills.
  arrived(ready) {
    this.fresh = ready.at(-1);
  }

  get edge() {
    return EDGE / this.video.longtake.plan.fps;
  }

  // Seconds that come before the first section as a piece of their own: a source. A start image is in the first piece.
  lead() {
    const { plan } = this.video.longtake;
    return this.video.longtake.kind === "extend" ? plan.first_images / plan.fps : 0;
  }

  // When a piece begins and ends, in seconds.
  span(place) {
    const { plan } = this.video.longtake;
    if (place < 0) return [0, this.lead()];
    const section = plan.sections.find((one) => one.place === place);
    return [place === 0 ? this.lead() : section.images[0] / plan.fps, section.images[1] / plan.fps];
  }

  want(place, mark) {
    if (this.held.get(place) === mark) return;
    const replaced = this.held.has(place);
    this.held.set(place, mark);
    this.queue(async () => {
      const data = await bytes(at.section(this.video.id, place, mark), { cache: "no-cache" });
      if (this.held.get(place) !== mark) return;
      const [begin, end] = this.span(place);
      if (replaced) await this.takeOut(place);
      await this.put(data, begin);
      this.placed(place, begin, end);
    }, () => this.held.get(place) === mark && this.held.delete(place));
  }

  drop(place) {
    this.held.delete(place);
    this.queue(() => this.takeOut(place));
  }

  // One change of the buffer after another; those of a video that is not shown any more are not made.
  queue(task, failed = () => {}) {
    const epoch = this.epoch;
    this.work = this.work.then(async () => {
      if (epoch !== this.epoch || !this.buffer || this.source.readyState === "closed") return;
      try {
        await task();
      } catch (error) {
        failed(); // it is asked for again when something changes
        if (error.name === "QuotaExceededError") await this.makeRoom();
      }
    });
  }

  async put(data, begin) {
    this.buffer.timestampOffset = begin;
    this.buffer.appendBuffer(data);
    await settled(this.buffer, "updateend");
  }

  async takeOut(place) {
    const [begin, end] = this.span(place);
    this.full.delete(place);
    const half = 0.5 / this.video.longtake.plan.fps; // so that the key image of the next section stays
    this.buffer.remove(begin, end - half);
    await settled(this.buffer, "updateend");
  }

  // Lets go of what is farthest from what plays; it is fetched again when the reader goes there.
  async makeRoom() {
    const now = this.element.currentTime;
    const far = [...this.held.keys()].map((place) => [place, ...this.span(place)]).filter(([, begin, end]) => end < now - BEHIND || begin > now + BEHIND);
    for (const [place] of far) {
      this.held.delete(place);
      await this.takeOut(place);
    }
  }

  placed(place, begin, end) {
    const { element } = this;
    const first = this.full.size === 0;
    this.full.add(place);
    const all = this.video.longtake.sections.every((one) => this.full.has(one.place));
    if (all && this.source.readyState === "open") this.source.endOfStream();
    const outside = !this.range(element.currentTime);
    if (first || (outside && !element.seeking) || (this.following && this.fresh === place && begin < element.currentTime - this.edge && backwards(this.video))) {
      element.currentTime = begin + 0.001;
    }
    if (this.following) this.play();
    live.dispatchEvent(new CustomEvent("placed", { detail: { id: this.video.id, place, begin, end } }));
  }

  // The range of the buffer that holds a time.
  range(time) {
    const { buffered } = this.element;
    for (let i = 0; i < buffered.length; i++) {
      if (time >= buffered.start(i) - this.edge && time <= buffered.end(i) + this.edge) return [buffered.start(i), buffered.end(i)];
    }
    return null;
  }

  // At the end of what is there: waits where more is about to come, jumps over what is not made, or begins again.
  turn(ended = false) {
    const { element, video } = this;
    if (!video || element.seeking || (element.paused && !ended)) return;
    const { buffered, currentTime } = element;
    if (!buffered.length) return;
    const range = this.range(currentTime);
    if (!ended && range && currentTime < range[1] - this.edge) return;
    const next = [...Array(buffered.length).keys()].map((i) => buffered.start(i)).find((start) => start > currentTime + this.edge);
    if (next !== undefined) element.currentTime = next + 0.001;
    else if (this.looping && (ended || !this.coming(currentTime))) {
      element.currentTime = buffered.start(0) + 0.001;
      this.play();
    }
  }

  // True if the section that follows this time is the next that will be there.
  coming(time) {
    const { plan, sections } = this.video.longtake;
    if (!plan || !active(this.video)) return false;
    const open = sections.find((one) => !there(this.video, one));
    return open !== undefined && Math.abs(this.span(open.place)[0] - time) < 2 / plan.fps;
  }

  play() {
    this.element.play().catch(() => {}); // a browser may want a click first
  }

  seek(time) {
    this.following = false;
    this.element.currentTime = time;
  }
}

const backwards = (video) => {
  const { sections } = video.longtake.plan;
  return sections.length > 1 && sections[0].place > sections[1].place;
};
