// The video that is looked at: its player, its strip, who sees what, and what can be done with it.

import { at, call, send } from "./api.js";
import { Player } from "./player.js";
import { drawPlan, summary } from "./plan.js";
import { drawStrip, stripLegend } from "./strip.js";
import { $, framed, h, icon, rename } from "./dom.js";
import { ask, menu, tried } from "./dialogs.js";
import { active, live, madeAs, on, over, partial, previews, videos, waiting, whole } from "./live.js";
import { at as time, clock, lasting, number, t } from "./words.js";

export const act = (id, verb, data) => tried(() => send(`v1/videos/${id}/${verb}`, data));

const DOWNLOADS = { video: "mp4", gif: "gif", frames: "zip" };

// Fetches with the token and saves; the name is the video's words.
async function download(video, variant) {
  const response = await call(at.content(video.id, variant, over(video) ? 0 : 1));
  const url = URL.createObjectURL(await response.blob());
  const name = (video.prompt || "longtake").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 48).replace(/-+$/, "");
  h("a", { href: url, download: `${name}.${DOWNLOADS[variant]}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export const downloads = (video) =>
  Object.keys(DOWNLOADS).map((variant) => ({ icon: "download", label: t(`download.${variant}`), act: () => tried(() => download(video, variant)) }));

// A state in one word; what was stopped early says so.
export function statusOf(video) {
  const { stopping } = video.longtake;
  if (stopping && active(video)) return t(`stopping.${stopping}`);
  return t(partial(video) ? "status.partial" : `status.${video.status}`);
}

export class Stage {
  constructor(root, form) {
    this.root = root;
    this.form = form;
    this.id = null;
    this.section = null; // place of the one that is chosen on the strip
    this.player = new Player($("#film"));
    this.redraw = framed(() => this.draw());
    $("#strip-legend").replaceChildren(stripLegend());
    this.controls();
    for (const type of ["video", "preview"]) on(type, ({ id }) => id === this.id && this.changed());
    on("deleted", ({ id }) => id === this.id && this.select(null));
    new ResizeObserver(this.redraw).observe($("#strip"));
    $("#work-plan").addEventListener("toggle", this.redraw);
    addEventListener("hashchange", () => this.fromAddress());
  }

  get video() {
    return videos.get(this.id) ?? null;
  }

  fromAddress() {
    const id = location.hash.slice(1);
    if (id.startsWith("video_") && id !== this.id) this.select(id);
  }

  async select(id) {
    this.id = id;
    this.section = null;
    this.player.following = true;
    if (id) history.replaceState(null, "", `#${id}`);
    else if (location.hash.startsWith("#video_")) history.replaceState(null, "", location.pathname);
    live.dispatchEvent(new CustomEvent("selected", { detail: { id } }));
    if (!id) {
      this.player.close();
      return this.draw();
    }
    const known = await tried(() => whole(id));
    if (!known && this.id === id) return this.select(null);
    return this.changed();
  }

  changed() {
    const { video } = this;
    if (video && !video.longtake.plan && video.longtake.sections.length) whole(video.id); // made before this page listened
    if (video) this.player.show(video);
    this.redraw();
  }

  controls() {
    const { player } = this;
    const film = player.element;
    const play = $("#play");
    const seek = $("#seek");
    const toggle = () => (film.paused ? player.play() : film.pause());
    play.addEventListener("click", toggle);
    film.addEventListener("click", toggle);
    for (const type of ["play", "pause"]) film.addEventListener(type, () => rename(play, film.paused ? "play" : "pause", t(film.paused ? "play" : "pause.film")));
    seek.addEventListener("input", () => player.seek(Number(seek.value)));
    const tick = () => {
      if (!seek.matches(":active")) seek.value = film.currentTime;
      seek.setAttribute("aria-valuetext", time(film.currentTime));
      $("#clock").textContent = `${clock(film.currentTime)} / ${clock(this.length())}`;
      this.root.style.setProperty("--played", this.length() ? film.currentTime / this.length() : 0);
      if (!film.paused && !film.ended) requestAnimationFrame(tick);
    };
    for (const type of ["play", "seeked", "timeupdate", "loadedmetadata"]) film.addEventListener(type, tick);
    const flag = (button, name) => {
      button.addEventListener("click", () => {
        player[name] = !player[name];
        this.flags();
        if (name === "following" && player.following) player.play();
      });
    };
    flag($("#looping"), "looping");
    flag($("#following"), "following");
    $("#full").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : $("#screen").requestFullscreen()));
    film.addEventListener("loadeddata", () => this.redraw());
  }

  flags() {
    $("#looping").setAttribute("aria-pressed", String(this.player.looping));
    $("#following").setAttribute("aria-pressed", String(this.player.following));
  }

  length() {
    const { plan } = this.video?.longtake ?? {};
    return plan ? plan.images / plan.fps : this.player.element.duration || 0;
  }

  draw() {
    const { video, root } = this;
    root.classList.toggle("empty", !video);
    $("#welcome").hidden = Boolean(video);
    $("#shown").hidden = !video;
    if (!video) return;
    const { longtake } = video;
    const { plan, sections } = longtake;
    const working = sections.find((one) => one.state === "working");
    const preview = previews.get(video.id);
    const film = this.player.element;
    $("#shown-title").textContent = video.prompt || t("untitled");
    $("#shown-status").textContent = statusOf(video);
    $("#shown-status").dataset.status = video.status;
    const ratio = plan ? plan.width / plan.height : 5 / 3;
    root.style.setProperty("--ratio", String(ratio));
    if (plan) root.style.setProperty("--frames", String(plan.sections[0].frames[1] - plan.sections[0].frames[0]));
    film.hidden = !longtake.images_done && video.status !== "completed";
    const waitingFor = $("#waiting");
    waitingFor.hidden = !film.hidden;
    const still = preview ? preview.image : at.source(video.id);
    const image = $("#still");
    image.hidden = !film.hidden;
    image.classList.toggle("sheet", Boolean(preview));
    if (!image.hidden && image.getAttribute("src") !== still) image.src = still;
    waitingFor.textContent = this.work(video, working);
    const inset = $("#inset");
    inset.hidden = film.hidden || !preview;
    if (!inset.hidden) {
      $("img", inset).src = preview.image;
      $("figcaption", inset).textContent = t("inset", { place: preview.place + 1, step: working?.step ?? preview.step, steps: working?.steps ?? "" });
    }
    $("#seek").max = this.length();
    $("#film-controls").hidden = film.hidden;
    this.facts(video, working);
    this.actions(video);
    this.flags();
    const fault = $("#shown-fault");
    fault.hidden = !video.error;
    fault.textContent = video.error?.message ?? "";
    $("#strip").hidden = !plan;
    $("#work-plan").hidden = !plan;
    if (plan) {
      drawStrip($("#strip"), video, (section) => this.choose(section.place));
      for (const cell of root.querySelectorAll(".cell")) cell.setAttribute("aria-pressed", String(Number(cell.dataset.key) === this.section));
      if ($("#work-plan").open) drawPlan($("#work-plan-picture"), plan, Object.fromEntries(sections.map((one) => [one.place, one])));
    }
    this.panel();
  }

  work(video, working) {
    if (waiting(video)) return t("work.queued", { n: (video.longtake.position ?? 0) + 1 });
    if (working) return t("work.step", { place: working.place + 1, step: working.step, steps: working.steps });
    return active(video) ? t("work.loading") : statusOf(video);
  }

  facts(video, working) {
    const { eta_seconds, peak_memory_mb, worker, plan, sections } = video.longtake;
    const done = sections.filter((one) => one.state === "done").length;
    const said = [
      active(video) && working ? t("fact.step", { place: working.place + 1, step: working.step, steps: working.steps }) : null,
      plan ? t("fact.done", { done, n: sections.length }) : null,
      active(video) && eta_seconds !== null && eta_seconds !== undefined ? t("fact.left", { time: lasting(eta_seconds) }) : null,
      peak_memory_mb ? t("fact.memory", { gigabytes: number(peak_memory_mb / 1024, 1) }) : null,
      active(video) && worker ? t("fact.worker", { worker }) : null,
    ].filter(Boolean);
    $("#facts").textContent = said.join(" · ");
    if (plan) $("#shown-says").textContent = summary({ ...plan, estimate_seconds: null });
  }

  actions(video) {
    const { id } = video;
    const { longtake } = video;
    const some = longtake.images_done > 0;
    const lastDone = [...longtake.sections].filter((one) => one.state === "done").sort((one, other) => other.place - one.place)[0];
    const button = (name, click, more = {}) => h("button", { type: "button", data: { act: name }, on: { click }, ...more }, icon(more.icon ?? name), h("span", {}, t(`act.${name}`)));
    const buttons = [
      active(video) && !longtake.stopping ? button("pause", () => act(id, "pause")) : null,
      active(video) && !longtake.stopping ? button("stop", () => act(id, "stop")) : null,
      active(video) || waiting(video) || video.status === "paused" ? button("cancel", () => act(id, "cancel")) : null,
      ["paused", "failed", "cancelled"].includes(video.status) || partial(video) || (active(video) && longtake.stopping && longtake.stopping !== "cancel") ? button("resume", () => act(id, "resume"), { icon: "play", class: "primary" }) : null,
      video.status === "completed" ? button("extend", () => this.form.extend(id)) : null,
      lastDone ? button("last", () => this.useLast(lastDone)) : null,
      some ? button("download", (event) => menu(event.currentTarget, downloads(video)), { "aria-haspopup": "menu" }) : null,
      button("use", () => this.form.use(longtake.request), { icon: "copy" }),
    ].filter(Boolean);
    const bar = $("#actions");
    const names = buttons.map((one) => one.dataset.act).join();
    if (bar.dataset.names === `${id} ${names}`) return;
    const focused = document.activeElement?.closest("#actions") ? document.activeElement.dataset.act : null;
    bar.dataset.names = `${id} ${names}`;
    bar.replaceChildren(...buttons);
    if (focused) $(`[data-act="${focused}"]`, bar)?.focus();
  }

  useLast(section) {
    return tried(async () => {
      const image = await call(at.last(this.id, section.place, madeAs(section)));
      await this.form.image(new File([await image.blob()], "last.png", { type: "image/png" }));
      this.form.field("prompt").focus();
    });
  }

  choose(place) {
    this.section = this.section === place ? null : place;
    const section = this.video.longtake.sections.find((one) => one.place === place);
    if (section?.state === "done") this.player.seek(this.player.mode === "none" ? 0 : this.player.span(place)[0] + 0.001);
    this.draw();
  }

  // What can be done with the section that is chosen.
  panel() {
    const panel = $("#section");
    const { video } = this;
    const plan = video?.longtake.plan;
    const section = this.section === null ? null : plan?.sections.find((one) => one.place === this.section);
    panel.hidden = !section;
    if (!section) return;
    const one = video.longtake.sections.find((other) => other.place === this.section) ?? { state: "empty" };
    const mark = [video.id, section.place, section.seed, section.prompt, one.state, one.seconds, video.status].join();
    if (panel.dataset.mark === mark) return;
    panel.dataset.mark = mark;
    const done = one.state === "done";
    const button = (name, click) => h("button", { type: "button", data: { act: name }, on: { click } }, icon(name), h("span", {}, t(`act.${name}`)));
    panel.replaceChildren(
      h("h3", {}, t("section.title", { place: section.place + 1, from: time(section.start), to: time(section.end) })),
      h(
        "p",
        { class: "quiet-text" },
        t("section.says", {
          turn: section.index + 1,
          frames: section.seen.reduce((sum, [begin, end]) => sum + end - begin, 0),
          tokens: section.context_tokens,
          seed: String(section.seed),
        }),
      ),
      h("p", { class: "section-words" }, section.prompt),
      h(
        "div",
        { class: "row" },
        done ? button("again", () => this.reroll(section)) : null,
        section.index > 0 && (done || over(video)) ? button("branch", () => this.branch(section)) : null,
        done ? button("last", () => this.useLast(one)) : null,
        !done && one.state !== "working" && !over(video) ? button("edit", () => this.retell(section)) : null,
      ),
    );
  }

  async reroll(section) {
    const later = this.video.longtake.sections.filter((one) => one.state === "done" && one.index > section.index).length;
    const answer = await ask({
      title: t("reroll.title", { turn: section.index + 1 }),
      text: t("reroll.text", { n: later + 1 }),
      fields: [{ name: "seed", label: t("seed.or.new"), type: "number", min: 0, step: 1 }],
      ok: t("act.again"),
      check: ({ seed }) => send(`v1/videos/${this.id}/reroll`, { section: section.index, seed: seed === "" ? null : Number(seed) }),
    });
    if (answer) this.player.following = true;
  }

  async branch(section) {
    await ask({
      title: t("branch.title", { turn: section.index + 1 }),
      text: t("branch.text", { n: section.index }),
      fields: [
        { name: "prompt", label: t("branch.words"), kind: "textarea", rows: 3, value: section.prompt },
        { name: "seed", label: t("seed.or.new"), type: "number", min: 0, step: 1 },
      ],
      ok: t("act.branch"),
      check: async ({ seed, prompt }) => {
        const told = prompt === section.prompt ? null : prompt;
        const video = await send(`v1/videos/${this.id}/branch`, { section: section.index, seed: seed === "" ? null : Number(seed), prompt: told });
        await this.select(video.id);
      },
    });
  }

  async retell(section) {
    await ask({
      title: t("retell.title", { place: section.place + 1 }),
      fields: [{ name: "prompt", label: t("prompt"), kind: "textarea", rows: 3, value: section.prompt }],
      ok: t("save"),
      check: ({ prompt }) => send(`v1/videos/${this.id}`, { prompts: { [section.index]: prompt } }, "PATCH"),
    });
  }
}
