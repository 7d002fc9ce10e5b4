// A grid of any length: only the tiles in view exist.

import { candidate } from "./server.js";
import { drawStrip } from "./stamps.js";

const GAP = 8;
const NAME_HEIGHT = 40; // name, padding and border
const SPARE_ROWS = 2;
const HOLD_MS = 400; // for which a finger rests on a tile before it selects
const STILL = 8; // pixels within which a pointer counts as resting
const EDGE = 24; // pixels from the edge of the box within which it scrolls under a drag

const placeOf = (element) => {
  const tile = element?.closest?.(".tile");
  return tile ? Number(tile.dataset.place) : null;
};

export class Grid {
  /** box: the scrolling listbox; look(row): {text, className, stretch}; chosen(row): called on open; selected(count). */
  constructor(box, { look, chosen, selected }) {
    Object.assign(this, { box, look, chosen, selected });
    this.picked = new Set(); // rows
    this.picking = false; // a tap picks, for those without a keyboard
    this.anchor = 0;
    this.room = document.createElement("div");
    this.room.className = "room";
    this.room.setAttribute("role", "presentation");
    box.append(this.room);
    this.rows = [];
    this.at = 0;
    this.tiles = new Map(); // place -> element
    box.addEventListener("scroll", () => this.#soon());
    new ResizeObserver(() => this.layout()).observe(box);
    this.#drags();
    box.addEventListener("click", (event) => {
      const place = placeOf(event.target);
      if (place === null || this.dragged) return;
      if (event.shiftKey) this.#range(place);
      else if (this.picking || event.ctrlKey || event.metaKey) this.#toggle(place);
      else this.unselect();
      this.select(place, event.shiftKey);
    });
    box.addEventListener("dblclick", () => this.rows.length && chosen(this.rows[this.at]));
  }

  get row() {
    return this.rows[this.at];
  }

  /** Those that an answer goes to: the picked ones, else the one under the cursor. */
  chosenRows() {
    return this.picked.size ? [...this.picked] : this.row === undefined ? [] : [this.row];
  }

  unselect() {
    this.#changed([...this.picked], () => this.picked.clear());
    this.repaint();
  }

  #changed(rows, change) {
    change();
    this.selected(this.picked.size);
    for (const row of rows) this.paint(this.rows.indexOf(row));
  }

  #toggle(place) {
    const row = this.rows[place];
    this.#changed([row], () => this.picked.delete(row) || this.picked.add(row));
    this.anchor = place;
  }

  #range(place, before = []) {
    const rows = this.rows.slice(Math.min(this.anchor, place), Math.max(this.anchor, place) + 1);
    this.#changed([], () => (this.picked = new Set([...before, ...rows])));
    this.repaint();
  }

  /** A mouse drags over a range; a finger does after it has rested on the first tile, else it scrolls. */
  #drags() {
    let from = null, held = false, timer = 0, before = [], pointer = null;
    const begin = (extend) => {
      held = this.dragged = true;
      before = extend ? [...this.picked] : [];
      this.anchor = from.place;
      this.#range(from.place, before);
    };
    const follow = () => {
      const place = placeOf(document.elementFromPoint(...pointer));
      if (place !== null && place !== this.at) {
        this.#range(place, before);
        this.select(place, true);
      }
    };
    // At the edge of the box the grid runs on under the pointer.
    const run = () => {
      if (!held) return;
      const { top, bottom } = this.box.getBoundingClientRect();
      const beyond = Math.min(0, pointer[1] - top - EDGE) + Math.max(0, pointer[1] - bottom + EDGE);
      if (beyond) this.box.scrollTop += beyond / 3;
      if (beyond) follow();
      requestAnimationFrame(run);
    };
    this.box.addEventListener("pointerdown", (event) => {
      const place = placeOf(event.target);
      this.dragged = held = false;
      if (place === null || !event.isPrimary || event.button || event.shiftKey) return;
      pointer = [event.clientX, event.clientY];
      from = { place, at: pointer };
      if (event.pointerType === "touch") timer = setTimeout(() => from && (begin(true), run()), HOLD_MS);
    });
    addEventListener("pointermove", (event) => {
      if (!from || !event.isPrimary) return;
      pointer = [event.clientX, event.clientY];
      const far = Math.hypot(pointer[0] - from.at[0], pointer[1] - from.at[1]) > STILL;
      if (!held && far && event.pointerType === "touch") return end();
      if (!held && far) (begin(this.picking || event.ctrlKey || event.metaKey), run());
      if (held) follow();
    });
    const end = () => {
      clearTimeout(timer);
      from = null;
      held = false;
    };
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, end);
    this.box.addEventListener("touchmove", (event) => held && event.preventDefault(), { passive: false });
    this.box.addEventListener("contextmenu", (event) => (held || timer) && event.pointerType === "touch" && event.preventDefault());
  }

  show(rows, at = 0) {
    this.rows = rows;
    this.picked.clear();
    this.selected(0);
    this.at = Math.max(0, Math.min(at, rows.length - 1));
    this.layout();
    this.select(this.at);
  }

  layout() {
    const width = this.box.clientWidth - GAP;
    if (width <= 0) return;
    this.columns = Math.max(1, Math.floor(width / (210 + GAP)));
    this.width = Math.floor(width / this.columns) - GAP;
    this.height = Math.ceil((this.width - 16) / 3) + NAME_HEIGHT;
    this.room.style.height = `${Math.ceil(this.rows.length / this.columns) * (this.height + GAP) + GAP}px`;
    for (const tile of this.tiles.values()) tile.remove();
    this.tiles.clear();
    this.draw();
  }

  #soon() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = undefined;
      this.draw();
    });
  }

  draw() {
    if (!this.columns) return;
    const line = this.height + GAP;
    const first = Math.max(0, Math.floor(this.box.scrollTop / line) - SPARE_ROWS) * this.columns;
    const rowsInView = Math.ceil(this.box.clientHeight / line) + 2 * SPARE_ROWS + 1;
    const last = Math.min(this.rows.length, first + rowsInView * this.columns);
    for (const [place, tile] of this.tiles) {
      if (place < first || place >= last) {
        tile.remove();
        this.tiles.delete(place);
      }
    }
    for (let place = first; place < last; place++) if (!this.tiles.has(place)) this.#make(place);
  }

  #make(place) {
    const tile = document.createElement("div");
    tile.id = `tile-${place}`;
    tile.dataset.place = place;
    tile.setAttribute("role", "option");
    tile.setAttribute("aria-setsize", this.rows.length);
    tile.setAttribute("aria-posinset", place + 1);
    tile.style.left = `${GAP + (place % this.columns) * (this.width + GAP)}px`;
    tile.style.top = `${GAP + Math.floor(place / this.columns) * (this.height + GAP)}px`;
    tile.style.width = `${this.width}px`;
    const canvas = document.createElement("canvas");
    canvas.height = Math.ceil(((this.width - 16) / 3) * Math.min(2, devicePixelRatio));
    canvas.width = canvas.height * 3;
    const name = document.createElement("div");
    name.className = "name";
    name.append(document.createElement("span"), document.createElement("b"));
    tile.append(canvas, name);
    this.tiles.set(place, tile);
    this.room.append(tile);
    this.paint(place);
  }

  async paint(place) {
    const tile = this.tiles.get(place);
    if (!tile) return;
    const row = this.rows[place];
    const { id, text, className, stretch } = this.look(row);
    tile.className = `tile ${className}`;
    tile.classList.toggle("at", place === this.at);
    tile.setAttribute("aria-selected", this.picked.size ? this.picked.has(row) : place === this.at);
    tile.querySelector("span").textContent = id;
    tile.querySelector("b").textContent = text;
    const found = await candidate(row).catch(() => null);
    if (found && this.tiles.get(place) === tile) drawStrip(tile.querySelector("canvas"), found.stamps, { stretch });
  }

  repaint() {
    for (const place of this.tiles.keys()) this.paint(place);
  }

  select(place, keepAnchor = false) {
    if (!this.rows.length) return;
    const before = this.at;
    if (!keepAnchor) this.anchor = Math.max(0, Math.min(place, this.rows.length - 1));
    this.at = Math.max(0, Math.min(place, this.rows.length - 1));
    const line = this.height + GAP;
    const top = Math.floor(this.at / this.columns) * line;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    const bottom = top + line + GAP - this.box.clientHeight;
    if (bottom > this.box.scrollTop) this.box.scrollTop = bottom;
    this.draw();
    this.paint(before);
    this.paint(this.at);
    this.box.setAttribute("aria-activedescendant", `tile-${this.at}`);
  }

  moves(name) {
    return name in this.#steps();
  }

  #steps() {
    const page = this.columns * Math.max(1, Math.floor(this.box.clientHeight / (this.height + GAP)));
    return {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      PageUp: -page, PageDown: page, Home: -this.rows.length, End: this.rows.length,
    };
  }

  key(name, extend) {
    const to = Math.max(0, Math.min(this.at + this.#steps()[name], this.rows.length - 1));
    if (extend) this.#range(to);
    this.select(to, extend);
  }
}
