// Says so, and takes the colour out, when this page has heard nothing from its server: what stands still must not look alive.
(() => {
  let heard = Date.now(), seen = "";
  setInterval(() => {
    const pulse = document.querySelector(".pulse"), stale = document.querySelector(".stale");
    if (!pulse || !stale) return;
    if (pulse.textContent !== seen) { seen = pulse.textContent; heard = Date.now(); }
    const s = Math.round((Date.now() - heard) / 1000), bad = s > 5;
    document.body.classList.toggle("is-stale", bad);
    const words = bad ? `✗ No word from the monitor for ${s} s: this page shows how things stood then. Is \`olearning monitor\` running?` : "";
    if (stale.textContent !== words) stale.textContent = words;
  }, 1000);
})();
