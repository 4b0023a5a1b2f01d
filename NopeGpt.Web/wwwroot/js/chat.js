// The text field of the chat: Enter sends, Shift+Enter begins a new line, the field grows with its text, and the conversation stays
// at its end while one reads there.
class Composer {
  constructor(root, page) {
    this.form = root.querySelector("[data-composer]");
    this.prompt = root.querySelector("[data-prompt]");
    this.said = root.querySelector("[data-said]");
    this.page = page;
    this.prompt.addEventListener("keydown", e => {
      if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
      e.preventDefault();
      this.send();
    });
    this.prompt.addEventListener("input", () => this.grow());
    this.form.addEventListener("submit", e => { e.preventDefault(); this.send(); });
    this.atEnd = true;
    this.said.addEventListener("scroll", () => { this.atEnd = this.said.scrollTop + this.said.clientHeight >= this.said.scrollHeight - 48; });
    this.watcher = new MutationObserver(() => { if (this.atEnd) this.said.scrollTop = this.said.scrollHeight; });
    this.watcher.observe(this.said, { childList: true, subtree: true, characterData: true });
    if (matchMedia("(hover: hover)").matches) this.prompt.focus();
  }

  send() {
    const text = this.prompt.value;
    // While a reply is being written there is no send button, and Enter keeps the text for later.
    if (text.trim() === "" || !this.form.querySelector("[type=submit]")) return;
    this.prompt.value = "";
    this.grow();
    this.atEnd = true;
    this.page.invokeMethodAsync("SendAsync", text);
  }

  /** A text to change and send again. */
  put(text) {
    this.prompt.value = text;
    this.grow();
    this.prompt.focus();
  }

  grow() {
    this.prompt.style.height = "auto";
    this.prompt.style.height = Math.min(200, this.prompt.scrollHeight + 2) + "px";
  }

  dispose() { this.watcher.disconnect(); }
}

export const attach = (root, page) => new Composer(root, page);
