// Keeps the page up to date, and follows links and filters of lists without loading the page again.
//
// The page is asked for every few seconds, with the version that is shown; the usual answer is that there is no newer
// one.  A stream of events would hold one of the six connections that a browser opens to a server, for each tab.

import { morph } from "./morph.js";

const SLOWEST = 15000;

export class Live {
  constructor(main, changed, say) {
    this.main = main;
    this.changed = changed;
    this.say = say;
    this.button = document.getElementById("live");
    this.failures = 0;
    this.timer = 0;
    this.turn = 0;
    this.isOn = true;
  }

  start() {
    if (!this.main.dataset.refresh) {
      this.button.hidden = true;
    }
    this.button.addEventListener("click", () => this.toggle());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.schedule(0); });
    document.addEventListener("click", (event) => this.followLink(event));
    document.addEventListener("submit", (event) => this.followForm(event));
    document.addEventListener("change", (event) => {
      const form = event.target.closest("form.filters");
      if (form) this.submit(form);
    });
    let typing = 0;
    document.addEventListener("input", (event) => {
      const form = event.target.closest("form.filters");
      if (!form || !event.target.matches("input[type=search], input:not([type])")) return;
      clearTimeout(typing);
      typing = setTimeout(() => this.submit(form), 250);
    });
    addEventListener("popstate", () => this.load(location.href, { keepFocused: false }));
    this.schedule(this.interval());
  }

  toggle() {
    this.isOn = !this.isOn;
    this.button.setAttribute("aria-pressed", String(this.isOn));
    this.show(this.isOn ? "Live" : "Stopped");
    if (this.isOn) this.schedule(0);
  }

  show(text) {
    this.button.querySelector(".live-text").textContent = text;
    this.button.classList.toggle("lost", this.failures > 1);
  }

  interval() {
    const normal = Number(this.main.dataset.refresh) || 0;
    return normal && Math.min(normal * 2 ** Math.min(this.failures, 4), SLOWEST);
  }

  schedule(milliseconds) {
    clearTimeout(this.timer);
    if (!this.main.dataset.refresh) return;
    this.timer = setTimeout(async () => {
      if (this.isOn && !document.hidden) await this.load(location.href, { isRefresh: true });
      this.schedule(this.interval());
    }, milliseconds);
  }

  // Shows another address of this page in place.
  async go(address, { replace = false, top = false, keepFocused = false } = {}) {
    history[replace ? "replaceState" : "pushState"](null, "", address);
    await this.load(address, { keepFocused });
    if (top) scrollTo(0, 0);
  }

  async load(address, { isRefresh = false, keepFocused = true }) {
    const turn = ++this.turn;
    const headers = { Accept: "text/html" };
    if (isRefresh && this.main.dataset.version) headers["If-None-Match"] = this.main.dataset.version;
    try {
      const answer = await fetch(address.split("#")[0], { headers, cache: "no-store" });
      if (turn !== this.turn) return; // a newer request is under way
      if (answer.status !== 304) {
        if (answer.redirected && new URL(answer.url).pathname.endsWith("/login")) {
          location.assign(answer.url);
          return;
        }
        if (answer.status >= 500 && isRefresh) throw new Error(`status ${answer.status}`);
        const next = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (turn !== this.turn) return;
        const content = next.getElementById("main");
        if (!content) throw new Error("not a page");
        document.title = next.title;
        morph(this.main, content, keepFocused);
        this.changed();
      }
      this.failures = 0;
      this.show(this.isOn ? "Live" : "Stopped");
    } catch {
      this.failures += 1;
      this.show(this.failures > 1 ? "No answer" : "Live");
      if (!isRefresh) this.say("The page does not answer.");
    }
  }

  followLink(event) {
    const anchor = event.target.closest("a[data-soft]");
    if (!anchor || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    this.go(anchor.href, { top: anchor.dataset.soft === "top", replace: anchor.classList.contains("expand") });
  }

  followForm(event) {
    if (!event.target.matches("form.filters")) return;
    event.preventDefault();
    this.submit(event.target);
  }

  submit(form) {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value) query.append(name, value);
    if (!["created_from", "created_to", "updated_from", "updated_to"].some((name) => query.has(name))) query.delete("offset");
    if (query.get("size") === "50") query.delete("size");
    const text = query.toString();
    this.go(form.action.split("?")[0] + (text ? `?${text}` : ""), { replace: true, keepFocused: true });
  }
}
