// The page's side of the worker. Where there are no workers the same work is done in the page itself.

/** What went wrong, in a sentence for the reader. */
export class Problem extends Error {}

const UNEXPECTED = "Something went wrong that should not: ";

export class Client {
  calls = new Map();
  count = 0;

  constructor() {
    this.ready = this.begin();
  }

  async begin() {
    try {
      this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    } catch {
      return this.without(); // refused: by a setting, or by an old browser
    }
    this.worker.addEventListener("message", ({ data: { id, answer, problem, expected } }) => {
      const { resolve, reject } = this.calls.get(id);
      this.calls.delete(id);
      if (problem === undefined) resolve(answer);
      else reject(new Problem(expected ? problem : UNEXPECTED + problem));
    });
    this.worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.without(); // its modules could not be loaded
    });
  }

  /** Do without a worker, and do now what it was asked. */
  async without() {
    this.worker?.terminate();
    this.worker = null;
    const { Service } = await import("./service.js");
    this.service ??= new Service();
    for (const { call, values, resolve, reject } of this.calls.values()) this.here(call, values).then(resolve, reject);
    this.calls.clear();
  }

  async here(call, values) {
    try {
      return await this.service.call(call, values);
    } catch (error) {
      throw new Problem(error.constructor.name === "InputError" ? error.message : UNEXPECTED + error.message);
    }
  }

  /** The answer to a call of the service. A Problem says in a sentence why there is none. */
  async ask(call, ...values) {
    await this.ready;
    if (!this.worker) return this.here(call, values);
    return new Promise((resolve, reject) => {
      const id = ++this.count;
      this.calls.set(id, { call, values, resolve, reject });
      this.worker.postMessage({ id, call, values });
    });
  }

  close() {
    this.worker?.terminate();
  }
}

/**
 * Asks for the newest only: while one answer is awaited, of all that is asked for meanwhile only the last is asked.
 *
 * `ask` is a function that returns a promise, `show` what is done with its answer, `fail` with a Problem.
 */
export function newest(ask, show, fail) {
  let waiting = null, busy = false;
  const go = async () => {
    busy = true;
    while (waiting) {
      const values = waiting;
      waiting = null;
      try {
        const answer = await ask(...values);
        if (!waiting) await show(answer, ...values);
      } catch (error) {
        if (!waiting) fail(error);
      }
    }
    busy = false;
  };
  return (...values) => {
    waiting = values;
    if (!busy) go();
  };
}
