"""The style sheet of a timeline's page."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --quiet: #66727f; --paper: #ffffff; --line: #e3e8ee;
  --done: #217a55; --failed: #c53030; --failed-ink: #b42323; --running: #3568c0;
  --wait-ground: #f6e7c1; --wait-line: #e0b64f; --moment: #7a4fc9; --instance: #9fb3c8; --hover: #f5f7fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --quiet: #9aa7b5; --paper: #14191f; --line: #2a333d;
  --failed-ink: #ff8a80;
  --wait-ground: #4a3f22; --wait-line: #b8933b; --instance: #52667a; --hover: #1b222a; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 24px; margin: 0 0 10px; } code { font: 13px/1.45 ui-monospace, Consolas, monospace; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0 0 22px; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; } .failure { color: var(--failed-ink); }
.status { font-size: 13px; font-weight: 600; vertical-align: 4px; padding: 2px 10px; border-radius: 11px; color: #fff;
  background: var(--running); } .status.completed { background: var(--done); }
.status.failed, .status.terminated { background: var(--failed); }
.status.suspended, .status.pending { background: #66727f; }
figure { margin: 0; overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; padding: 12px 0; }
svg { display: block; min-width: 900px; width: 100%; } svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg .lane { font-weight: 600; font-size: 13px; } svg .tick { font-size: 11px; fill: var(--quiet); text-anchor: middle; }
svg .took { font-size: 11px; fill: var(--quiet); } svg .inside { font-size: 11px; fill: #fff; pointer-events: none; }
.grid { stroke: var(--line); }
.hover { fill: transparent; } .row:hover .hover { fill: var(--hover); }
.instance { fill: var(--instance); } line.turn { stroke: var(--ink); stroke-width: 2; }
.completed { fill: var(--done); background: var(--done); } .failed { fill: var(--failed); background: var(--failed); }
.running { fill: var(--running); background: var(--running); }
.dropped { fill: none; stroke: var(--quiet); stroke-dasharray: 4 3; border: 1px dashed var(--quiet); }
.waited { fill: url(#wait); stroke: var(--wait-line); background: repeating-linear-gradient(45deg, var(--wait-ground),
  var(--wait-ground) 4px, var(--wait-line) 4px, var(--wait-line) 6px); }
.wait-ground { fill: var(--wait-ground); } .wait-line { fill: var(--wait-line); }
.moment { fill: var(--moment); background: var(--moment); } .suspended { fill: #8886; background: #8886; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 22px; padding: 0; margin: 14px 0 2px; }
.legend i { display: inline-block; width: 22px; height: 12px; border-radius: 3px; margin-right: 8px; }
.legend i.moment { width: 11px; height: 11px; transform: rotate(45deg); border-radius: 0; }
.legend i.turn { width: 3px; background: var(--ink); }
.narrow { display: none; } @media (max-width: 900px) { .narrow { display: inline; } }
.note { color: var(--quiet); margin: 0 0 18px; font-size: 13px; } summary { cursor: pointer; }
table { border-collapse: collapse; margin-top: 10px; font-size: 14px; } td, th { text-align: left; vertical-align: top;
  padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .wide table { min-width: 760px; } .wide td:nth-child(odd) { white-space: nowrap; }
.wide td:last-child { white-space: normal; }
"""
