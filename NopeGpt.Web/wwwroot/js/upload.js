// Sends a file to the dashboard as the plain body of a request and shows how far it is.
const units = ["bytes", "KB", "MB", "GB", "TB"];

function bytes(value) {
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit++; }
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit]}`;
}

class Sender {
  constructor(root, page) {
    const part = name => root.querySelector(`[data-${name}]`);
    Object.assign(this, { page, file: part("file"), progress: part("progress"), bar: part("bar"), figures: part("figures"), exists: part("exists"), existsText: part("exists-text"), problem: part("problem") });
    this.file.addEventListener("change", () => this.choose());
    part("cancel").addEventListener("click", () => this.request?.abort());
    part("replace").addEventListener("click", () => this.send(true));
  }

  async choose() {
    this.say("");
    this.exists.hidden = true;
    const chosen = this.file.files[0];
    if (!chosen) return;
    // What would be refused is not sent at all.
    const answer = await this.page.invokeMethodAsync("Check", chosen.name, chosen.size);
    if (answer.problem) this.say(answer.problem);
    else if (answer.exists) {
      this.existsText.textContent = `A file ${chosen.name} was sent before. Choose it below, or replace it.`;
      this.exists.hidden = false;
    } else this.send(false);
  }

  send(replace) {
    const chosen = this.file.files[0];
    if (!chosen || this.request) return;
    this.exists.hidden = true;
    this.say("");
    const request = this.request = new XMLHttpRequest(), began = performance.now();
    request.upload.addEventListener("progress", e => this.show(e.loaded, chosen.size, (performance.now() - began) / 1000));
    request.addEventListener("load", () => this.end(request));
    request.addEventListener("error", () => this.finish("The dashboard does not answer, or broke the sending off: choose the file again. Has it changed meanwhile?"));
    request.addEventListener("abort", () => this.finish(this.disposed ? "" : "Cancelled; nothing of it was kept."));
    this.show(0, chosen.size, 0);
    this.progress.hidden = false;
    request.open("POST", `api/uploads?name=${encodeURIComponent(chosen.name)}&replace=${replace}`);
    request.send(chosen);
  }

  show(sent, size, seconds) {
    const percent = size > 0 ? Math.floor(100 * sent / size) : 0;
    this.bar.firstElementChild.style.width = `${percent}%`;
    this.bar.setAttribute("aria-valuenow", percent);
    const speed = seconds > 0.5 ? sent / seconds : 0;
    this.figures.textContent = sent >= size && size > 0 ? `${bytes(size)} sent, writing`
      : `${bytes(sent)} of ${bytes(size)}${speed > 0 ? ` · ${bytes(speed)}/s · ${Math.ceil((size - sent) / speed)} s left` : ""}`;
  }

  end(request) {
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { /* not from the dashboard */ }
    if (request.status !== 201) return this.finish(answer.detail ?? `The dashboard answered ${request.status}.`);
    this.finish("");
    this.file.value = "";
    this.page.invokeMethodAsync("SentAsync", answer.path);
  }

  finish(problem) {
    this.request = null;
    this.progress.hidden = true;
    this.say(problem);
  }

  say(problem) {
    this.problem.textContent = problem;
    this.problem.hidden = problem === "";
  }

  dispose() {
    this.disposed = true;
    this.request?.abort();
  }
}

export const attach = (root, page) => new Sender(root, page);
