// Dialogs of actions: opened by buttons, sent without leaving the page, with the answer where the user looks.

export function connectDialogs(main, live, say) {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-dialog]");
    if (opener) {
      event.preventDefault();
      open(opener);
      return;
    }
    const dialog = event.target.closest("dialog");
    if (dialog && (event.target.closest(".cancel") || event.target === dialog)) dialog.close();
  });

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("form.action")) return;
    event.preventDefault();
    const button = form.querySelector("[type=submit]");
    const problem = form.querySelector(".problem");
    problem.hidden = true;
    button.disabled = true;
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        headers: { Accept: "application/json" },
        body: new URLSearchParams(new FormData(form)),
      });
      const result = await answer.json();
      if (!answer.ok) throw new Error(result.error ?? `status ${answer.status}`);
      form.closest("dialog").close();
      form.reset();
      if (result.location === location.pathname + location.search || stays(result.location)) {
        say(result.message);
        await live.load(location.href, {});
      } else {
        sessionStorage.setItem("durabletask-aio-message", result.message);
        location.assign(result.location);
      }
    } catch (error) {
      problem.textContent = error instanceof TypeError || error instanceof SyntaxError ? "The page does not answer." : error.message;
      problem.hidden = false;
    } finally {
      button.disabled = false;
    }
  });
}

// Whether an address is that of the instance that is shown already, on whatever page of its events.
function stays(address) {
  const next = new URL(address, location.href);
  return next.pathname === location.pathname && next.searchParams.get("id") !== null && next.searchParams.get("id") === new URLSearchParams(location.search).get("id");
}

function open(opener) {
  const dialog = document.getElementById(opener.dataset.dialog);
  if (!dialog || dialog.open) return;
  for (const [name, value] of Object.entries(opener.dataset)) {
    if (!name.startsWith("fill")) continue;
    const field = dialog.querySelector(`[name="${name.slice(4).toLowerCase()}"]`);
    if (field) field.value = value;
  }
  const problem = dialog.querySelector(".problem");
  if (problem) problem.hidden = true;
  dialog.showModal();
  const first = dialog.querySelector("input:not([type=hidden], [type=checkbox]), textarea");
  if (first) first.focus();
}
