// Swiping the stamps on a touch screen.

const FAR = 60;

/** swiped(-1) to the left, swiped(1) to the right. */
export function onSwipe(element, swiped) {
  let from = null;
  element.addEventListener("pointerdown", (event) => {
    from = event.pointerType === "touch" && event.isPrimary ? [event.clientX, event.clientY] : null;
  });
  element.addEventListener("pointerup", (event) => {
    if (!from) return;
    const [dx, dy] = [event.clientX - from[0], event.clientY - from[1]];
    from = null;
    if (Math.abs(dx) > FAR && Math.abs(dx) > 2 * Math.abs(dy)) swiped(Math.sign(dx));
  });
  element.addEventListener("pointercancel", () => (from = null));
}
