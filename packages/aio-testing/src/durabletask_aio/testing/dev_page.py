"""What the page of `durabletask-aio dev --ui` is made of: HTML, style and two small scripts, all of it constant.

Names, ids and payloads are whatever programs choose.  They reach the list as JSON and the document as text nodes only;
what the server writes into HTML itself it escapes.  The policy in `POLICY` is the second line of defence: it
lets the browser run these two scripts by their hashes and nothing else, and load nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from urllib.parse import quote

from durabletask_aio.testing.timeline_html import STYLE

_LIST_STYLE = """
.bar-top { display: flex; flex-wrap: wrap; gap: 4px 26px; align-items: baseline; margin: 0 0 4px; }
.bar-top h1 { margin: 0; } .quiet { color: var(--quiet); } .warn { color: var(--failed-ink); font-weight: 600; }
.instances { width: 100%; min-width: 900px; } .scroll { overflow-x: auto; }
.instances td { font-size: 14px; } .instances td:nth-child(2) { overflow-wrap: break-word; }
.instances td:last-child { min-width: 320px; } .instances a { color: inherit; }
.instances th { font-weight: 600; white-space: nowrap; } .instances .when { white-space: nowrap; }
.instances .status { vertical-align: 0; white-space: nowrap; }
.instances tbody tr:hover { background: var(--hover); } .hint { border: 1px solid var(--line); border-radius: 10px;
  padding: 16px 20px; margin: 18px 0; } .hint p { margin: 4px 0; }
"""

_NAV_STYLE = """
.live { display: flex; flex-wrap: wrap; gap: 4px 26px; margin: 0 0 18px; font-size: 14px; }
.live a { color: inherit; } .live .quiet { color: var(--quiet); }
"""

_LIST_SCRIPT = """
"use strict";
const KNOWN = ["pending", "running", "completed", "failed", "terminated", "suspended"];
const at = (id) => document.getElementById(id);
const cell = (row, text, name) => {
  const made = row.insertCell();
  if (name) made.className = name;
  made.textContent = text;
  return made;
};
const ago = (then) => {
  const s = Math.max(0, Math.round((Date.now() - new Date(then)) / 1000));
  if (s < 2) return "just now";
  return s < 90 ? s + " s ago" : s < 5400 ? Math.round(s / 60) + " min ago" : Math.round(s / 3600) + " h ago";
};
const draw = (found) => {
  at("workers").textContent = found.workers === 0 ? "No worker is connected"
    : found.workers === 1 ? "1 worker connected" : found.workers + " workers connected";
  at("workers").className = found.workers === 0 ? "warn" : "quiet";
  const shown = found.instances.length;
  at("count").textContent = found.total === 1 ? "1 instance"
    : found.total + " instances" + (shown < found.total ? ", the newest " + shown + " shown" : "");
  at("empty").hidden = found.total > 0;
  at("waiting").hidden = found.workers > 0 || !found.instances.some((each) => each.status === "pending");
  at("table").hidden = found.total === 0;
  const rows = document.createElement("tbody");
  for (const each of found.instances) {
    const row = rows.insertRow();
    const pill = document.createElement("span");
    pill.className = "status " + (KNOWN.includes(each.status) ? each.status : "pending");
    pill.textContent = each.status;
    row.insertCell().append(pill);
    cell(row, each.name);
    const link = document.createElement("a");
    link.href = "/timeline?id=" + encodeURIComponent(each.id);
    const code = document.createElement("code");
    code.textContent = each.id;
    link.append(code);
    row.insertCell().append(link);
    cell(row, new Date(each.created).toLocaleTimeString(), "when").title = each.created;
    cell(row, ago(each.updated), "when").title = each.updated;
    cell(row, each.custom_status);
    cell(row, each.outcome, each.status === "failed" ? "failure" : "");
  }
  at("table").tBodies[0].replaceWith(rows);
};
let last = "";
const look = async () => {
  try {
    const answer = await fetch("/instances.json");
    const text = await answer.text();
    at("gone").hidden = answer.ok;
    // Redrawn only when something is new or time has moved on, and not under a selection that the user is making.
    if (answer.ok && (text !== last || Date.now() % 5000 < 1000) && getSelection().isCollapsed) {
      last = text;
      draw(JSON.parse(text));
    }
  } catch {
    at("gone").hidden = false;
  }
  setTimeout(look, 1000);
};
look();
"""

_TIMELINE_SCRIPT = """
"use strict";
const look = async () => {
  try {
    const answer = await fetch(location.href);
    const main = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    const shown = document.querySelector("main");
    // Not while the user points at something: what the pointer has brought up would vanish.
    if (answer.ok && main && !shown.querySelector("figure:hover") && getSelection().isCollapsed) {
      const open = shown.querySelector("details")?.open;
      if (open) main.querySelector("details")?.setAttribute("open", "");
      shown.replaceWith(main);
    }
  } catch {
    const note = document.getElementById("live");
    note.textContent = "The engine has stopped.";
  }
  if (document.querySelector(".live[data-live=yes]")) setTimeout(look, 2000);
};
if (document.querySelector(".live[data-live=yes]")) setTimeout(look, 2000);
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_LIST_STYLES = STYLE + _LIST_STYLE
_MESSAGE_STYLES = STYLE + _NAV_STYLE

POLICY = "; ".join(
    (
        "default-src 'none'",
        "connect-src 'self'",
        f"script-src {_hash(_LIST_SCRIPT)} {_hash(_TIMELINE_SCRIPT)}",
        f"style-src {_hash(STYLE)} {_hash(_NAV_STYLE)} {_hash(_LIST_STYLES)} {_hash(_MESSAGE_STYLES)}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The Content-Security-Policy of every answer."""


def describe_store(path: str | None) -> str:
    """Say how long instances stay that are in a file, or in memory."""
    if path is None:
        return "Everything here is in the memory of this engine and is forgotten when it stops."
    return f"Everything here is kept in {path}."


def list_page(engine_address: str, note: str) -> str:
    """The list of instances; its script fills it from `/instances.json` once a second."""
    address = escape(engine_address)
    connect = (
        "<p>Workers and clients find this engine without any setting.</p>"
        if engine_address == "localhost:4001"
        else f'<p>Tell worker and client where: <code>host_address="{address}"</code></p>'
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Workflows · durabletask-aio dev</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_LIST_STYLES}</style></head>\n<body><main>\n"
        "<div class='bar-top'><h1>Workflows</h1><span id='count' class='quiet'></span>"
        f"<span>engine at <code>{address}</code></span><span id='workers' class='quiet'></span></div>\n"
        f"<p class='note'>{escape(note)} The list follows by itself.</p>\n"
        "<noscript><p class='warn'>The list needs JavaScript; /instances.json does not.</p></noscript>\n"
        "<p id='gone' class='warn' hidden>The engine does not answer: it has probably stopped.</p>\n"
        f"<div id='empty' class='hint' hidden><p><b>Nothing has been started yet.</b></p>{connect}"
        "<p>Start a worker in another terminal, then schedule a workflow with a client: it appears here.</p></div>\n"
        "<div id='waiting' class='hint' hidden><p><b>Instances wait for a worker.</b> Start a program that has their "
        f"workflows registered.</p>{connect}</div>\n"
        "<div class='scroll'><table id='table' class='instances' hidden><thead><tr><th>status</th><th>workflow</th>"
        "<th>instance (its timeline)</th><th>created</th><th>updated</th><th>custom status</th>"
        "<th>result or failure</th></tr></thead><tbody></tbody></table></div>\n"
        f"</main><script>{_LIST_SCRIPT}</script></body></html>\n"
    )


def navigation(instance_id: str, status: str, *, live: bool) -> str:
    """What goes above a timeline: the way back, the history, and whether the page still moves."""
    note = f"{status}; follows the instance by itself" if live else "this instance has ended"
    return (
        f"<style>{_NAV_STYLE}</style><nav class='live' data-live='{'yes' if live else 'no'}'>"
        f"<a href='/'>← all instances</a><a href='/history.json?id={quote(instance_id, safe='')}'>history as JSON</a>"
        f"<span class='quiet' id='live'>{escape(note)}.</span></nav>\n"
    )


def with_script(page: str) -> str:
    """A page of a timeline that keeps itself up to date."""
    head, end, tail = page.rpartition("</main>")
    return f"{head}{end}<script>{_TIMELINE_SCRIPT}</script>{tail}"


def message_page(heading: str, text: str, above: str = "") -> str:
    """A page that says one thing."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(heading)}</title>\n'
        f"<style>{_MESSAGE_STYLES}</style></head>\n<body><main>\n{above}<h1>{escape(heading)}</h1><p>{escape(text)}</p>"
        "\n</main></body></html>\n"
    )
