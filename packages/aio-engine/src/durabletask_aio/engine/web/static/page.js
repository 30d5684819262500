// The page works without this script, except for actions: it keeps what is shown up to date, sends the forms of
// dialogs, shows times in the time zone of the browser, and lets the keyboard do what the mouse does.

import { connectDialogs } from "./dialogs.js";
import { connectKeys } from "./keys.js";
import { Live } from "./live.js";
import { layOutTimeline, connectTimeline } from "./timeline.js";
import { showTimes, startClock } from "./times.js";

document.documentElement.classList.add("scripted");

const main = document.getElementById("main");
const toast = document.getElementById("toast");
let toastTimer = 0;

function say(text) {
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { toast.hidden = true; }, 6000);
}

// After each change of what is shown.
function prepare() {
  for (const each of document.querySelectorAll("button[hidden], .timeline-tools[hidden]")) each.hidden = false;
  for (const each of document.querySelectorAll("[data-utc-offset]")) each.value = -new Date().getTimezoneOffset();
  showTimes(document);
  layOutTimeline();
}

const live = new Live(main, prepare, say);

prepare();
startClock(layOutTimeline);
connectTimeline(main);
connectDialogs(main, live, say);
connectKeys(main, live);
live.start();

const carried = sessionStorage.getItem("durabletask-aio-message");
if (carried) {
  sessionStorage.removeItem("durabletask-aio-message");
  say(carried);
}

// Copy buttons.
document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy");
  if (!button) return;
  event.preventDefault();
  try {
    let text = button.dataset.copy;
    if (text === undefined) {
      const link = button.dataset.copyFrom;
      const answer = link ? await fetch(link) : null;
      if (answer && !answer.ok) throw new Error("the engine does not answer");
      text = answer ? await answer.text() : button.closest(".payload").querySelector("pre").textContent;
    }
    await navigator.clipboard.writeText(text);
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
    say("Copied.");
  } catch (error) {
    say(`Not copied: ${error.message}`);
  }
});

// Links to an event: open it; if it is on another page of events, go there.
function openEvent(number) {
  const item = document.getElementById(`event-${number}`);
  if (!item) return false;
  for (const each of main.querySelectorAll("li.target")) each.classList.remove("target");
  item.classList.add("target");
  const details = item.querySelector("details");
  if (details) details.open = true;
  item.scrollIntoView({ block: "center" });
  (item.querySelector("summary") ?? item).focus({ preventScroll: true });
  return true;
}

document.addEventListener("click", async (event) => {
  const anchor = event.target.closest("a[data-event]");
  if (!anchor || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  if (!openEvent(anchor.dataset.event)) {
    await live.go(anchor.dataset.events);
    openEvent(anchor.dataset.event);
  }
});

if (/^#event-\d+$/.test(location.hash)) openEvent(location.hash.slice(7));
