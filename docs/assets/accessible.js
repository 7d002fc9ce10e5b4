// What the theme leaves out: a name for its search dialog, and tables that a keyboard can scroll.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
const scrollable = () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .highlight-ipynb, .jp-OutputArea-output, pre > code")) box.tabIndex = 0;
};
scrollable();
document.addEventListener("DOMContentLoaded", scrollable);
