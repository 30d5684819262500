// Times in the time zone of the browser, and durations that grow.

const dateTime = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });

export function duration(milliseconds) {
  const seconds = Math.max(milliseconds / 1000, 0);
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.floor(seconds)} s`;
  const parts = [];
  let rest = Math.floor(seconds);
  for (const [name, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    const number = Math.floor(rest / size);
    rest %= size;
    if (number || parts.length) parts.push(`${number} ${name}`);
  }
  parts.push(`${rest} s`);
  return parts.slice(0, 2).join(" ");
}

// Whole units only, so that a list does not change every second.
function roughly(milliseconds) {
  const seconds = Math.floor(Math.max(milliseconds / 1000, 0));
  for (const [name, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${name}`;
  }
  return `${seconds} s`;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function showTimes(root) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const when = new Date(element.dateTime);
    const style = element.dataset.style;
    if (style === "ago") set(element, now - when < 7 * 86400e3 ? `${roughly(now - when)} ago` : dateTime.format(when));
    else if (style === "left") set(element, when > now ? `in ${duration(when - now)}` : "now");
    else if (style === "clock") set(element, clock.format(when));
    else set(element, dateTime.format(when));
    if (!element.dataset.titled) {
      element.dataset.titled = "yes";
      element.title = `${dateTime.format(when)}, ${element.title}`;
    }
  }
  for (const element of root.querySelectorAll("[data-since]")) {
    if (element.dataset.since) set(element, duration(now - new Date(element.dataset.since)));
  }
}

export function startClock(also) {
  setInterval(() => {
    if (document.hidden) return;
    showTimes(document);
    also();
  }, 1000);
}
