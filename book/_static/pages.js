// Paper is white: a dark page is printed in the light theme, or its text would be pale grey.
let shown;
addEventListener("beforeprint", () => {
  shown = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
addEventListener("afterprint", () => { document.documentElement.dataset.theme = shown; });

// Keys reach a figure that scrolls sideways; the theme sees to tables and code.
const reach = () => document.querySelectorAll(".cell_output:has(> img), .bd-article figure").forEach((one) => {
  one.toggleAttribute("tabindex", one.scrollWidth > one.clientWidth);
  if (one.hasAttribute("tabindex")) one.tabIndex = 0;
});
addEventListener("load", reach);
addEventListener("resize", reach);
