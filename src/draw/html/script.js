"use strict";
for (const model of document.querySelectorAll("#strips .model")) {
  const box = model.querySelector(".strips"), sort = model.querySelector(".sort"), show = model.querySelector(".show");
  const keys = { image: "image", fate: "rank", clean: "clean", last: "last" };
  const update = () => {
    const key = keys[sort.value];
    const strips = [...box.children].sort((a, b) => a.dataset[key] - b.dataset[key] || a.dataset.image - b.dataset.image);
    box.append(...strips);
    for (const strip of strips) strip.hidden = show.value !== "" && strip.dataset.fate !== show.value;
  };
  sort.addEventListener("change", update);
  show.addEventListener("change", update);
}
// Paper cannot be unfolded, and a link into what is folded must lead there.
addEventListener("beforeprint", () => { for (const folded of document.querySelectorAll("details")) folded.open = true; });
for (const link of document.querySelectorAll("#contents a")) link.addEventListener("click", () => {
  const folded = document.querySelector(link.hash + " > details");
  if (folded) folded.open = true;
});
