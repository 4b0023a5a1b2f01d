// The tokens of a text: the one under the pointer, or the one that the arrow keys have reached, tells its id, bytes and text.
class Tokens {
  constructor(root) {
    this.list = root.querySelector("[data-tokens]");
    this.detail = root.querySelector("[data-detail]");
    this.events = new AbortController();
    const on = (target, type, handler) => target.addEventListener(type, handler, { signal: this.events.signal });
    on(this.list, "pointerover", e => this.show(e.target.closest("li")));
    on(this.list, "pointerleave", () => this.show(document.activeElement === this.list ? this.current : null));
    on(this.list, "click", e => { const token = e.target.closest("li"); if (token) this.go(token); });
    on(this.list, "focus", () => { if (this.list.matches(":focus-visible")) this.go(this.current ?? this.list.firstElementChild); });
    on(this.list, "blur", () => this.show(null));
    on(this.list, "keydown", e => this.key(e));
    on(window, "scroll", () => this.place());
  }

  get current() { return this.list.querySelector("li[data-current]"); }

  go(token) {
    this.current?.removeAttribute("data-current");
    if (!token) return;
    token.setAttribute("data-current", "");
    token.scrollIntoView({ block: "nearest" });
    this.show(token);
  }

  key(e) {
    if (e.key === "Escape") return this.show(null);
    const at = this.current ?? this.list.firstElementChild;
    const next = { ArrowRight: () => at.nextElementSibling, ArrowLeft: () => at.previousElementSibling, ArrowDown: () => this.line(at, "nextElementSibling"),
      ArrowUp: () => this.line(at, "previousElementSibling"), Home: () => this.list.firstElementChild, End: () => this.list.lastElementChild }[e.key];
    if (!next || !at) return;
    e.preventDefault();
    this.go(next() ?? at);
  }

  /** The token of the line below or above that is nearest. */
  line(from, step) {
    const box = from.getBoundingClientRect(), middle = box.left + box.width / 2;
    let best = null, distance = Infinity, top = null;
    for (let token = from[step]; token; token = token[step]) {
      const other = token.getBoundingClientRect();
      if (Math.abs(other.top - box.top) < 4) continue;
      if (top !== null && Math.abs(other.top - top) >= 4) break;
      top = other.top;
      const away = Math.abs(other.left + other.width / 2 - middle);
      if (away < distance) [best, distance] = [token, away];
    }
    return best;
  }

  show(token) {
    this.shown = token;
    this.detail.hidden = !token;
    if (!token) return;
    const place = Array.prototype.indexOf.call(this.list.children, token) + 1;
    const rows = [["id", token.dataset.id], ["bytes", token.dataset.hex || "none"], [token.dataset.part ? "part of" : "text", token.dataset.part ?? token.textContent]];
    const head = document.createElement("div");
    head.textContent = `Token ${place}${token.classList.contains("special") ? ", special" : ""}`;
    const list = document.createElement("dl");
    for (const [name, value] of rows) {
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      [term.textContent, text.textContent] = [name, value];
      list.append(term, text);
    }
    this.detail.replaceChildren(head, list);
    this.place();
  }

  place() {
    if (!this.shown || this.detail.hidden) return;
    if (!this.shown.isConnected) return this.show(null);
    const box = this.shown.getClientRects()[0] ?? this.shown.getBoundingClientRect(), edge = 8;
    const own = this.detail.getBoundingClientRect();
    const below = box.bottom + 6 + own.height < innerHeight - 64;
    this.detail.style.left = `${Math.max(edge, Math.min(box.left, document.documentElement.clientWidth - own.width - edge))}px`;
    this.detail.style.top = `${below ? box.bottom + 6 : Math.max(edge, box.top - own.height - 6)}px`;
  }

  dispose() { this.events.abort(); }
}

export const attach = root => new Tokens(root);
