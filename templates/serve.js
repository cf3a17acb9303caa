"use strict";
// The served pages: a filter over the list, a run that is followed, sentences that are tried.
(() => {
  const $ = (id) => document.getElementById(id);
  const EVERY = 1000;

  const problem = (text) => { $("problem").textContent = text; $("problem").hidden = !text; };
  const ask = async (address, body) => {
    const how = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const answer = await fetch(address, how);
    const told = answer.headers.get("content-type")?.startsWith("application/json") ? await answer.json() : { error: await answer.text() };
    if (!answer.ok) throw new Error(told.error);
    return told;
  };
  const tryTo = async (act) => { try { problem(""); await act(); } catch (error) { problem(error.message); } };

  const filter = $("filter");
  filter?.addEventListener("input", () => {
    const words = filter.value.trim().toLowerCase();
    for (const row of $("runs").tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(words);
  });

  const run = $("run");
  if (!run) return;
  const query = `run=${encodeURIComponent(run.dataset.run)}`;
  let total = Number(run.dataset.total);
  let status = run.dataset.status;

  const show = async (told) => {
    status = told.status;
    $("status").textContent = status;
    $("status").classList.toggle("live", status === "running");
    if ($("stop")) $("stop").hidden = status !== "running";
    if (!told.rows.length) return;
    const table = $("candidates");
    if (!table) { location.reload(); return; }
    total = told.total;
    table.dispatchEvent(new CustomEvent("ipo-rows", { detail: told.rows }));
    $("best-so-far").textContent = told.best;
    if (told.accuracy !== null) $("figures").textContent = `best so far on the training images: ${told.accuracy.toFixed(2)}%, step ${told.step}, ${total.toLocaleString("en")} candidates`;
    const page = new DOMParser().parseFromString(await (await fetch(`/chart?${query}`)).text(), "text/html");
    $("chart").replaceWith(document.adoptNode(page.getElementById("chart")));
  };
  const follow = async () => show(await ask(`/api/rows?${query}&from=${total}`));
  const again = async () => {
    const before = status;
    await tryTo(follow);
    if (status === "running") setTimeout(again, EVERY);
    else if (before === "running") location.reload(); // it is done, and has results now
  };
  if (status === "running") setTimeout(again, EVERY);

  $("stop")?.addEventListener("click", () => tryTo(async () => {
    await ask(`/api/stop?${query}`, {});
    $("stop").disabled = true;
    $("stop").textContent = "stopping after this step";
  }));

  const sentence = $("sentence"), add = $("add");
  $("try")?.addEventListener("submit", (event) => {
    event.preventDefault();
    $("tried").textContent = "scoring … the first time the model is loaded";
    tryTo(async () => {
      try {
        const told = await ask(`/api/try?${query}`, { text: sentence.value });
        const ahead = `${told.ahead < 0 ? "" : "+"}${told.ahead.toFixed(2)}`;
        $("tried").textContent = `${told.value.toFixed(2)}% [${told.low.toFixed(1)}, ${told.high.toFixed(1)}], loss ${told.loss}: ${ahead} points to the best`;
        if (add) add.disabled = false;
      } catch (error) { $("tried").textContent = ""; throw error; }
    });
  });
  sentence?.addEventListener("input", () => { if (add) add.disabled = true; });
  add?.addEventListener("click", () => tryTo(async () => {
    add.disabled = true;
    await ask(`/api/add?${query}`, { text: sentence.value });
    await follow();
    $("tried").textContent = "added to the history";
  }));
})();
