// The film strip: a cell for each section in time order, numbered in the order of making, with how it fills and how it drifts.

import { at } from "./api.js";
import { Scale, inTime } from "./board.js";
import { h, keyed } from "./dom.js";
import { madeAs, previews, there } from "./live.js";
import { at as time, number, t } from "./words.js";

const DENSE = 6; // below, cells have no borders and no numbers
const PICTURED = 36; // pixels of a cell from which a picture of it says something

const share = (value, most) => `${Math.min(100, Math.max(4, (100 * value) / (most || 1)))}%`;

function says(section, one) {
  const state = t(`state.${one.state}`, { step: one.step, steps: one.steps });
  return t("strip.cell", { place: section.place + 1, turn: section.index + 1, from: time(section.start), to: time(section.end), state });
}

function make(open) {
  const cell = h(
    "button",
    { type: "button", class: "cell", tabindex: "-1", on: { click: () => open(cell.section, cell), keydown: (event) => walk(event, cell) } },
    h("img", { class: "cell-image", alt: "", loading: "lazy" }),
    h("span", { class: "cell-fill" }),
    h("span", { class: "cell-turn" }),
    h("span", { class: "cell-state" }),
    h("span", { class: "bars", "aria-hidden": "true" }, h("span", { class: "bar motion" }), h("span", { class: "bar drift" })),
  );
  return cell;
}

// One stop for the tabulator key; the arrow keys go from cell to cell.
function walk(event, cell) {
  const all = cell.parentElement;
  const to = { ArrowLeft: cell.previousElementSibling, ArrowRight: cell.nextElementSibling, Home: all.firstChild, End: all.lastChild }[event.key];
  if (!to) return;
  event.preventDefault();
  cell.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

// How far a section is from the first one in sharpness and in color: 0 is not at all, 1 is plain to see.
function drift(meter, first) {
  if (!meter || !first) return 0;
  return Math.abs(Math.log((meter.sharpness || 1e-6) / (first.sharpness || 1e-6))) + Math.abs(meter.color - first.color) / 32;
}

export function drawStrip(root, video, open) {
  const { plan, sections } = video.longtake;
  const width = root.clientWidth;
  if (!plan || !width) return;
  const scale = new Scale(plan, width, true);
  const states = new Map(sections.map((one) => [one.place, one]));
  const metered = sections.filter((one) => one.meter);
  const first = [...metered].sort((one, other) => one.place - other.place)[0]?.meter;
  const lively = Math.max(1e-6, ...metered.map((one) => one.meter.motion ?? 0));
  const preview = previews.get(video.id);
  root.style.setProperty("--begin", `${scale.begin}px`);
  root.style.setProperty("--room", `${scale.room}px`);
  root.classList.toggle("dense", scale.cell < DENSE);
  root.style.setProperty("--lead", `${scale.lead}px`);
  const start = root.querySelector(".strip-start");
  start.hidden = !scale.lead;
  if (start.getAttribute("src") !== at.source(video.id)) start.src = at.source(video.id);
  keyed(root.querySelector(".cells"), inTime(plan), (section) => section.place, () => make(open), (cell, section) => {
    const one = states.get(section.place) ?? { state: "empty", step: 0, steps: plan.steps };
    cell.section = { ...section, ...one };
    cell.className = `cell ${one.state}`;
    cell.setAttribute("aria-label", says(section, one));
    cell.title = says(section, one);
    cell.querySelector(".cell-fill").style.width = one.state === "working" ? share(one.step, one.steps) : "";
    cell.querySelector(".cell-turn").textContent = section.index + 1;
    cell.querySelector(".cell-state").textContent = one.state === "working" && scale.cell > 60 ? t("strip.step", { step: one.step, steps: one.steps }) : "";
    const image = cell.querySelector("img");
    const source = scale.cell < PICTURED ? "" : there(video, one) ? at.last(video.id, section.place, madeAs(one)) : preview?.place === section.place ? preview.image : one.state === "empty" ? "" : image.getAttribute("src");
    image.hidden = !source;
    image.classList.toggle("sheet", !there(video, one));
    if (source && image.getAttribute("src") !== source) image.src = source;
    const bars = cell.querySelector(".bars");
    bars.hidden = !one.meter || scale.cell < 14;
    if (one.meter) {
      bars.querySelector(".motion").style.width = share(one.meter.motion ?? 0, lively);
      bars.querySelector(".drift").style.width = share(drift(one.meter, first), 1);
      cell.title += `\n${t("strip.meter", { motion: number(one.meter.motion ?? 0, 2), drift: number(drift(one.meter, first), 2) })}`;
    }
  });
  const cells = root.querySelector(".cells");
  if (!cells.querySelector('[tabindex="0"]') && cells.firstChild) cells.firstChild.tabIndex = 0;
}

export const stripLegend = () =>
  h(
    "ul",
    { class: "legend" },
    h("li", {}, h("span", { class: "cell-turn" }, "1"), t("strip.legend.turn")),
    h("li", {}, h("span", { class: "bar motion" }), t("strip.legend.motion")),
    h("li", {}, h("span", { class: "bar drift" }), t("strip.legend.drift")),
  );
