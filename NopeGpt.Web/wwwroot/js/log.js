// Follows a run's log over HTTP by byte offset. Only its tail is kept in the page.
const kept = 400_000, interval = 1500;

class Log {
  constructor(root, run) {
    this.text = root.querySelector("[data-log]");
    this.size = root.querySelector("[data-size]");
    this.follow = root.querySelector("[data-follow]");
    this.run = run;
    this.offset = 0;
    // Scrolling up stops the following, so that a line can be read; scrolling to the end starts it again.
    this.text.addEventListener("scroll", () => {
      this.follow.checked = this.text.scrollTop + this.text.clientHeight >= this.text.scrollHeight - 24;
    });
    this.follow.addEventListener("change", () => this.scroll());
    this.read();
  }

  async read() {
    try {
      if (!document.hidden) {
        const answer = await fetch(`api/runs/${encodeURIComponent(this.run)}/log?from=${this.offset}`, { cache: "no-store" });
        if (answer.ok) {
          const bytes = await answer.arrayBuffer();
          this.offset += bytes.byteLength;
          if (bytes.byteLength > 0) this.append(new TextDecoder().decode(bytes));
        }
        if (this.offset === 0) this.text.textContent = "Nothing has been written yet.";
      }
    } catch { /* the dashboard does not answer; the next turn asks again */ }
    if (!this.disposed) this.timer = setTimeout(() => this.read(), interval);
  }

  append(more) {
    const before = this.started ? this.text.textContent : "";
    this.started = true;
    this.text.textContent = (before + more).slice(-kept);
    this.size.textContent = `${Math.ceil(this.offset / 1000)} KB`;
    if (this.follow.checked) this.scroll();
  }

  scroll() { if (this.follow.checked) this.text.scrollTop = this.text.scrollHeight; }

  dispose() {
    this.disposed = true;
    clearTimeout(this.timer);
  }
}

export const create = (root, run) => new Log(root, run);
