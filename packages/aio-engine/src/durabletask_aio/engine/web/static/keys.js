// The keyboard.

const GO = { i: 0, e: 1, s: 2 };

export function connectKeys(main, live) {
  let isGoing = false;

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    if (isGoing) {
      isGoing = false;
      const link = document.querySelectorAll(".top nav a")[GO[event.key]];
      if (link) link.click();
      return;
    }
    const action = {
      "/": () => document.getElementById("search")?.focus(),
      "?": () => document.getElementById("help").showModal(),
      g: () => { isGoing = true; setTimeout(() => { isGoing = false; }, 1500); },
      l: () => live.toggle(),
      j: () => move(main, 1),
      k: () => move(main, -1),
      ArrowDown: () => move(main, 1, event),
      ArrowUp: () => move(main, -1, event),
      ArrowRight: () => expand(event, false),
      ArrowLeft: () => expand(event, true),
    }[event.key];
    if (action && action() !== false) event.preventDefault();
  });
}

// What `j` and `k` go through: the rows of a list, or the operations and events of an instance.
function stops(main) {
  return [...main.querySelectorAll(".list tbody a.id, .operation > summary, .group > summary, .event > summary")].filter((each) => each.offsetParent);
}

function move(main, step, event) {
  const all = stops(main);
  const at = all.indexOf(document.activeElement);
  if (event && at < 0) return false; // the arrow keys scroll
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step];
  if (!next) return at >= 0;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  return true;
}

function expand(event, isOpen) {
  const toggle = event.target.closest(".list tr")?.querySelector(".expand");
  if (!toggle || (toggle.getAttribute("aria-expanded") === "true") !== isOpen) return false;
  toggle.click();
  return true;
}
