// The plan as a picture: a row for each section in the order of making, its history to the left and right of it, its cost.

import { Scale, looks, readSchedule } from "./board.js";
import { h, s } from "./dom.js";
import { lasting, number, t } from "./words.js";

const ROOM = 264; // pixels for all rows
const TALL = 22;
const LOW = 3;
const MOST = 88; // rows; of a longer plan every so many are drawn
const NUMBERED = 11; // pixels from which a row has room for its number
const SHADE = { 1: 0.92, 2: 0.55, 4: 0.3 };
const shade = (kernel) => SHADE[kernel] ?? 0.16;

export const planSays = (plan) =>
  t("plan.says", {
    n: plan.sections.length,
    seconds: number(plan.images / plan.fps, 1),
    tokens: number(plan.context_tokens_max),
  });

const rowSays = (plan, section) =>
  t(section.seen.length ? "plan.row" : "plan.row.alone", {
    place: section.place + 1,
    turn: section.index + 1,
    frames: section.seen.reduce((sum, [begin, end]) => sum + end - begin, 0),
    tokens: section.context_tokens,
    prompt: section.prompt,
  });

// Draws the plan into an element. `states` says of each place whether it is empty, working or done; without, all is drawn alike.
export function drawPlan(root, plan, states = null) {
  const width = root.clientWidth;
  if (!width) return;
  const scale = new Scale(plan, width);
  const schedule = readSchedule(plan.schedule);
  const every = Math.ceil(plan.sections.length / MOST);
  const rows = plan.sections.filter((section) => section.index % every === 0);
  const row = Math.max(LOW, Math.min(TALL, Math.floor(ROOM / rows.length)));
  const bar = Math.max(1, row - (row > 6 ? 4 : 1));
  const height = row * rows.length + 4;
  const most = Math.max(1, plan.context_tokens_max);
  const caption = root.parentElement.querySelector(".plan-caption");
  const says = [t("plan.caption"), every > 1 ? t("plan.every", { every }) : ""].join(" ").trim();
  const marks = [];
  const rect = (x, y, w, tall, name, more = {}) =>
    s("rect", { class: name, x: x.toFixed(1), y, width: Math.max(1, w).toFixed(1), height: tall, rx: Math.min(3, tall / 3), ...more });
  for (let k = 0; k <= plan.sections.length; k += Math.ceil(plan.sections.length / 60)) {
    marks.push(s("path", { class: "grid", d: `M${scale.place(k).toFixed(1)} 0V${height}` }));
  }
  for (const [line, section] of rows.entries()) {
    const y = 2 + row * line;
    const state = states?.[section.place]?.state ?? "planned";
    const inner = [rect(0, y - 2, width, row, "row-ground", { rx: 0 })];
    if (row >= NUMBERED) {
      inner.push(s("text", { class: "row-number", x: scale.gutter - 10, y: y + bar - 3 }, String(section.index + 1)));
    }
    for (const earlier of plan.sections.slice(0, row > 5 ? section.index : 0)) {
      const x = scale.x(earlier.frames[0]);
      inner.push(rect(x, y + bar / 2 - 0.5, scale.x(earlier.frames[1]) - x, 1, "known"));
    }
    for (const [begin, end, kernel] of looks(schedule, section)) {
      const x = scale.x(begin);
      inner.push(rect(x, y, scale.x(end) - x - 0.75, bar, "seen", { "fill-opacity": shade(kernel) }));
    }
    const x = scale.x(section.frames[0]);
    inner.push(rect(x, y, scale.x(section.frames[1]) - x - 1, bar, `made ${state}`));
    const right = width - scale.cost + 10;
    inner.push(rect(right, y + bar / 4, ((scale.cost - (scale.narrow ? 12 : 46)) * section.context_tokens) / most, bar / 2, "cost"));
    if (row >= NUMBERED && !scale.narrow) {
      inner.push(s("text", { class: "row-cost", x: width - 2, y: y + bar - 3 }, number(section.context_tokens, 0)));
    }
    const say = () => {
      if (caption) caption.textContent = rowSays(plan, section);
    };
    marks.push(s("g", { class: `row ${state}`, on: { pointerenter: say } }, inner));
  }
  const picture = s(
    "svg",
    { class: "plan-picture", width, height, role: "img", "aria-label": planSays(plan), on: { pointerleave: () => caption && (caption.textContent = says) } },
    marks,
  );
  root.replaceChildren(picture);
  if (caption) caption.textContent = says;
}

// What the shades mean; the picture of a kernel is how many of a frame's tokens it keeps.
export function legend(plan) {
  const { left, right } = readSchedule(plan.schedule);
  const kernels = [...new Set([left, right].flatMap(({ near, far }) => [...near, ...far]).map((span) => span.kernel))].sort((a, b) => a - b);
  const entry = (mark, words) => h("li", {}, mark, words);
  const swatch = (name, opacity) =>
    s("svg", { class: "swatch", width: 14, height: 12, "aria-hidden": "true" }, s("rect", { class: name, width: 14, height: 12, rx: 3, "fill-opacity": opacity }));
  return h(
    "ul",
    { class: "legend" },
    entry(swatch("made planned", 1), t("legend.made")),
    kernels.map((kernel) => entry(swatch("seen", shade(kernel)), kernel === 1 ? t("legend.whole") : t("legend.part", { part: kernel * kernel }))),
    entry(swatch("cost", 1), t("legend.cost")),
  );
}

// One line of what it comes to.
export function summary(plan) {
  const parts = [
    t("sum.sections", { n: plan.sections.length }),
    t("sum.length", { seconds: number(plan.images / plan.fps, 1) }),
    t("sum.size", { width: String(plan.width), height: String(plan.height) }),
    t("sum.tokens", { tokens: plan.context_tokens_max }),
  ];
  if (plan.estimate_seconds !== null && plan.estimate_seconds !== undefined) parts.push(t("sum.time", { time: lasting(plan.estimate_seconds) }));
  return parts.join(" · ");
}
