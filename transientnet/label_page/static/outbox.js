// Answers on their way to the server's disk: in order, all that wait in one request, kept until acknowledged.

import { Refused, post, reason } from "./server.js";

const AGAIN_MS = 1500;

export class Outbox {
  #waiting = []; // { number, row, kind, label, note }
  #sending = 0; // how many of these are in the request under way
  #number = 0;
  #visit = crypto.getRandomValues(new Uint32Array(2)).join("-");
  #drained = [];

  /** saved(state, answers), refused(message, answers) and trouble(message) inform the page; changed(count). */
  constructor(labeller, { saved, refused, trouble, changed }) {
    Object.assign(this, { labeller, saved, refused, trouble, changed });
    addEventListener("beforeunload", (event) => this.size && event.preventDefault());
  }

  /** Answers that are not on the server's disk yet. */
  get size() {
    return this.#waiting.length;
  }

  holds(row) {
    return this.#waiting.some((answer) => answer.row === row);
  }

  push(answer) {
    this.#waiting.push({ number: ++this.#number, ...answer });
    this.changed(this.size);
    this.#send();
  }

  /** Resolves when nothing waits any more. */
  idle() {
    return this.size ? new Promise((resolve) => this.#drained.push(resolve)) : Promise.resolve();
  }

  async #send() {
    if (this.#sending || !this.size) return;
    const answers = this.#waiting.slice(0, 64);
    this.#sending = answers.length;
    let state = null;
    try {
      state = await post("api/answers", { labeller: this.labeller, visit: this.#visit, answers });
      this.trouble("");
    } catch (error) {
      if (!(error instanceof Refused)) {
        this.trouble(
          `NOT saved yet: ${this.size} ${this.size === 1 ? "answer" : "answers"}. ` +
            `${reason(error)} Trying again.`,
        );
        this.#sending = 0;
        setTimeout(() => this.#send(), AGAIN_MS);
        return;
      }
      this.refused(error.message, answers);
    }
    this.#waiting.splice(0, answers.length);
    this.#sending = 0;
    if (state) await this.saved(state, answers);
    this.changed(this.size);
    if (this.size) this.#send();
    else this.#drained.splice(0).forEach((resolve) => resolve());
  }
}
