// The questions at a chapter's end: which answer was opened first is kept in this browser, goes nowhere, and
// can be carried away as a file. What comes from a file, or was kept by somebody else, is looked at first.

const ROOT = new URL("..", import.meta.url);
const KEPT = "answers";
const MOST = 2000; // answers in one file
const KEY = /^[\w/-]{0,100}#\d{1,3}$/;
const ANSWER = /^[A-F][+-]$/; // the letter, and whether it is right
const PAGE = /^[\w./-]{0,100}$/;

const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

// Answers that are none are left out. Null where the whole is something else.
function answersIn(value) {
  if (!isRecord(value)) return null;
  const entries = Object.entries(value).slice(0, MOST);
  return Object.fromEntries(entries.filter(([key, answer]) => KEY.test(key) && typeof answer === "string" && ANSWER.test(answer)));
}

function progressIn(text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    return null;
  }
  const ours = isRecord(found) && found.course === "LLM Rebuild" && found.version === 1;
  const answers = ours ? answersIn(found.answers) : null;
  if (!answers || !Array.isArray(found.read)) return null;
  return { answers, read: found.read.slice(0, MOST).filter((page) => typeof page === "string" && PAGE.test(page)) };
}

/** What this browser keeps under a name; null: nothing. What cannot be read is a list of nothing. */
function stored(name) {
  try {
    return __md_get(name, localStorage, ROOT);
  } catch {
    return [];
  }
}

const pagesRead = () => [stored("read")].flat().filter((page) => typeof page === "string");

/** Note which answers are opened, and show how many were right, in the panel of a page with questions. */
export function start([panel]) {
  const page = location.pathname.slice(ROOT.pathname.length);
  const boxes = [...panel.parentElement.querySelectorAll("[data-progress] ~ .exercise")];
  const kept = stored(KEPT) ?? {};
  let answers = answersIn(kept);
  const spoiled = !answers || Object.keys(answers).length < Object.keys(kept).length;
  answers ??= {};

  const words = document.createElement("span");
  words.setAttribute("role", "status");
  const show = (said = "") => {
    const here = boxes.map((box, number) => answers[`${page}#${number + 1}`]).filter(Boolean);
    const all = Object.values(answers);
    const right = (given) => given.filter((answer) => answer[1] === "+").length;
    words.textContent =
      `Here: ${here.length} of ${boxes.length} answered, ${right(here)} right at the first try. ` +
      `In all: ${all.length} answered, ${right(all)} right. ${said}`;
  };
  const keep = (said) => {
    __md_set(KEPT, answers, localStorage, ROOT);
    show(said);
  };

  boxes.forEach((box, number) => {
    for (const answer of box.querySelectorAll("details.answer")) {
      answer.addEventListener("toggle", () => {
        const key = `${page}#${number + 1}`;
        if (!answer.open || answers[key]) return;
        const letter = answer.querySelector("summary").textContent.trim()[0];
        const reply = answer.textContent.replace(answer.querySelector("summary").textContent, "").trim();
        answers[key] = letter + (reply.startsWith("Yes") ? "+" : "-");
        keep();
      });
    }
  });

  const button = (text, act) => {
    const made = document.createElement("button");
    made.className = "md-button";
    made.textContent = text;
    made.addEventListener("click", act);
    return made;
  };
  const file = Object.assign(document.createElement("input"), { type: "file", accept: ".json", hidden: true });
  file.setAttribute("aria-label", "A file with answers");
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    const found = chosen && chosen.size < 1e6 ? progressIn(await chosen.text().catch(() => "")) : null; // it may be gone
    file.value = "";
    if (!found) return show("That file holds no answers of this course; nothing was changed.");
    answers = { ...answers, ...found.answers };
    __md_set("read", [...new Set([...pagesRead(), ...found.read])], localStorage, ROOT);
    keep("The file's answers are in.");
  });
  const save = () => {
    const text = JSON.stringify({ course: "LLM Rebuild", version: 1, answers, read: pagesRead() }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "llm-rebuild-answers.json";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const forget = () => {
    answers = {};
    keep("All answers are forgotten.");
  };
  panel.replaceChildren(
    words,
    document.createElement("br"),
    button("Save to a file", save),
    " ",
    button("Take from a file", () => file.click()),
    " ",
    button("Forget", forget),
    file,
  );
  show(spoiled ? "What else was kept here could not be read, and is left out." : "");
}
