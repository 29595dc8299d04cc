/** Requests to the service. A refused token is asked for once, whoever was refused. */

const KEPT = "peerwatch token";
let asking = null;

/** What the service answered instead of what was asked for. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail || title || `the service answered ${status}`);
    this.status = status;
    this.title = title;
  }
}

/** The headers that say who asks. */
const authorization = () => {
  const token = sessionStorage.getItem(KEPT);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
};

/** Ask for the token in a dialog; several requests that were refused share it. */
function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("token");
    const [form, input] = [dialog.querySelector("form"), dialog.querySelector("input")];
    document.getElementById("token-problem").hidden = sessionStorage.getItem(KEPT) === null;
    form.reset();
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    form.addEventListener(
      "submit",
      () => {
        sessionStorage.setItem(KEPT, input.value.trim());
        asking = null;
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
    input.focus();
  });
  return asking;
}

/** The response to a request, with the token; after a refusal it is sent again with the token that was then given. */
export async function send(path, options = {}) {
  for (;;) {
    const sent = authorization();
    const response = await fetch(path, { ...options, headers: { ...options.headers, ...sent } });
    if (response.status !== 401) return response;
    await response.body?.cancel();
    if (sent.Authorization === authorization().Authorization) await askForToken();
    options.signal?.throwIfAborted();
  }
}

/** The JSON that the service answers with. Raises `Problem` with the service's own words. */
export async function request(path, { method = "GET", body, signal } = {}) {
  const headers = { Accept: "application/json", ...(body === undefined ? {} : { "Content-Type": "application/json" }) };
  const response = await send(path, { method, headers, signal, body: body && JSON.stringify(body) });
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new Problem(response.status, response.statusText, "the service's answer is not JSON");
  }
  if (!response.ok) throw new Problem(response.status, answer?.title, answer?.detail);
  return answer;
}

/** A path with its query; what is null or empty is left out. */
export function withQuery(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** Whether an error only says that the answer is no longer wanted. */
export const isAbort = (error) => error?.name === "AbortError";
