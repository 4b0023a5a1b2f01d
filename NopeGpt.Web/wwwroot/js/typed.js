// A text field that tells its page when the typing pauses. A short text stands in the address as ?text=, in the history's own entry, so that
// a reload brings it back.
const pause = 250, longestInAddress = 800;

class Typed {
  constructor(root, page, usual) {
    this.field = root.querySelector("[data-typed]");
    this.page = page;
    this.usual = usual;
    this.told = this.field.value;
    this.listener = () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.tell(), pause);
    };
    this.field.addEventListener("input", this.listener);
    // What was typed before the page had become live, or what the browser has filled in.
    if (this.field.value !== this.field.defaultValue) this.tell();
  }

  tell() {
    const text = this.field.value;
    if (this.disposed) return;
    const address = new URL(location.href);
    if (text === "" || text === this.usual || text.length > longestInAddress) address.searchParams.delete("text");
    else address.searchParams.set("text", text);
    if (address.href !== location.href) history.replaceState(history.state, "", address.href);
    this.page.invokeMethodAsync("TypedAsync", text).catch(() => { /* the circuit has gone; the address keeps the text */ });
  }

  dispose() {
    this.disposed = true;
    clearTimeout(this.timer);
    this.field.removeEventListener("input", this.listener);
  }
}

export const attach = (root, page, usual) => new Typed(root, page, usual);
