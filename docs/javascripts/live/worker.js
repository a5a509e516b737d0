// The worker of a live page: calls come in, answers go out. What is done is in service.js.

import { Service } from "./service.js";

const service = new Service();

addEventListener("message", async ({ data: { id, call, values } }) => {
  try {
    postMessage({ id, answer: await service.call(call, values) });
  } catch (error) {
    postMessage({ id, problem: error.message, expected: error.constructor.name === "InputError" });
  }
});
