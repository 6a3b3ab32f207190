// The cell and its saliency, drawn by the browser: zoom, pan, brightness, contrast and opacity ask nobody.
// `data` is described in allreview/ui/viewer.py. The module is called again with every new cell and changes
// what is there in place, so that nothing flickers.

const SETTINGS_KEY = "allreview-view";
const STANDARD = { zoom: null, brightness: 1, contrast: 1, opacity: 0.6, mode: "beside", heat: true };
const NEAREST = 0.5;
const FARTHEST = 12;
const STEP = 1.25;
const GAP = 6;
const viewers = new WeakMap();

export default function (component) {
  const { data, parentElement } = component;
  let viewer = viewers.get(parentElement);
  if (!viewer) {
    viewer = makeViewer(parentElement);
    viewers.set(parentElement, viewer);
  }
  viewer.show(data);
  return () => {
    viewer.end();
    viewers.delete(parentElement);
  };
}

function makeViewer(root) {
  const find = (name) => root.querySelector(name);
  const panes = find(".panes");
  const sheet = find("dialog");
  let settings = remembered();
  let data = null;
  let shown = null; // the turn whose pictures are drawn
  let pan = { x: 0, y: 0 };
  let asked = 0;
  let drawn = [];
  let said = "";
  let noteWanted = false;

  function remembered() {
    try {
      return { ...STANDARD, ...JSON.parse(localStorage.getItem(SETTINGS_KEY) || "{}") };
    } catch {
      return { ...STANDARD };
    }
  }

  function change(changed) {
    settings = { ...settings, ...changed };
    try {
      localStorage.setItem(SETTINGS_KEY, JSON.stringify(settings));
    } catch {
      // A browser that keeps nothing shows the cell all the same.
    }
    arrange();
  }

  // -- what is drawn ------------------------------------------------------------------------------------

  async function show(next) {
    const turn = ++asked;
    data = next;
    const images = wanted(next).map((pane) => [made("picture", pane.picture), made("layer", pane.layer)]);
    await Promise.all(images.flat().map((image) => image && image.decode().catch(() => undefined)));
    if (shown !== next.turn) await restOf(next.turn);
    if (turn !== asked) return; // a later cell came first
    if (shown !== next.turn) pan = { x: 0, y: 0 };
    fillSheet(next.help);
    rebuild(images);
    await new Promise((done) => requestAnimationFrame(done));
    if (turn !== asked) return;
    shown = next.turn;
    panes.dataset.drawn = next.turn;
    if (noteWanted) writeNote();
  }

  // The picture waits for what is said beside it and for its buttons: who sees a cell can answer it, and it alone.
  async function restOf(turn) {
    const end = performance.now() + 1000;
    while (!isDrawn(turn) && performance.now() < end) {
      await new Promise((done) => requestAnimationFrame(done));
    }
  }

  function isDrawn(turn) {
    return document.querySelector(`${data.turn_field}${turn}`) !== null;
  }

  function made(name, source) {
    if (!source) return null;
    const image = new Image();
    image.className = name;
    image.alt = "";
    image.draggable = false;
    image.src = source;
    return image;
  }

  function wanted(of) {
    const plain = { picture: of.picture, note: of.note };
    const heat = of.heat.map((pane) => ({ picture: of.picture, ...pane }));
    if (!of.picture || heat.length === 0) return of.empty ? [plain, { note: of.empty }] : [plain];
    return settings.mode === "over" ? heat : [plain, ...heat];
  }

  function rebuild(images) {
    const content = wanted(data);
    while (drawn.length > content.length) drawn.pop().box.remove();
    while (drawn.length < content.length) {
      const pane = makePane();
      drawn.push(pane);
      panes.append(pane.box);
    }
    content.forEach((one, index) => {
      const [picture, layer] = images?.[index] || [made("picture", one.picture), made("layer", one.layer)];
      Object.assign(drawn[index], { picture, layer });
      drawn[index].stack.replaceChildren(...[picture, layer].filter(Boolean));
      drawn[index].title.textContent = one.title || "";
      drawn[index].note.textContent = one.note || "";
      drawn[index].box.classList.toggle("middle", !picture);
    });
    find(".heat-tools").hidden = data.heat.length === 0;
    arrange();
  }

  function makePane() {
    const box = document.createElement("div");
    box.className = "pane";
    const [stack, title, note] = ["div", "span", "span"].map((kind) => document.createElement(kind));
    stack.className = "stack";
    title.className = "title";
    note.className = "note";
    box.append(stack, title, note);
    return { box, stack, title, note, picture: null, layer: null };
  }

  // -- where it is drawn --------------------------------------------------------------------------------

  function zoom() {
    return settings.zoom ?? data.standard_zoom;
  }

  function side() {
    return panes.dataset.side ? Number(panes.dataset.side) : 1;
  }

  function arrange() {
    if (!data) return;
    const width = panes.clientWidth;
    const height = Math.max(Math.min(window.innerHeight - data.below, width), 200);
    const count = drawn.length;
    let best = { columns: 1, side: 0 };
    for (let columns = 1; columns <= count; columns += 1) {
      const rows = Math.ceil(count / columns);
      const fits = Math.min((width - GAP * (columns - 1)) / columns, (height - GAP * (rows - 1)) / rows);
      if (fits > best.side) best = { columns, side: fits };
    }
    // Few panes leave room at their sides: they take it, so that nothing that is drawn is cut off needlessly.
    const rows = Math.ceil(count / best.columns);
    panes.style.gridTemplateColumns = `repeat(${best.columns}, 1fr)`;
    panes.style.gridAutoRows = `${best.side}px`;
    panes.style.height = `${best.side * rows + GAP * (rows - 1)}px`;
    panes.dataset.side = best.side;

    const scale = (best.side / data.reference) * zoom();
    for (const pane of drawn) {
      pane.stack.style.width = `${data.width}px`;
      pane.stack.style.height = `${data.height}px`;
      pane.stack.style.transform =
        `translate(-50%, -50%) translate(${pan.x}px, ${pan.y}px) scale(${scale})`;
      const filter = `brightness(${settings.brightness}) contrast(${settings.contrast})`;
      if (pane.picture) {
        pane.picture.style.filter = settings.brightness === 1 && settings.contrast === 1 ? "" : filter;
        pane.picture.style.imageRendering = scale * devicePixelRatio > 1 ? "pixelated" : "auto";
      }
      if (pane.layer) pane.layer.style.opacity = settings.heat ? settings.opacity : 0;
    }
    label();
  }

  function label() {
    find(".zoom").textContent = `${zoom().toFixed(2).replace(/\.?0+$/, "")} ×`;
    find(".brightness").textContent = `${Math.round(settings.brightness * 100)} %`;
    find(".contrast").textContent = `${Math.round(settings.contrast * 100)} %`;
    find(".opacity").value = Math.round(settings.opacity * 100);
    for (const button of root.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === settings.mode));
    }
    find(".heat").setAttribute("aria-pressed", String(settings.heat));
  }

  const between = (low, value, high) => Math.min(Math.max(value, low), high);

  function zoomBy(factor, x = 0, y = 0) {
    const before = zoom();
    const after = between(NEAREST, before * factor, FARTHEST);
    // The point under the pointer stays where it is.
    pan = { x: x - ((x - pan.x) * after) / before, y: y - ((y - pan.y) * after) / before };
    keepInSight(after);
    change({ zoom: after });
  }

  function panBy(x, y) {
    pan = { x: pan.x + x, y: pan.y + y };
    keepInSight(zoom());
    arrange();
  }

  function keepInSight(factor) {
    const scale = (side() / data.reference) * factor;
    const far = (extent) => Math.max((extent * scale) / 2, side() / 4);
    pan = { x: between(-far(data.width), pan.x, far(data.width)), y: between(-far(data.height), pan.y, far(data.height)) };
  }

  function reset() {
    pan = { x: 0, y: 0 };
    change({ zoom: null, brightness: 1, contrast: 1 });
  }

  const light = (name, factor) => change({ [name]: between(0.3, Math.round(settings[name] * factor * 100) / 100, 4) });

  const actions = {
    "zoom-in": () => zoomBy(STEP),
    "zoom-out": () => zoomBy(1 / STEP),
    reset,
    left: () => panBy(40, 0),
    right: () => panBy(-40, 0),
    up: () => panBy(0, 40),
    down: () => panBy(0, -40),
    brighter: () => light("brightness", 1.1),
    darker: () => light("brightness", 1 / 1.1),
    "more-contrast": () => light("contrast", 1.1),
    "less-contrast": () => light("contrast", 1 / 1.1),
    "more-heat": () => change({ heat: true, opacity: between(0, settings.opacity + 0.1, 1) }),
    "less-heat": () => change({ heat: true, opacity: between(0, settings.opacity - 0.1, 1) }),
    heat: () => change({ heat: !settings.heat }),
    beside: () => mode("beside"),
    over: () => mode("over"),
    mode: () => mode(settings.mode === "over" ? "beside" : "over"),
    help: () => sheet.showModal(),
  };

  function mode(chosen) {
    settings = { ...settings, mode: chosen };
    if (data) rebuild();
    change({});
  }

  // -- the mouse ----------------------------------------------------------------------------------------

  let held = null;

  function onWheel(event) {
    event.preventDefault();
    const pane = event.target.closest(".pane");
    if (!pane || !data) return;
    const box = pane.getBoundingClientRect();
    const x = event.clientX - box.left - box.width / 2;
    const y = event.clientY - box.top - box.height / 2;
    zoomBy(Math.exp(-between(-100, event.deltaY, 100) / 400), x, y);
  }

  function onDown(event) {
    if (event.button !== 0 || !event.target.closest(".pane")) return;
    held = { x: event.clientX, y: event.clientY };
    panes.setPointerCapture(event.pointerId);
    panes.classList.add("held");
  }

  function onMove(event) {
    if (!held) return;
    panBy(event.clientX - held.x, event.clientY - held.y);
    held = { x: event.clientX, y: event.clientY };
  }

  function onUp() {
    held = null;
    panes.classList.remove("held");
  }

  function onClick(event) {
    const button = event.target.closest("button[data-do]");
    if (button) {
      actions[button.dataset.do]();
      button.blur();
    } else if (event.target.closest(".close") || event.target === sheet) sheet.close();
  }

  function onSlide(event) {
    change({ heat: true, opacity: Number(event.target.value) / 100 });
  }

  // -- the keyboard -------------------------------------------------------------------------------------

  const KEYS = {
    "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", "_": "zoom-out", 0: "reset",
    ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down",
    b: "brighter", B: "darker", k: "more-contrast", K: "less-contrast",
    ".": "more-heat", ",": "less-heat", v: "heat", o: "mode", "?": "help",
  };

  const take = (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  };

  function onKey(event) {
    if (sheet.open) {
      if (event.key === "?" || event.key === "Escape") {
        sheet.close();
        take(event);
      } else if (event.key !== "Tab") event.stopImmediatePropagation(); // nothing is answered behind the sheet
      return;
    }
    const field = writtenIn(event);
    if (field) {
      // Enter keeps what was written and gives the keys back to the desk.
      if ((event.key === "Enter" || event.key === "Escape") && field.closest?.(data.note_field)) field.blur();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = meant(event);
    if (noteWanted) {
      take(event); // it was meant for a note whose field is not there yet
    } else if (event.shiftKey && /^Digit[1-9]$/.test(event.code)) {
      take(event);
      if (!event.repeat && ready()) press(data.reason_buttons, Number(event.code.slice(5)) - 1);
    } else if (key === "n") {
      take(event);
      if (ready()) writeNote();
      else noteWanted = true;
    } else if (key === "Z") {
      take(event);
      if (!event.repeat) press(data.redo_button, 0);
    } else if (data.method_keys.includes(key)) {
      take(event);
      if (!event.repeat) press(data.method_buttons, data.method_keys.indexOf(key));
    } else if (key in KEYS) {
      take(event);
      actions[KEYS[key]]();
    } else if (/^[zy]$/.test(key)) {
      if (event.repeat) take(event);
    } else if (/^[1-9uxs]$/.test(key) && (event.repeat || !ready())) {
      // A key that is held down answers once; nobody answers a cell whose picture is not there yet, nor with
      // the buttons of the cell before.
      take(event);
    }
  }

  // The same with the caps lock on.
  function meant(event) {
    if (event.key.length !== 1) return event.key;
    return event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase();
  }

  function writeNote() {
    noteWanted = false;
    document.querySelector(`${data.note_field} input`)?.focus();
  }

  function ready() {
    return shown === data.turn && isDrawn(data.turn);
  }

  function writtenIn(event) {
    const field = event.composedPath()[0];
    const kind = field?.tagName;
    if (field?.isContentEditable || kind === "TEXTAREA" || kind === "SELECT" || kind === "INPUT") return field;
    return null;
  }

  function press(selector, index) {
    document.querySelectorAll(selector)[index]?.click();
  }

  // -- the sheet of keys --------------------------------------------------------------------------------

  function fillSheet(help) {
    if (JSON.stringify(help) === said) return;
    said = JSON.stringify(help);
    find(".sheet").replaceChildren(
      ...help.map(([heading, rows]) => {
        const section = document.createElement("section");
        const title = document.createElement("h3");
        title.textContent = heading;
        const list = document.createElement("dl");
        for (const [keys, what] of rows) {
          const term = document.createElement("dt");
          for (const key of keys) {
            const cap = document.createElement("kbd");
            cap.textContent = key;
            term.append(cap);
          }
          const meaning = document.createElement("dd");
          meaning.textContent = what;
          list.append(term, meaning);
        }
        section.append(title, list);
        return section;
      }),
    );
  }

  // -- from beginning to end ----------------------------------------------------------------------------

  const slider = find(".opacity");
  const letGo = () => slider.blur(); // a slider that keeps the focus would keep the keys
  const resized = new ResizeObserver(() => arrange());
  panes.addEventListener("wheel", onWheel, { passive: false });
  panes.addEventListener("pointerdown", onDown);
  panes.addEventListener("pointermove", onMove);
  panes.addEventListener("pointerup", onUp);
  panes.addEventListener("pointercancel", onUp);
  panes.addEventListener("dblclick", reset);
  root.addEventListener("click", onClick);
  slider.addEventListener("input", onSlide);
  slider.addEventListener("change", letGo);
  window.addEventListener("keydown", onKey, { capture: true });
  window.addEventListener("resize", arrange);
  resized.observe(panes);

  function end() {
    window.removeEventListener("keydown", onKey, { capture: true });
    window.removeEventListener("resize", arrange);
    resized.disconnect();
    asked += 1;
  }

  return { show, end };
}
