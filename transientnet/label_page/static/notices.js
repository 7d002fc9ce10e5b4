// What the page tells: passing remarks, and what went wrong, each until its own cause is gone.

const box = document.getElementById("alarm");
const ORDER = ["refused", "answers", "table", "server", "request"];
const standing = new Map(); // what it is about -> text

/** A passing remark on what was done. */
export const say = (text) => (document.getElementById("said").textContent = text);

/** Say what went wrong with one thing; an empty text once that is well again. */
export function alarm(text, about = "request") {
  if (text) standing.set(about, text);
  else standing.delete(about);
  // Answers that wait tell already that the server is away.
  const told = ORDER.filter((one) => standing.has(one) && !(one === "server" && standing.has("answers")));
  box.hidden = !told.length;
  box.replaceChildren(
    ...told.map((one) => {
      const line = document.createElement("span");
      line.textContent = standing.get(one);
      if (one !== "refused") return line;
      // What was lost must be read by somebody, so that it stays until they say so.
      const close = document.createElement("button");
      close.type = "button";
      close.textContent = "Understood";
      close.addEventListener("click", () => alarm("", one));
      line.append(" ", close);
      return line;
    }),
  );
}
