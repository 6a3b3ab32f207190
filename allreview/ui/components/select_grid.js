// A grid of cells to select from, by mouse and by keyboard.
//
// The page keeps the selection across pages and views; the grid keeps what is selected of the cells it shows. It takes
// over the page's idea of it only with a new `token` (other cells, or the page itself changed the selection), so that
// an answer that is still on its way never undoes a click that was made meanwhile.

const DRAG_FROM = 5; // pixels: less is a click by an unsteady hand
const SCROLL_EDGE = 48;
const SCROLL_STEP = 14;

// What each grid has selected, by the grid's name: it survives when Streamlit mounts the component anew.
const memory = new Map();

export default function (component) {
  const { parentElement } = component;
  parentElement.selectGrid ??= new SelectGrid(parentElement.querySelector(".grid"));
  parentElement.selectGrid.update(component);
  return () => parentElement.selectGrid.release();
}

class SelectGrid {
  constructor(root) {
    this.root = root;
    this.cells = [];
    this.picked = new Set();
    this.active = 0;
    this.anchor = 0;
    this.drag = null;
    this.drawn = null;
    root.addEventListener("pointerdown", (event) => this.press(event));
    root.addEventListener("pointermove", (event) => this.move(event));
    root.addEventListener("pointerup", (event) => this.lift(event));
    root.addEventListener("pointercancel", () => this.abandon());
    root.addEventListener("dblclick", (event) => this.open(this.placeOf(event.target)));
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("dragstart", (event) => event.preventDefault());
  }

  update({ data, setStateValue, setTriggerValue }) {
    this.data = data;
    this.tell = (value) => setStateValue("picked", value);
    this.ask = (id) => setTriggerValue("opened", id);
    let known = memory.get(data.name);
    if (!known || known.token !== data.token) {
      known = { token: data.token, picked: new Set(data.selected) };
      memory.set(data.name, known);
      this.abandon();
    }
    this.picked = known.picked;
    if (this.drawn !== data.cells) this.draw(data.cells);
    this.show();
  }

  release() {
    this.abandon();
  }

  // Drawing

  draw(cells) {
    const focused = this.root.contains(this.root.getRootNode().activeElement);
    this.drawn = cells;
    this.cells = cells.map((cell) => cell.id);
    this.root.setAttribute("aria-label", this.data.label);
    this.root.style.setProperty("--tile", `${this.data.tile}px`);
    this.active = Math.min(this.active, Math.max(cells.length - 1, 0));
    this.anchor = Math.min(this.anchor, this.active);
    this.root.replaceChildren(...cells.map((cell) => option(cell)));
    if (focused) this.focus(this.active);
  }

  show() {
    for (const [place, element] of this.options().entries()) {
      element.setAttribute("aria-selected", String(this.picked.has(this.cells[place])));
      element.tabIndex = place === this.active ? 0 : -1;
    }
  }

  options() {
    return [...this.root.querySelectorAll(".cell")];
  }

  placeOf(target) {
    const element = target.closest?.(".cell");
    return element ? this.options().indexOf(element) : -1;
  }

  focus(place) {
    if (place < 0 || place >= this.cells.length) return;
    this.active = place;
    this.show();
    this.options()[place].focus({ preventScroll: false });
  }

  // Selecting

  choose(ids, { everywhere = false } = {}) {
    this.picked = new Set(ids);
    memory.get(this.data.name).picked = this.picked;
    this.show();
    // The order is that of the page, whatever the order of the clicks.
    const picked = this.cells.filter((id) => this.picked.has(id));
    this.tell({ revision: this.data.revision, cells: this.cells, picked, everywhere });
  }

  range(from, to) {
    return this.cells.slice(Math.min(from, to), Math.max(from, to) + 1);
  }

  click(place, event) {
    const id = this.cells[place];
    const adding = event.ctrlKey || event.metaKey;
    if (event.shiftKey) {
      this.choose([...(adding ? this.picked : []), ...this.range(this.anchor, place)]);
    } else {
      this.anchor = place;
      const toggles = adding || this.data.toggles || event.pointerType === "touch";
      this.choose(toggles ? differing(this.picked, [id]) : [id]);
    }
    this.focus(place);
  }

  open(place) {
    if (place >= 0) this.ask(this.cells[place]);
  }

  // Mouse

  press(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    const place = this.placeOf(event.target);
    const origin = this.point(event);
    this.drag = { place, origin, before: new Set(this.picked), event, band: null };
  }

  move(event) {
    if (!this.drag || event.pointerType === "touch") return;
    this.drag.event = event;
    const { origin, band } = this.drag;
    const here = this.point(event);
    if (!band && Math.hypot(here.x - origin.x, here.y - origin.y) < DRAG_FROM) return;
    if (!band) {
      this.root.setPointerCapture(event.pointerId);
      this.drag.band = this.root.appendChild(document.createElement("div"));
      this.drag.band.className = "band";
      this.scrollAlong();
    }
    this.stretch();
  }

  lift(event) {
    const drag = this.drag;
    if (!drag) return;
    this.drag = null;
    drag.band?.remove();
    if (drag.band) {
      this.choose(this.picked);
      this.active = Math.max(this.active, 0);
    } else if (drag.place >= 0) {
      this.click(drag.place, event);
    }
  }

  abandon() {
    if (!this.drag) return;
    this.drag.band?.remove();
    this.picked = this.drag.before;
    this.drag = null;
    this.show();
  }

  stretch() {
    const { origin, band, before, event } = this.drag;
    const here = this.point(event);
    const box = {
      left: Math.min(origin.x, here.x),
      top: Math.min(origin.y, here.y),
      right: Math.max(origin.x, here.x),
      bottom: Math.max(origin.y, here.y),
    };
    Object.assign(band.style, {
      left: `${box.left}px`,
      top: `${box.top}px`,
      width: `${box.right - box.left}px`,
      height: `${box.bottom - box.top}px`,
    });
    const inside = this.cells.filter((_, place) => meets(this.options()[place], box));
    const adding = event.ctrlKey || event.metaKey || event.shiftKey;
    this.picked = this.data.toggles ? differing(before, inside) : new Set([...(adding ? before : []), ...inside]);
    this.show();
  }

  // The page scrolls along while the band is held near the edge of the window.
  scrollAlong() {
    const scroller = scrolling(this.root);
    const step = () => {
      if (!this.drag?.band) return;
      const y = this.drag.event.clientY;
      const by = y > window.innerHeight - SCROLL_EDGE ? SCROLL_STEP : y < SCROLL_EDGE ? -SCROLL_STEP : 0;
      if (by) {
        scroller.scrollBy(0, by);
        this.stretch();
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  point(event) {
    const frame = this.root.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top };
  }

  // Keyboard

  key(event) {
    if (this.keyed(event)) {
      event.preventDefault();
      event.stopPropagation();
    }
  }

  keyed(event) {
    const command = event.ctrlKey || event.metaKey;
    if (event.key === "Escape") return this.escape();
    if (command && event.key.toLowerCase() === "a") return this.choose(this.cells) ?? true;
    if (event.altKey || !this.cells.length) return false;
    if (event.key === " ") {
      this.anchor = this.active;
      return this.choose(differing(this.picked, [this.cells[this.active]])) ?? true;
    }
    if (event.key === "Enter") return this.open(this.active) ?? true;
    const to = this.stepped(event.key);
    if (to === null) return false;
    if (event.shiftKey) this.choose([...(command ? this.picked : []), ...this.range(this.anchor, to)]);
    else this.anchor = to;
    this.focus(to);
    return true;
  }

  escape() {
    if (this.drag) this.abandon();
    else this.choose([], { everywhere: true });
    return true;
  }

  stepped(key) {
    const columns = getComputedStyle(this.root).gridTemplateColumns.split(" ").length;
    const last = this.cells.length - 1;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    if (key === "Home") return 0;
    if (key === "End") return last;
    if (!(key in steps)) return null;
    const to = this.active + steps[key];
    return to < 0 || to > last ? this.active : to;
  }
}

// The cells of one set or the other, not of both.
function differing(picked, ids) {
  const result = new Set(picked);
  for (const id of ids) if (!result.delete(id)) result.add(id);
  return result;
}

function meets(element, box) {
  const { offsetLeft: left, offsetTop: top, offsetWidth: width, offsetHeight: height } = element;
  return left < box.right && left + width > box.left && top < box.bottom && top + height > box.top;
}

function scrolling(element) {
  let node = element;
  while (node) {
    node = node.parentElement ?? node.getRootNode().host;
    if (!node) break;
    const style = getComputedStyle(node);
    if (/auto|scroll/.test(style.overflowY) && node.scrollHeight > node.clientHeight) return node;
  }
  return document.scrollingElement;
}

// One cell. What comes from data is set as text and never read as HTML.
function option(cell) {
  const element = document.createElement("div");
  element.className = "cell";
  element.setAttribute("role", "option");
  element.setAttribute("aria-label", cell.alt);
  element.dataset.cell = cell.id;
  element.title = cell.title;
  const picture = element.appendChild(document.createElement("img"));
  picture.className = "picture";
  picture.src = cell.src;
  picture.alt = "";
  picture.draggable = false;
  element.appendChild(document.createElement("span")).className = "tick";
  const label = line(element, "label").appendChild(document.createElement("span"));
  label.textContent = cell.label;
  label.style.setProperty("--class-text", `var(--st-${cell.colour}-text-color, var(--st-primary-color))`);
  label.style.setProperty(
    "--class-background",
    `var(--st-${cell.colour}-background-color, var(--st-secondary-background-color))`,
  );
  if (cell.said) {
    const prediction = line(element, cell.wrong ? "quiet prediction wrong" : "quiet prediction");
    prediction.appendChild(document.createElement("span")).textContent = cell.said;
    prediction.appendChild(document.createElement("span")).textContent = cell.sure;
  }
  line(element, "quiet").textContent = cell.subject;
  return element;
}

function line(element, kind) {
  const made = element.appendChild(document.createElement("div"));
  made.className = `line ${kind}`;
  return made;
}
