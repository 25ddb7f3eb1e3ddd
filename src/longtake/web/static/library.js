// Every video with what was asked for beside it; two of them side by side.

import { at } from "./api.js";
import { $, debounced, framed, h, icon, iconButton, keyed } from "./dom.js";
import { menu } from "./dialogs.js";
import { on, videos } from "./live.js";
import { posterOf, remove } from "./queue.js";
import { downloads, statusOf } from "./stage.js";
import { clock, language, t } from "./words.js";

const SHOWN = 24; // cards, and as many more each time

// What a request says, as pairs of a name and a value, for reading.
export function said(video) {
  const { request, plan } = video.longtake;
  const board = request.storyboard;
  const rows = {
    seconds: t("value.seconds", { seconds: request.seconds ?? video.seconds }),
    size: video.size?.replace("x", " × "),
    order: request.order ? t(`order.${request.order}`) : plan ? t(`order.${plan.order}`) : t("own"),
    steps: request.steps ?? plan?.steps ?? t("own"),
    seed: request.seed ?? 0,
    model: video.model,
    schedule: request.schedule,
    guidance: request.guidance,
    negative: request.negative_prompt,
    storyboard: board?.cues?.length ? board.cues.map((cue) => `${cue.at} s: ${cue.prompt ?? (cue.image ? t("cue.image") : `${t("field.seed")} ${cue.seed}`)}`).join("\n") : null,
    loop: board?.loop ? t("yes") : null,
  };
  return Object.entries(rows).filter(([, value]) => value !== null && value !== undefined && value !== "");
}

const facts = (video, other = null) => {
  const theirs = other ? new Map(said(other).map(([name, value]) => [name, String(value)])) : null;
  return h(
    "dl",
    { class: "facts" },
    said(video).map(([name, value]) =>
      h("div", { class: theirs && theirs.get(name) !== String(value) ? "differs" : null }, h("dt", {}, t(`field.${name}`)), h("dd", {}, String(value))),
    ),
  );
};

export class Library {
  constructor(root, { form, stage, open }) {
    Object.assign(this, { root, form, stage, open, chosen: [], shown: SHOWN, query: "" });
    this.redraw = framed(() => this.draw());
    for (const type of ["video", "read"]) on(type, () => !root.hidden && this.redraw());
    $("#search").addEventListener("input", debounced(120, (event) => {
      this.query = event.target.value.trim().toLowerCase();
      this.shown = SHOWN;
      this.draw();
    }));
    $("#more-videos").addEventListener("click", () => {
      this.shown += SHOWN;
      this.draw();
    });
    $("#compare-these").addEventListener("click", () => this.compare());
  }

  draw() {
    const words = this.query.split(/\s+/).filter(Boolean);
    const all = [...videos.values()].sort((one, other) => other.created_at - one.created_at);
    const found = all.filter((video) => words.every((word) => `${video.prompt} ${video.model}`.toLowerCase().includes(word)));
    keyed($("#cards"), found.slice(0, this.shown), (video) => video.id, (video) => this.make(video), (card, video) => this.dress(card, video));
    $("#more-videos").hidden = found.length <= this.shown;
    $("#library-says").textContent = t(words.length ? "library.found" : "library.all", { n: found.length });
    $("#library-empty").hidden = found.length > 0;
    this.chosen = this.chosen.filter((id) => videos.has(id));
    $("#compare-these").disabled = this.chosen.length !== 2;
  }

  make({ id }) {
    const film = h("video", { class: "card-film", muted: true, playsinline: true, preload: "none", loop: true, "aria-hidden": "true", tabindex: "-1" });
    film.muted = true;
    const play = (on) => {
      const video = videos.get(id);
      if (!video?.longtake.images_done) return;
      if (on && !film.src) film.src = at.content(id, "video", video.status === "completed" ? 0 : 1);
      if (on) film.play().catch(() => {});
      else film.pause();
    };
    return h(
      "li",
      { class: "card", on: { pointerenter: () => play(true), pointerleave: () => play(false) } },
      h("button", { type: "button", class: "card-open", on: { click: () => this.show(id) } }, h("img", { class: "card-image", alt: "" }), film, h("span", { class: "card-status" })),
      h(
        "div",
        { class: "card-words" },
        h("p", { class: "card-prompt" }),
        h("p", { class: "quiet-text card-when" }),
        h("div", { class: "card-facts" }),
        h(
          "div",
          { class: "row" },
          h("label", { class: "check" }, h("input", { type: "checkbox", on: { change: (event) => this.choose(id, event.target.checked) } }), h("span", {}, t("act.compare"))),
          h("button", { type: "button", class: "quiet", on: { click: () => this.use(id) } }, icon("copy"), t("act.use")),
          iconButton("more", t("queue.more"), (event) => this.menu(event.currentTarget, videos.get(id)), { "aria-haspopup": "menu" }),
        ),
      ),
    );
  }

  dress(card, video) {
    const words = video.prompt || t("untitled");
    const image = $(".card-image", card);
    if (image.getAttribute("src") !== posterOf(video)) image.src = posterOf(video);
    $(".card-open", card).setAttribute("aria-label", t("library.open", { words }));
    $(".card-prompt", card).textContent = words;
    $(".card-when", card).textContent = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(video.created_at * 1000);
    $(".card-status", card).textContent = statusOf(video);
    $(".card-status", card).hidden = video.status === "completed" && video.progress >= 100;
    const mark = JSON.stringify(video.longtake.request);
    if (card.dataset.mark !== mark) {
      card.dataset.mark = mark;
      $(".card-facts", card).replaceChildren(facts(video));
    }
    $("[type=checkbox]", card).checked = this.chosen.includes(video.id);
    $("[type=checkbox]", card).setAttribute("aria-label", t("library.compare", { words }));
    $(".icon-button", card).setAttribute("aria-label", t("queue.more.of", { words }));
  }

  show(id) {
    this.open("studio");
    this.stage.select(id);
  }

  use(id) {
    this.open("studio");
    this.form.use(videos.get(id).longtake.request);
  }

  choose(id, on) {
    this.chosen = this.chosen.filter((one) => one !== id);
    if (on) this.chosen = [...this.chosen, id].slice(-2);
    this.draw();
  }

  menu(button, video) {
    menu(button, [
      { icon: "play", label: t("act.open"), act: () => this.show(video.id) },
      video.status === "completed" && {
        icon: "extend",
        label: t("act.extend"),
        act: () => {
          this.open("studio");
          this.form.extend(video.id);
        },
      },
      ...(video.longtake.images_done ? downloads(video) : []),
      null,
      { icon: "trash", label: t("act.remove"), danger: true, act: () => remove(video) },
    ]);
  }

  // Two videos on one clock: the longer one leads.
  compare() {
    const both = this.chosen.map((id) => videos.get(id));
    const films = both.map((video) => {
      const film = h("video", { muted: true, playsinline: true, preload: "auto", src: at.content(video.id, "video", video.status === "completed" ? 0 : 1), "aria-label": video.prompt || t("untitled") });
      film.muted = true;
      return film;
    });
    const seek = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, "aria-label": t("seek") });
    const time = h("output", { class: "clock" });
    const play = iconButton("play", t("play"), () => toggle(), { id: "compare-play" });
    const dialog = h(
      "dialog",
      { class: "compare", "aria-labelledby": "compare-title" },
      h("div", { class: "row" }, h("h2", { id: "compare-title" }, t("compare.title")), iconButton("cancel", t("ask.back"), () => dialog.close())),
      h("div", { class: "pair" }, both.map((video, i) => h("figure", {}, films[i], h("figcaption", {}, h("p", { class: "card-prompt" }, video.prompt || t("untitled")), facts(video, both[1 - i]))))),
      h("div", { class: "row controls" }, play, seek, time),
    );
    const leader = () => ((films[1].duration || 0) > (films[0].duration || 0) ? films[1] : films[0]);
    const follow = () => films.find((film) => film !== leader());
    const toggle = () => (leader().paused ? leader().play().catch(() => {}) : leader().pause());
    const sync = () => {
      const [first, second] = [leader(), follow()];
      const wanted = Math.min(first.currentTime, second.duration || 0);
      if (Math.abs(second.currentTime - wanted) > 0.12) second.currentTime = wanted;
      if (first.paused || first.currentTime >= second.duration) second.pause();
      else if (second.paused) second.play().catch(() => {});
      seek.max = first.duration || 1;
      if (!seek.matches(":active")) seek.value = first.currentTime;
      time.textContent = `${clock(first.currentTime)} / ${clock(first.duration || 0)}`;
      play.setAttribute("aria-label", t(first.paused ? "play" : "pause.film"));
      $("use", play).setAttribute("href", `icons.svg#${first.paused ? "play" : "pause"}`);
      if (dialog.open) requestAnimationFrame(sync);
    };
    seek.addEventListener("input", () => {
      for (const film of films) film.currentTime = Math.min(Number(seek.value), film.duration || 0);
    });
    for (const film of films) film.addEventListener("ended", () => film === leader() && (film.currentTime = 0, film.play()));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    sync();
    toggle();
  }
}
