// Before anything is drawn: the theme that was chosen last, else the system's.
(() => {
  let theme = null;
  try { theme = localStorage.getItem("mav-theme"); } catch { /* no storage: a file may not have any */ }
  if (theme !== "dark" && theme !== "light") theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = theme;
})();
