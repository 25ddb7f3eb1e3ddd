// The server's calls. An answer that is no success becomes a Refusal: one sentence, and the field that it is about.

import { t } from "./words.js";

const KEY = "longtake.token";

export class Refusal extends Error {
  constructor(status, { message, code = "", param = null }) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

let askForToken = async () => {};

export function onUnauthorized(ask) {
  askForToken = ask;
}

function headers() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function refusal(response) {
  try {
    const { error } = await response.json();
    return new Refusal(response.status, error);
  } catch {
    return new Refusal(response.status, { message: t("error.status", { status: response.status }), code: "unknown" });
  }
}

async function asked(path, options) {
  try {
    return await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { message: t("error.away"), code: "away" });
  }
}

// Asks, and asks once more after the reader has given a token.
export async function call(path, options = {}) {
  let response = await asked(path, options);
  if (response.status === 401) {
    await askForToken();
    response = await asked(path, options);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

export const read = async (path, options) => (await call(path, options)).json();

export const send = (path, data = {}, method = "POST", options = {}) =>
  read(path, { ...options, method, body: JSON.stringify(data), headers: { "Content-Type": "application/json" } });

export const bytes = async (path, options) => (await call(path, options)).arrayBuffer();

function form(name, file) {
  const body = new FormData();
  body.append(name, file, file.name ?? "pasted.png");
  return { method: "POST", body };
}

export const upload = (file) => read("v1/uploads", form("file", file));

export const restore = (file) => read("v1/restore", form("video", file));

// Keeps the token for this tab, and has the server set the cookie that media and events are asked with.
export async function signIn(token) {
  const response = await asked("v1/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  if (!response.ok) throw await refusal(response);
  sessionStorage.setItem(KEY, token);
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;

export const at = {
  content: (id, variant = "video", partial = 0) => `v1/videos/${id}/content?variant=${variant}&partial=${partial}`,
  source: (id) => `v1/videos/${id}/source`,
  section: (id, place, version) => `v1/videos/${id}/sections/${place}?v=${version}`,
  last: (id, place, version) => `v1/videos/${id}/sections/${place}/last.png?v=${version}`,
  upload: (id) => `v1/uploads/${id}`,
};
