// The timeline: places the bars for the part of the time axis that is in view.

import { duration } from "./times.js";

const SVG = "http://www.w3.org/2000/svg";
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3, 1800e3, 3600e3, 2 * 3600e3, 3 * 3600e3, 6 * 3600e3, 12 * 3600e3, 86400e3, 2 * 86400e3, 7 * 86400e3, 30 * 86400e3, 90 * 86400e3, 365 * 86400e3];
const NARROWEST = 2; // milliseconds
const THINNEST = 3; // pixels

// What is in view, in milliseconds from the start; null shows all, also while it grows.
let view = null;

const find = () => document.getElementById("timeline");

function whole(section) {
  const recorded = Number(section.dataset.length);
  const until = "live" in section.dataset ? Math.max(recorded, Date.now() - new Date(section.dataset.start)) : recorded;
  return Math.max(until, NARROWEST);
}

function inView(section) {
  const length = whole(section);
  // A little room, so that the last bar does not touch the edge.
  return view ?? { from: 0, to: length * 1.01 };
}

export function layOutTimeline() {
  const section = find();
  if (!section) return;
  const length = whole(section);
  const { from, to } = inView(section);
  const scale = 100 / (to - from);
  const width = section.querySelector(".axis-track").getBoundingClientRect().width || 800;
  for (const bar of section.querySelectorAll("[data-from]")) {
    const start = (Number(bar.dataset.from) - from) * scale;
    if (bar.tagName === "circle") {
      bar.setAttribute("cx", `${start}%`);
      continue;
    }
    bar.setAttribute("x", `${start}%`);
    if (bar.classList.contains("turn")) continue;
    const end = ((bar.dataset.to === "" ? length : Number(bar.dataset.to)) - from) * scale;
    bar.setAttribute("width", `${Math.max(end - start, (THINNEST / width) * 100)}%`);
  }
  drawAxis(section, from, to, width);
}

function make(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}

function drawAxis(section, from, to, width) {
  const axis = section.querySelector(".axis-track");
  const step = STEPS.find((each) => each >= (to - from) / Math.max(width / 95, 2)) ?? STEPS[STEPS.length - 1];
  const parts = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    const x = ((at - from) / (to - from)) * 100;
    parts.push(make("line", { x1: `${x}%`, x2: `${x}%`, y1: 17, y2: 24 }));
    if (x < 94) parts.push(make("text", { x: `${x}%`, dx: x < 1 ? 0 : 3, y: 14 }, at === 0 ? "0" : tick(at)));
  }
  axis.replaceChildren(...parts);
}

function tick(milliseconds) {
  return milliseconds < 1000 ? `${milliseconds} ms` : duration(milliseconds).replace(/\.0 s$/, " s").replace(/ 0 (s|min|h)$/, "");
}

function zoom(section, factor, around = 0.5) {
  const { from, to } = inView(section);
  const length = Math.min(Math.max((to - from) * factor, NARROWEST), whole(section) * 1.01);
  setView(section, from + (to - from - length) * around, length);
}

function setView(section, start, length) {
  const limit = whole(section) * 1.01;
  if (length >= limit * 0.999) {
    view = null;
  } else {
    const from = Math.min(Math.max(start, 0), limit - length);
    view = { from, to: from + length };
  }
  layOutTimeline();
}

function pan(section, part) {
  const { from, to } = inView(section);
  setView(section, from + (to - from) * part, to - from);
}

const COMMANDS = {
  in: (section) => zoom(section, 0.5),
  out: (section) => zoom(section, 2),
  earlier: (section) => pan(section, -0.3),
  later: (section) => pan(section, 0.3),
  all: () => { view = null; layOutTimeline(); },
  collapse: (section) => { for (const each of section.querySelectorAll("details")) each.open = false; },
  expand: (section) => { for (const each of section.querySelectorAll(".group")) each.open = true; },
};
const KEYS = { "+": "in", "=": "in", "-": "out", "0": "all", ArrowLeft: "earlier", ArrowRight: "later" };

export function connectTimeline(main) {
  addEventListener("resize", layOutTimeline);

  main.addEventListener("click", (event) => {
    const command = event.target.closest("[data-zoom]")?.dataset.zoom;
    if (command) COMMANDS[command](find());
  });

  main.addEventListener("keydown", (event) => {
    const section = event.target.closest("#timeline");
    const command = KEYS[event.key];
    if (!section || !command || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    COMMANDS[command](section);
  });

  main.addEventListener("wheel", (event) => {
    const track = event.target.closest("#timeline .track, #timeline .axis-track");
    if (!track || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const box = track.getBoundingClientRect();
    zoom(find(), event.deltaY < 0 ? 0.8 : 1.25, (event.clientX - box.left) / box.width);
  }, { passive: false });

  // A part of the axis that is drawn over with the pointer comes into view.
  let drag = null;
  main.addEventListener("pointerdown", (event) => {
    const axis = event.target.closest(".axis-track");
    if (!axis || event.button) return;
    drag = { axis, box: axis.getBoundingClientRect(), start: event.clientX, mark: make("rect", { class: "chosen", y: 0, height: 24 }) };
    axis.append(drag.mark);
    axis.setPointerCapture(event.pointerId);
  });
  main.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [left, right] = span(event);
    drag.mark.setAttribute("x", `${left * 100}%`);
    drag.mark.setAttribute("width", `${(right - left) * 100}%`);
  });
  main.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const [left, right] = span(event);
    const isClick = (right - left) * drag.box.width < 4;
    drag.mark.remove();
    drag = null;
    if (isClick) return;
    const section = find();
    const { from, to } = inView(section);
    setView(section, from + (to - from) * left, Math.max((to - from) * (right - left), NARROWEST));
  });
  main.addEventListener("pointercancel", () => { drag?.mark.remove(); drag = null; });

  function span(event) {
    const at = (x) => Math.min(Math.max((x - drag.box.left) / drag.box.width, 0), 1);
    return [at(drag.start), at(event.clientX)].sort((one, other) => one - other);
  }
}
