// The football field as SVG: the home goal line is on the left, and one unit is one yard.

import { drawShape } from "./dom.js";
import { abbr, field, spotText } from "./scoreboard.js";

const END_ZONE = 10;
const LENGTH = 120;
const WIDTH = 38;

const upright = (x1, y1, y2, name) => ({ x1, x2: x1, y1, y2, class: name });

export function drawField(svg) {
  for (let i = 0; i < 10; i += 1) {
    const x = END_ZONE + i * 10;
    drawShape(svg, "rect", { x, y: 0, width: 10, height: WIDTH, class: i % 2 ? "turf odd" : "turf" });
  }
  for (let yard = 1; yard < 100; yard += 1) {
    const x = END_ZONE + yard;
    if (yard % 5 === 0) drawShape(svg, "line", upright(x, 0, WIDTH, "yard"));
    else for (const y of [0.6, 13.6, 23.4, 36.4]) drawShape(svg, "line", upright(x, y, y + 1, "hash"));
  }
  for (let yard = 10; yard < 100; yard += 10) {
    const number = String(yard <= 50 ? yard : 100 - yard);
    for (const y of [8.6, 32.4]) drawShape(svg, "text", { x: END_ZONE + yard, y, class: "number" }, number);
  }
  const zones = {};
  for (const [side, x, turn] of [["home", 0, -90], ["away", LENGTH - END_ZONE, 90]]) {
    drawShape(svg, "rect", { x, y: 0, width: END_ZONE, height: WIDTH, class: `zone ${side}` });
    const middle = `translate(${x + END_ZONE / 2} ${WIDTH / 2}) rotate(${turn})`;
    zones[side] = drawShape(svg, "text", { transform: middle, class: "zone-name" }, "");
  }
  for (const x of [END_ZONE, LENGTH - END_ZONE]) drawShape(svg, "line", upright(x, 0, WIDTH, "goal"));
  const scrimmage = drawShape(svg, "line", upright(0, 0, WIDTH, "scrimmage"));
  const firstDown = drawShape(svg, "line", upright(0, 0, WIDTH, "first-down"));
  const ball = drawShape(svg, "g", { class: "ball" });
  const arrow = drawShape(ball, "path", { d: "M3.4 -1.5 L6 0 L3.4 1.5 Z", class: "arrow" });
  drawShape(ball, "path", { d: "M-2.4 0 Q0 -3 2.4 0 Q0 3 -2.4 0 Z", class: "leather" });
  drawShape(ball, "path", { d: "M-.9 0 H.9 M-.5 -.4 V.4 M0 -.4 V.4 M.5 -.4 V.4", class: "lace" });

  function moveTo(node, yards) {
    node.classList.toggle("gone", yards === null);
    if (yards !== null) node.style.transform = `translateX(${END_ZONE + yards}px)`;
  }

  return function render(state) {
    const spot = field(state);
    for (const side of ["home", "away"]) zones[side].textContent = abbr(state.match, side);
    moveTo(scrimmage, spot?.inPlay ? spot.ball : null);
    moveTo(firstDown, spot?.firstDown ?? null);
    ball.classList.toggle("gone", spot === null);
    if (spot) ball.style.transform = `translate(${END_ZONE + spot.ball}px, ${WIDTH / 2}px)`;
    arrow.classList.toggle("gone", !spot?.inPlay);
    arrow.classList.toggle("left", spot?.direction === -1);
    const team = spot?.inPlay ? `, ${abbr(state.match, state.matchdata.possession)} in possession` : "";
    const line = spot?.firstDown != null ? `, first down at ${spotText(state.match, spot.firstDown)}` : "";
    const label = spot ? `The field: ball on ${spotText(state.match, spot.ball)}${team}${line}` : "The field";
    svg.setAttribute("aria-label", label);
  };
}
