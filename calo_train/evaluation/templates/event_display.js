/* Event display: two canvases with one camera. Plain 2-D drawing, far hits first, so that it needs
   no WebGL; 10,000 hits take some milliseconds. Lengths are mm, energies MeV. */
"use strict";
(() => {
  const root = document.getElementById("event-display");
  const data = JSON.parse(document.getElementById("event-display-data").textContent);
  const find = (name) => root.querySelector(`[data-role="${name}"]`);
  const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
    [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
  const NUM_COLOURS = 48;
  const SPRITE = 40; // pixels
  const HOME = { yaw: -0.62, pitch: 0.38, zoom: 1 };
  const hull = data.hull;
  const middle = ["z", "y", "x"].map((name) => (hull[name][0] + hull[name][1]) / 2);
  const size = Math.hypot(...["x", "y", "z"].map((name) => hull[name][1] - hull[name][0]));
  const state = { ...HOME, shower: Math.floor(data.sets[0].showers.length / 2), sample: 1, cut: 0 };
  const range = { lowest: 1, span: 1 }; // of the two showers that are shown
  let isQueued = false;

  function colourOf(share) {
    const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
    const low = Math.min(Math.floor(place), VIRIDIS.length - 2);
    return VIRIDIS[low].map((value, i) =>
      Math.round(value + (place - low) * (VIRIDIS[low + 1][i] - value)));
  }

  /* A shaded ball of each colour, drawn once. */
  const balls = Array.from({ length: NUM_COLOURS }, (_, index) => {
    const ball = document.createElement("canvas");
    ball.width = ball.height = SPRITE;
    const pen = ball.getContext("2d");
    const [r, g, b] = colourOf(index / (NUM_COLOURS - 1));
    const light = [r, g, b].map((value) => Math.round(value + 0.45 * (255 - value)));
    const shade = pen.createRadialGradient(SPRITE * 0.38, SPRITE * 0.36, 1, SPRITE / 2, SPRITE / 2, SPRITE / 2);
    shade.addColorStop(0, `rgb(${light})`);
    shade.addColorStop(0.55, `rgb(${r},${g},${b})`);
    shade.addColorStop(1, `rgb(${[r, g, b].map((value) => Math.round(value * 0.62))})`);
    pen.fillStyle = shade;
    pen.arc(SPRITE / 2, SPRITE / 2, SPRITE / 2 - 1, 0, 2 * Math.PI);
    pen.fill();
    return ball;
  });

  function decode(shower) {
    if (!shower.decoded) {
      const bytes = Uint8Array.from(atob(shower.hits), (letter) => letter.charCodeAt(0));
      shower.decoded = new Float32Array(bytes.buffer);
    }
    return shower.decoded;
  }

  function energyWords(energy) {
    const [scale, unit] = energy >= 1e6 ? [1e6, "TeV"] : energy >= 1e3 ? [1e3, "GeV"]
      : energy >= 1 ? [1, "MeV"] : [1e-3, "keV"];
    return `${Number((energy / scale).toPrecision(3))} ${unit}`;
  }

  const setOf = (panel) => data.sets[panel === 0 ? 0 : state.sample];
  const showerOf = (panel) => setOf(panel).showers[state.shower];
  const cutEnergy = () => range.lowest * Math.exp(state.cut * range.span);

  /* Hits are sorted by energy, the brightest last. */
  function findRange() {
    const hits = [0, 1].map((panel) => decode(showerOf(panel))).filter((found) => found.length);
    const lowest = Math.min(...hits.map((found) => found[3]));
    const highest = Math.max(...hits.map((found) => found[found.length - 1]));
    range.lowest = hits.length ? lowest : 1;
    range.span = (hits.length && Math.log(highest / lowest)) || 1;
    find("lowest").textContent = energyWords(range.lowest);
    find("highest").textContent = energyWords(hits.length ? highest : 1);
  }

  /* Depth runs to the right, y up, x away from the reader; then yaw about y and pitch about x. */
  function camera(width, height) {
    const [sy, cy, sp, cp] = [Math.sin(state.yaw), Math.cos(state.yaw), Math.sin(state.pitch),
      Math.cos(state.pitch)];
    const distance = 2.2 * size;
    const scale = state.zoom * 2.1 * Math.min(width / 1.05, height * 1.2);
    return (x, y, z) => {
      const [a, b, c] = [z - middle[0], y - middle[1], x - middle[2]];
      const right = cy * a + sy * c;
      const back = cy * c - sy * a;
      const up = cp * b + sp * back;
      const away = distance + cp * back - sp * b;
      const perspective = scale / Math.max(away, 0.05 * size);
      return [width / 2 + perspective * right, height / 2 - perspective * up, perspective, away];
    };
  }

  function line(pen, project, points) {
    pen.beginPath();
    points.forEach((point, index) => {
      const [px, py] = project(...point);
      if (index === 0) pen.moveTo(px, py); else pen.lineTo(px, py);
    });
    pen.stroke();
  }

  function drawHull(pen, project) {
    const { x, y, z } = hull;
    pen.strokeStyle = "rgba(190,205,220,0.42)";
    pen.lineWidth = 1;
    if (hull.is_polar) {
      const circle = (depth) => Array.from({ length: 73 }, (_, i) =>
        [x[1] * Math.cos(i * Math.PI / 36), x[1] * Math.sin(i * Math.PI / 36), depth]);
      z.forEach((depth) => line(pen, project, circle(depth)));
      for (const [cx, cy] of [[1, 0], [0, 1], [-1, 0], [0, -1]]) {
        line(pen, project, z.map((depth) => [x[1] * cx, x[1] * cy, depth]));
      }
    } else {
      z.forEach((depth) => line(pen, project, [[x[0], y[0], depth], [x[1], y[0], depth],
        [x[1], y[1], depth], [x[0], y[1], depth], [x[0], y[0], depth]]));
      for (const cx of x) for (const cy of y) line(pen, project, z.map((depth) => [cx, cy, depth]));
    }
    drawBeam(pen, project);
    drawLengths(pen, project);
  }

  function drawBeam(pen, project) {
    const start = hull.z[0] - 0.16 * (hull.z[1] - hull.z[0]);
    const [x, y] = hull.is_polar ? [0, 0] : [middle[2], middle[1]];
    pen.strokeStyle = pen.fillStyle = "#ff9d5c";
    pen.lineWidth = 1.6;
    line(pen, project, [[x, y, start], [x, y, hull.z[0]]]);
    const [px, py] = project(x, y, hull.z[0]);
    pen.beginPath();
    pen.arc(px, py, 3, 0, 2 * Math.PI);
    pen.fill();
  }

  function drawLengths(pen, project) {
    const { x, y, z, names } = hull;
    const round = (value) => Number(value.toPrecision(3));
    pen.fillStyle = "#b9c6d3";
    pen.font = "11px Helvetica, Arial, sans-serif";
    pen.textAlign = "center";
    const write = (words, point) => {
      const [px, py] = project(...point);
      pen.fillText(words, px, py + 12);
    };
    const floor = hull.is_polar ? [0, y[0]] : [x[0], y[0]];
    write(`z = ${round(z[0])} mm`, [...floor, z[0]]);
    write(`${round(z[1])} mm`, [...floor, z[1]]);
    if (hull.is_polar) write(`r = ${round(x[1])} mm`, [0, y[1], z[1]]);
    else {
      write(`${names[0]} = ${round(x[1])} mm`, [x[1], y[0], z[1]]);
      write(`${names[1]} = ${round(y[1])} mm`, [x[0], y[1], z[0]]);
    }
  }

  function drawHits(pen, project, shower) {
    const hits = decode(shower);
    const number = hits.length / 4;
    const cut = cutEnergy() * (1 - 1e-6);
    const order = [];
    const seen = new Array(number);
    for (let i = 0; i < number; i += 1) {
      if (hits[4 * i + 3] < cut) continue;
      seen[i] = project(hits[4 * i], hits[4 * i + 1], hits[4 * i + 2]);
      order.push(i);
    }
    order.sort((first, second) => seen[second][3] - seen[first][3]);
    for (const i of order) {
      const share = Math.log(hits[4 * i + 3] / range.lowest) / range.span;
      const [px, py, perspective] = seen[i];
      const radius = Math.max(perspective * data.cell * (0.12 + 0.5 * share * share), 0.7);
      const ball = balls[Math.max(Math.min(Math.round(share * (NUM_COLOURS - 1)), NUM_COLOURS - 1), 0)];
      pen.drawImage(ball, px - radius, py - radius, 2 * radius, 2 * radius);
    }
    return order.length;
  }

  function drawPanel(panel) {
    const canvas = find(`canvas-${panel}`);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const density = window.devicePixelRatio || 1;
    const [fullWidth, fullHeight] = [width, height].map((value) => Math.round(value * density));
    if (canvas.width !== fullWidth || canvas.height !== fullHeight) {
      canvas.width = fullWidth;
      canvas.height = fullHeight;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(density, 0, 0, density, 0, 0);
    pen.fillStyle = "#10161d";
    pen.fillRect(0, 0, width, height);
    const project = camera(width, height);
    drawHull(pen, project);
    const shower = showerOf(panel);
    const shown = drawHits(pen, project, shower);
    const label = panel === 0 ? `reference: ${setOf(0).label}` : setOf(panel).label;
    find(`title-${panel}`).textContent = `${label}, ${energyWords(shower.incident)}`;
    find(`words-${panel}`).textContent = `${shown} of ${shower.num_hits} hits shown, `
      + `${energyWords(shower.visible)} visible`;
  }

  function draw() {
    isQueued = false;
    findRange();
    drawPanel(0);
    drawPanel(1);
    find("cut-words").textContent = energyWords(cutEnergy());
    find("place").textContent = `pair ${state.shower + 1} of ${data.sets[0].showers.length}`;
  }

  function redraw() {
    if (!isQueued) {
      isQueued = true;
      window.requestAnimationFrame(draw);
    }
  }

  function turn(yaw, pitch) {
    state.yaw += yaw;
    state.pitch = Math.min(Math.max(state.pitch + pitch, -Math.PI / 2), Math.PI / 2);
    redraw();
  }

  function zoom(factor) {
    state.zoom = Math.min(Math.max(state.zoom * factor, 0.3), 12);
    redraw();
  }

  function step(by) {
    const number = data.sets[0].showers.length;
    state.shower = (state.shower + by + number) % number;
    redraw();
  }

  function reset() {
    Object.assign(state, HOME);
    redraw();
  }

  /* One pointer turns, two zoom. */
  function listen(canvas) {
    const pointers = new Map();
    const gap = () => {
      const [first, second] = [...pointers.values()];
      return Math.hypot(first.x - second.x, first.y - second.y);
    };
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const now = { x: event.clientX, y: event.clientY };
      const old = pointers.size === 2 ? gap() : 0;
      pointers.set(event.pointerId, now);
      if (pointers.size === 2) zoom(gap() / Math.max(old, 1));
      else turn(0.008 * (now.x - before.x), 0.008 * (now.y - before.y));
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => {
      // The page scrolls unless the reader has chosen the display.
      if (!event.ctrlKey && document.activeElement !== canvas) return;
      event.preventDefault();
      zoom(Math.exp(-0.0015 * event.deltaY));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const actions = {
        ArrowLeft: () => turn(-0.1, 0), ArrowRight: () => turn(0.1, 0),
        ArrowUp: () => turn(0, -0.1), ArrowDown: () => turn(0, 0.1),
        "+": () => zoom(1.15), "=": () => zoom(1.15), "-": () => zoom(1 / 1.15), 0: reset,
        n: () => step(1), p: () => step(-1),
      };
      if (!actions[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      actions[event.key]();
    });
    new ResizeObserver(redraw).observe(canvas);
  }

  function start() {
    root.hidden = false;
    root.closest("figure").classList.add("is-live");
    const choice = find("sample");
    data.sets.slice(1).forEach((entry, index) => choice.add(new Option(entry.label, index + 1)));
    choice.closest("label").hidden = data.sets.length < 3;
    choice.addEventListener("change", () => { state.sample = Number(choice.value); redraw(); });
    const cut = find("cut");
    cut.addEventListener("input", () => { state.cut = Number(cut.value) / 1000; redraw(); });
    find("next").addEventListener("click", () => step(1));
    find("previous").addEventListener("click", () => step(-1));
    find("closer").addEventListener("click", () => zoom(1.25));
    find("farther").addEventListener("click", () => zoom(1 / 1.25));
    find("reset").addEventListener("click", reset);
    find("bar").style.background = `linear-gradient(to right, ${
      Array.from({ length: 9 }, (_, i) => `rgb(${colourOf(i / 8)})`).join(", ")})`;
    [0, 1].forEach((panel) => listen(find(`canvas-${panel}`)));
    draw();
  }

  start();
})();
