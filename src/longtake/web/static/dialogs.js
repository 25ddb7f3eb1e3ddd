// Menus, questions and notes.

import { $, h, icon } from "./dom.js";
import { t } from "./words.js";

let open = null;

// A menu below a button: items are { icon, label, act, danger }, or null for a line. Arrow keys go through it.
export function menu(button, items) {
  open?.hidePopover();
  const list = h("div", { class: "menu", role: "menu", popover: "auto", "aria-label": button.getAttribute("aria-label") });
  for (const item of items.filter((one) => one !== undefined && one !== false)) {
    if (item === null) {
      list.append(h("hr", { role: "separator" }));
      continue;
    }
    const choose = () => {
      list.hidePopover();
      button.focus();
      item.act();
    };
    list.append(h("button", { type: "button", role: "menuitem", class: item.danger ? "danger" : null, tabindex: "-1", on: { click: choose } }, icon(item.icon), item.label));
  }
  const entries = [...list.querySelectorAll("button")];
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const at = entries.indexOf(document.activeElement);
    if (step) entries.at((at + step) % entries.length).focus();
    else if (event.key === "Home") entries[0].focus();
    else if (event.key === "End") entries.at(-1).focus();
    else if (event.key === "Tab") list.hidePopover();
    else return;
    if (event.key !== "Tab") event.preventDefault();
  });
  list.addEventListener("toggle", (event) => {
    if (event.newState === "open") return;
    button.setAttribute("aria-expanded", "false");
    list.remove();
    open = null;
  });
  document.body.append(list);
  list.showPopover();
  button.setAttribute("aria-expanded", "true");
  open = list;
  const box = button.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.right - list.offsetWidth, innerWidth - list.offsetWidth - 8));
  const below = box.bottom + 4 + list.offsetHeight < innerHeight;
  list.style.left = `${left}px`;
  list.style.top = `${below ? box.bottom + 4 : Math.max(8, box.top - list.offsetHeight - 4)}px`;
  entries[0].focus();
}

// Asks with fields of one's own; gives their values, or null where the reader turns away.
export function ask({ title, text = "", fields = [], ok, danger = false, check = async () => {} }) {
  const fault = h("p", { class: "fault", role: "alert", hidden: true });
  const dialog = h(
    "dialog",
    { class: "ask", "aria-labelledby": "ask-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "ask-title" }, title),
      text ? h("p", {}, text) : null,
      fields.map(({ name, label, kind = "input", ...more }) => h("label", { class: "field" }, h("span", {}, label), h(kind, { name, ...more }))),
      fault,
      h(
        "div",
        { class: "row end" },
        h("button", { type: "button", class: "quiet", on: { click: () => dialog.close() } }, t("ask.back")),
        h("button", { type: "submit", class: danger ? "danger" : "primary", value: "ok" }, ok),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    let answer = null;
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    $("form", dialog).addEventListener("submit", async (event) => {
      event.preventDefault();
      const values = Object.fromEntries(new FormData(event.target));
      try {
        await check(values);
        answer = values;
        dialog.close();
      } catch (error) {
        fault.textContent = error.message;
        fault.hidden = false;
      }
    });
  });
}

// A sentence at the edge of the page that goes by itself.
export function note(text, kind = "info") {
  const line = h("p", { class: `note ${kind}` }, text);
  $("#notes").append(line);
  setTimeout(() => line.remove(), 8000);
}

// Does it, and says what went wrong where that has no field.
export async function tried(work) {
  try {
    return await work();
  } catch (error) {
    if (!error.message) throw error;
    note(error.message, "fault");
    return null;
  }
}
