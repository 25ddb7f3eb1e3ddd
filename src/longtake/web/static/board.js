// Where things stand on the pictures of a plan: tracks, strip and rows share one scale, so that what is below is then.

import { clamp } from "./dom.js";

const NEAR = 20; // frames of a source that are drawn: about what a section sees of it
const NARROW = 520; // pixels; below, gutters shrink

const KERNEL = /f(\d+)k(\d+)/g;

function spans(token) {
  return [...(token ?? "").matchAll(KERNEL)].map(([, frames, kernel]) => ({ frames: +frames, kernel: +kernel }));
}

// The spans of a schedule's name on each side of what is made, nearest first, and those beyond an x.
export function readSchedule(name) {
  const tokens = name.split("_");
  const made = tokens.findIndex((token) => token.startsWith("g"));
  const side = (outward) => {
    const gap = outward.indexOf("x");
    const pick = (part) => spans(part.find((token) => token.startsWith("f")));
    return { near: pick(gap < 0 ? outward : outward.slice(0, gap)), far: gap < 0 ? [] : pick(outward.slice(gap + 1)) };
  };
  const left = side(tokens.slice(0, made).reverse());
  return { left: { near: left.near.reverse(), far: left.far.reverse() }, right: side(tokens.slice(made + 1)) };
}

// The kernels through which frames are seen, nearest first; more frames than the schedule names are seen through the last.
function kernels({ near, far }) {
  const each = (spans) => spans.flatMap(({ frames, kernel }) => Array(frames).fill(kernel));
  return [...each(near), ...each(far)];
}

// What a section sees as [begin, end, kernel], finer ones apart from coarser ones, as far as the schedule's name tells.
export function looks(schedule, section) {
  const [begin] = section.frames;
  const frames = section.seen.flatMap(([from, to]) => [...Array(to - from).keys()].map((i) => from + i));
  const sides = [
    [frames.filter((frame) => frame < begin).reverse(), schedule.left, -1],
    [frames.filter((frame) => frame >= begin), schedule.right, 1],
  ];
  return sides.flatMap(([side, spans, direction]) => {
    const through = kernels(spans);
    const near = spans.near.reduce((sum, span) => sum + span.frames, 0);
    const start = direction < 0 ? begin - 1 : section.frames[1];
    const parts = [];
    let beyond = near; // the next kernel for a frame that lies beyond a gap
    for (const frame of side) {
      const distance = (frame - start) * direction;
      const kernel = (distance < near ? through[distance] : through[beyond++]) ?? through.at(-1) ?? 1;
      const last = parts.at(-1);
      if (last && last[2] === kernel && (direction < 0 ? last[0] === frame + 1 : last[1] === frame)) last[direction < 0 ? 0 : 1] += direction;
      else parts.push([frame, frame + 1, kernel]);
    }
    return parts;
  });
}

export const inTime = (plan) => [...plan.sections].sort((one, other) => one.place - other.place);

// Seconds of a section: what times snap to.
export const secondsOf = (plan) => ((plan.sections[0].frames[1] - plan.sections[0].frames[0]) * ratio(plan)) / plan.fps;

// Images of a frame. The section that is last in time tells: the first one has the start image, too.
function ratio(plan) {
  const inner = inTime(plan).at(-1);
  const frames = inner.frames[1] - inner.frames[0];
  return Math.round((inner.images[1] - inner.images[0]) / frames);
}

export class Scale {
  constructor(plan, width, bare = false) {
    const places = inTime(plan);
    const [first, end] = [places[0].frames[0], places.at(-1).frames[1]];
    const seen = plan.sections.flatMap((section) => section.seen);
    const beyond = Math.max(end, ...seen.map((range) => range[1]));
    const narrow = width < NARROW;
    this.places = places.length;
    this.width = width;
    this.narrow = narrow;
    this.gutter = bare ? 0 : narrow ? 34 : 84;
    this.cost = bare ? 0 : narrow ? 46 : 88;
    this.first = first;
    this.end = end;
    this.generated = places[0].frames[1] - first;
    this.leadFrames = Math.min(first, NEAR);
    this.trailFrames = Math.min(beyond - end, NEAR);
    this.lead = this.leadFrames > 1 ? 64 : this.leadFrames ? 26 : 0;
    this.trail = this.trailFrames > 1 ? 64 : this.trailFrames ? 14 : 0;
    this.begin = this.gutter + this.lead;
    this.room = Math.max(40, width - this.begin - this.trail - this.cost);
    this.cell = this.room / this.places;
  }

  // Pixels from the left of where a frame begins.
  x(frame) {
    if (frame < this.first) return this.gutter + (this.lead * Math.max(0, frame - this.first + this.leadFrames)) / (this.leadFrames || 1);
    if (frame > this.end) return this.begin + this.room + (this.trail * Math.min(frame - this.end, this.trailFrames)) / (this.trailFrames || 1);
    return this.begin + ((frame - this.first) / this.generated) * this.cell;
  }

  place(k) {
    return this.begin + k * this.cell;
  }

  // The nearest boundary between sections.
  nearest(x, least = 0, most = this.places) {
    return clamp(Math.round((x - this.begin) / this.cell), least, most);
  }
}
