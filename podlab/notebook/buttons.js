// Buttons that answer the question which a cell asks. They type the answer into the page's own input box and send it
// as Enter would: it travels the one way that a kernel reads while a cell runs, and only to the question of this very
// page that waits now. Where there is no such box, nothing can be pressed, and whatever the page has instead is used.

const LOOK_MS = 150;
const ARMED_MS = 600; // a click meant for something else, just as the buttons come, is no answer
const PATIENCE_MS = 2500; // until somebody is told that there is no box
const SILENCE_MS = 6000; // the kernel tells every second that it still waits
const HEARD_MS = 9000; // until an answer that was sent must have been heard
const OVER = "This question is over, and nothing came of it. Run the cell again.";
const SILENT = "Nothing is heard from the kernel: this question may be over. Run the cell again.";
const ELSEWHERE = "Answer where the notebook asks for input, in the window that ran the cell.";

/** The page's box for this question: in the same output, with the same words, and the newest of them. */
function boxFor(el, prompt) {
  for (let area = el.closest(".jp-OutputArea"); area; area = area.parentElement?.closest(".jp-OutputArea")) {
    const found = [...area.querySelectorAll(".jp-Stdin")].filter((each) => {
      const asked = each.querySelector(".jp-Stdin-prompt")?.textContent ?? "";
      return asked.trim() === prompt.trim() && !each.closest(".jp-OutputArea-stdin-hiding");
    });
    const last = found.at(-1);
    const input = last?.querySelector("input.jp-Stdin-input");
    if (input && !input.disabled) return { item: last.closest(".jp-OutputArea-stdin-item") ?? last, input };
  }
  return null;
}

function type(input, text) {
  input.value = text;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  input.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", code: "Enter", keyCode: 13, bubbles: true, cancelable: true }));
}

function render({ model, el }) {
  const group = document.createElement("div");
  group.className = "podlab-buttons";
  group.tabIndex = -1;
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", model.get("prompt"));
  const status = document.createElement("span");
  status.className = "podlab-buttons-status";
  status.setAttribute("role", "status");
  const buttons = model.get("labels").map((label, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.disabled = true;
    button.className = index === 0 && model.get("first") ? `podlab-first-${model.get("first")}` : "";
    button.addEventListener("click", (event) => event.isTrusted && press(index));
    return button;
  });
  // The notebook's own keys would go on working: D D would delete the cell, Enter begin to edit it.
  for (const each of [group, ...buttons]) each.setAttribute("data-lm-suppress-shortcuts", "true");
  group.append(...buttons, status);
  el.append(group);

  const came = performance.now();
  let heard = came, armed = 0, sent = 0, hidden = null;
  const say = (text) => status.textContent !== text && (status.textContent = text);

  function press(index) {
    const box = boxFor(el, model.get("prompt"));
    if (!ready(box) || sent) return look();
    sent = performance.now();
    type(box.input, model.get("answers")[index]);
    look();
  }

  function ready(box) {
    const now = performance.now();
    return box !== null && model.get("waits") && now - heard < SILENCE_MS && armed && now - armed >= ARMED_MS;
  }

  function look() {
    const now = performance.now();
    const box = sent ? null : boxFor(el, model.get("prompt"));
    const silent = now - heard >= SILENCE_MS;
    if (box && !silent && !armed) {
      armed = now;
      // One place to answer in. What was begun to be typed stays; the keyboard is taken over only from the box.
      if (model.get("alone") && !box.input.value) {
        const had = document.activeElement === box.input;
        hidden = box.item;
        hidden.classList.add("podlab-answered-by-buttons");
        if (had) group.focus({ preventScroll: true });
      }
    }
    const can = !sent && ready(box);
    for (const button of buttons) button.disabled = !can;
    hidden?.classList.toggle("podlab-answered-by-buttons", !silent || !model.get("waits"));
    if (!model.get("waits") || can) say("");
    else if (sent) say(now - sent < HEARD_MS ? "Sent." : OVER);
    else if (silent) say(SILENT);
    else if (!box && now - came >= PATIENCE_MS) say(ELSEWHERE);
  }

  group.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !event.isTrusted || !model.get("escape")) return;
    event.preventDefault();
    press(buttons.length - 1);
  });
  const beat = () => {
    heard = performance.now();
    look();
  };
  model.on("change:beat", beat);
  model.on("change:waits", look);
  const timer = setInterval(look, LOOK_MS);
  look();
  return () => {
    clearInterval(timer);
    model.off("change:beat", beat);
    model.off("change:waits", look);
  };
}

export default { render };
