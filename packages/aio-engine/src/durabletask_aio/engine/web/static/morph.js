// Changes the elements of a page into those of a newer version of it.  What stays the same stays the same element, so
// scroll positions, the focus, selected text and opened details stay too.

// By attributes and child nodes: a form's `id` and `children` may be its fields of these names.
const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") || node.getAttribute("id") || "" : "");

// Attributes that belong to the user, or to the script.
const isOwn = (node, name) => (name === "open" && node.matches("details, dialog")) || (name === "hidden" && node.matches("button, .timeline-tools, .problem"));

function isSame(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);
}

// `keepFocused`: whether the field with the focus, which a user may be typing in, keeps its value.
export function morph(from, to, keepFocused = true) {
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return;
  }
  for (const { name, value } of to.attributes) {
    if (!isOwn(from, name) && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !isOwn(from, name) && !name.startsWith("data-titled")) from.removeAttribute(name);
  }
  // The script writes these texts.
  if (from.matches("time, [data-since], [data-keep]")) {
    if (from.matches("time")) delete from.dataset.titled;
    return;
  }
  morphChildren(from, to, keepFocused);
  if (!(keepFocused && from === document.activeElement) && from.matches(".filters input, .filters select")) setField(from, to);
}

// What a field shows follows its attributes only until a user has changed it.
function setField(from, to) {
  if (from.matches("[data-utc-offset]")) return;
  if (from.type === "checkbox") from.checked = to.checked;
  else if (from.value !== to.value) from.value = to.value;
}

function morphChildren(from, to, keepFocused) {
  const wanted = new Set([...to.childNodes].map(keyOf).filter(Boolean));
  const known = new Map();
  for (const child of [...from.childNodes]) {
    const key = keyOf(child);
    if (!key) continue;
    if (wanted.has(key)) known.set(key, child);
    else child.remove();
  }
  let cursor = from.firstChild;
  for (const next of [...to.childNodes]) {
    const key = keyOf(next);
    let match = null;
    if (key) match = known.get(key) ?? null;
    else if (cursor && isSame(cursor, next)) match = cursor;
    if (match && match.nodeName !== next.nodeName) match = null;
    if (!match) {
      const added = document.importNode(next, true);
      from.insertBefore(added, cursor);
      if (added.nodeName === "TR") added.classList.add("fresh");
      continue;
    }
    if (match === cursor) cursor = cursor.nextSibling;
    else from.insertBefore(match, cursor);
    morph(match, next, keepFocused);
  }
  while (cursor) {
    const next = cursor.nextSibling;
    cursor.remove();
    cursor = next;
  }
}
