// What the page says, in the reader's language: one JSON file for each. A text with forms for one and for many is chosen by n.

export const LANGUAGES = { en: "English", de: "Deutsch" };

const chosen = localStorage.getItem("longtake.language");
const asked = [chosen, ...navigator.languages.map((tag) => tag.slice(0, 2))];
export const language = asked.find((tag) => tag in LANGUAGES) ?? "en";

const words = await (await fetch(`strings/${language}.json`)).json();
const plural = new Intl.PluralRules(language);

export function t(key, values = {}) {
  const entry = words[key] ?? key;
  const text = typeof entry === "string" ? entry : (entry[plural.select(values.n)] ?? entry.other);
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : (value ?? whole);
  });
}

export function number(value, digits = 1) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

// A length of work in words that are as exact as an estimate can be.
export function lasting(seconds) {
  if (seconds < 1) return t("time.soon");
  if (seconds < 90) return t("time.seconds", { seconds: Math.round(seconds) });
  if (seconds < 5400) return t("time.minutes", { minutes: seconds < 600 ? Math.round(seconds / 6) / 10 : Math.round(seconds / 60) });
  return t("time.hours", { hours: Math.floor(seconds / 3600), minutes: Math.round((seconds % 3600) / 60) });
}

export const clock = (seconds) => {
  const whole = Math.max(0, seconds);
  const minutes = Math.floor(whole / 60);
  return `${minutes}:${(whole % 60).toFixed(1).padStart(4, "0")}`;
};

export const at = (seconds) => t("time.at", { seconds: Math.round(seconds * 100) / 100 });

// Fills what index.html marks: data-t for text, data-t-NAME for attributes.
export function speak(root = document) {
  for (const element of root.querySelectorAll("*")) {
    for (const [name, key] of Object.entries(element.dataset)) {
      if (name === "t") element.textContent = t(key);
      else if (/^t[A-Z]/.test(name)) element.setAttribute(ATTRIBUTES[name] ?? name.slice(1).toLowerCase(), t(key));
    }
  }
  document.documentElement.lang = language;
}

const ATTRIBUTES = { tLabel: "aria-label" };

export function speakIn(tag) {
  localStorage.setItem("longtake.language", tag);
  location.reload();
}
