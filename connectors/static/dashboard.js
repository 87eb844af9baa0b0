// Shows how far the present stage is as it goes on, and fetches the page's figures anew when the round moves on.
const live = document.getElementById("live");
if (live) {
  const told = document.getElementById("told");
  let place = live.dataset.place;
  const source = new EventSource(live.dataset.source);
  source.addEventListener("progress", async (event) => {
    const now = JSON.parse(event.data);
    live.innerHTML = now.html;
    if (now.place === place) return;
    place = now.place;
    const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
    for (const id of ["stands", "figures"]) {
      const fresh = page.getElementById(id);
      if (fresh) document.getElementById(id).replaceChildren(...fresh.childNodes);
    }
    told.textContent = `The run has moved on: ${place}.`;
  });
}
