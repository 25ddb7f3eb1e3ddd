// Elements as calls: h("button", { class: "quiet", on: { click } }, "words"). Nothing here knows what longtake is.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (selector, root = document) => root.querySelector(selector);

function dressed(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (name, props = {}, ...children) => dressed(document.createElement(name), props, children);

export const s = (name, props = {}, ...children) => dressed(document.createElementNS(SVG, name), props, children);

export const icon = (name) =>
  s("svg", { class: "icon", "aria-hidden": "true", viewBox: "0 0 24 24" }, s("use", { href: `icons.svg#${name}` }));

// A button that shows only an icon: its words are its name and its tip.
export const iconButton = (name, label, click, more = {}) =>
  h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, on: { click }, ...more }, icon(name));

export function rename(button, name, label) {
  button.setAttribute("aria-label", label);
  button.title = label;
  $("use", button).setAttribute("href", `icons.svg#${name}`);
}

// Keeps one element for each item by its key, so that focus, drags and playing videos outlive an update.
export function keyed(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let before = null;
  for (const item of items) {
    const name = String(key(item));
    let element = old.get(name);
    if (!element) {
      element = make(item);
      element.dataset.key = name;
    }
    old.delete(name);
    update(element, item);
    const place = before ? before.nextSibling : parent.firstChild;
    if (element !== place) {
      const focused = element.contains(document.activeElement) ? document.activeElement : null;
      parent.insertBefore(element, place);
      focused?.focus({ preventScroll: true });
    }
    before = element;
  }
  for (const element of old.values()) element.remove();
}

export function debounced(wait, work) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}

// Runs at most once a frame; a page that nobody sees has no frames, but a title.
export function framed(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    (document.hidden ? setTimeout : requestAnimationFrame)(() => {
      asked = false;
      work();
    });
  };
}

export const clamp = (value, least, most) => Math.min(most, Math.max(least, value));
