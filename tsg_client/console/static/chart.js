// Wanted and running over the last hours, drawn from the activities of a group.

import { h, put, s } from "./dom.js";
import { ago, clock, clockWithSeconds, day, plural } from "./format.js";

// Pixels.
const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [210, 40, 14, 16, 26];
export const RANGES = [[3600, "1 h"], [6 * 3600, "6 h"], [86400, "24 h"]];

const CAPACITY = /\bcapacity (\d+) -> (\d+)/;
const COMES = new Set(["TSG_INSTANCE_LAUNCH", "TSG_INSTANCE_FOUND", "TSG_INSTANCE_ADOPT"]);
const GOES = new Set(["TSG_INSTANCE_TERMINATE", "TSG_INSTANCE_LOST", "TSG_INSTANCE_UNHEALTHY", "TSG_INSTANCE_DETACH"]);

/**
 * How many were wanted, and how many were there, as steps [time, value], the oldest first; and the changes that somebody made. It goes back
 * from now: an instance counts from its launch until it is deleted, gone or unhealthy.
 */
export function series(activities, status, from) {
	const now = Date.now();
	let wanted = status.desired;
	let present = status.running + status.provisioning;
	const asked = [[now, wanted]];
	const there = [[now, present]];
	const changes = [];
	// Of a machine that turned unhealthy and was then deleted, only the first counts.
	const unhealthy = new Set(activities.filter((one) => one.kind === "TSG_INSTANCE_UNHEALTHY").flatMap((one) => one.instance_ids));
	for (const one of activities) {
		const at = Date.parse(one.ended_at);
		const change = CAPACITY.exec(one.description);
		const isChange = change && !/^TSG_(INSTANCE_(?!ADOPT|DETACH|REMOVE)|POLICY_[CUD])/.test(one.kind);
		if (isChange || ["TSG_GROUP_CREATE", "TSG_GROUP_UPDATE", "TSG_ROLLOUT_START"].includes(one.kind)) {
			if (at >= from) changes.push({ at, value: isChange ? Number(change[2]) : wanted, text: one.description, who: one.actor });
		}
		if (isChange) {
			asked.push([at, Number(change[2])]);
			wanted = Number(change[1]);
			asked.push([at, wanted]);
		} else if (one.kind === "TSG_GROUP_CREATE") {
			asked.push([at, wanted], [at, 0]);
			wanted = 0;
		}
		if (one.status === "success" || GOES.has(one.kind)) {
			const gone = one.kind === "TSG_INSTANCE_TERMINATE" && one.instance_ids.some((id) => unhealthy.has(id));
			const step = COMES.has(one.kind) ? 1 : GOES.has(one.kind) && !gone ? -1 : 0;
			if (step) {
				there.push([at, present]);
				present = Math.max(0, present - step * Math.max(1, one.instance_ids.length));
				there.push([at, present]);
			}
		}
		if (at < from) break;
	}
	// Of a young group the chart begins a little before it.
	const born = activities.find((one) => one.kind === "TSG_GROUP_CREATE");
	const begin = born ? Math.max(from, Date.parse(born.ended_at) - Math.max(60000, 0.05 * (now - Date.parse(born.ended_at)))) : from;
	const oldest = Math.min(from, asked.at(-1)[0], there.at(-1)[0]);
	asked.push([oldest, wanted]);
	there.push([oldest, present]);
	return { asked: asked.reverse(), there: there.reverse(), changes, from: begin, now };
}

function valueAt(steps, at) {
	let found = steps[0][1];
	for (const [time, value] of steps) {
		if (time > at) break;
		found = value;
	}
	return found;
}

/** Marks of an axis: round numbers, at most five. */
function marks(most) {
	const rough = Math.max(1, most / 4);
	const power = 10 ** Math.floor(Math.log10(rough));
	const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
	return Array.from({ length: Math.floor(most / step) + 1 }, (_, index) => index * step);
}

function times(from, now) {
	const span = now - from;
	const step = [1, 5, 10, 15, 30, 60, 120, 240, 360].map((one) => one * 60000).find((one) => span / one <= 8) ?? 720 * 60000;
	const offset = new Date(from).getTimezoneOffset() * 60000;
	const found = [];
	for (let at = Math.ceil((from - offset) / step) * step + offset; at < now; at += step) found.push(at);
	return found;
}

export function chart() {
	const drawing = s("svg.chart", { role: "img" });
	const tip = h("div.tip", { hidden: true });
	const bound = h("span", { hidden: true }, h("i.line.bound"), "Bounds");
	const element = h("div.chart-of", drawing, tip,
		h("div.legend", h("span", h("i.line.there"), "Instances"), h("span", h("i.line.asked"), "Wanted"), h("span", h("i.line.change"), "A change"), bound));
	let data = null;
	let width = 0;
	const x = (at) => LEFT + ((at - data.from) / (data.now - data.from)) * (width - LEFT - RIGHT);
	let y;

	function path(steps, down) {
		const shown = steps.filter(([at]) => at >= data.from);
		const first = valueAt(steps, data.from);
		const points = [[data.from, first], ...shown];
		const line = points.map(([at, value], index) => `${index ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
		return down ? `${line}V${y(0)}H${x(data.from)}Z` : line;
	}

	function draw() {
		width = element.clientWidth;
		if (!data || !width) return;
		const values = [...data.asked, ...data.there].filter(([at]) => at >= data.from).map(([, value]) => value);
		const most = Math.max(1, valueAt(data.asked, data.from), valueAt(data.there, data.from), ...values) * 1.12;
		y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - TOP - BOTTOM);
		bound.hidden = !data.bounds.some((value) => value <= most);
		drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
		drawing.setAttribute("height", HEIGHT);
		drawing.ariaLabel = `Wanted now ${valueAt(data.asked, data.now)}, instances ${valueAt(data.there, data.now)}; ${plural(data.changes.length, "change")} since ${ago(new Date(data.from).toISOString())}. The activities below have the same in words.`;
		put(drawing,
			marks(most).map((value) => [s("path.rule", { d: `M${LEFT} ${y(value)}H${width - RIGHT}` }), s("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, String(value))]),
			data.bounds.filter((value) => value <= most).map((value) => s("path.bound", { d: `M${LEFT} ${y(value)}H${width - RIGHT}` })),
			times(data.from, data.now).filter((at) => x(at) > LEFT + 14 && x(at) < width - RIGHT - 14).map((at) => s("text", { x: x(at), y: HEIGHT - 6, "text-anchor": "middle" }, clock(at))),
			s("path.area", { d: path(data.there, true) }),
			s("path.there", { d: path(data.there) }),
			s("path.asked", { d: path(data.asked) }),
			data.changes.map((one) => s("circle.change", { cx: x(one.at), cy: y(one.value), r: 4.5 })),
			s("path.hair", { d: "" }));
	}

	drawing.addEventListener("pointermove", (event) => {
		if (!data) return;
		const left = event.clientX - drawing.getBoundingClientRect().left;
		const pointed = data.from + ((left - LEFT) / (width - LEFT - RIGHT)) * (data.now - data.from);
		const near = data.changes.filter((one) => Math.abs(x(one.at) - left) < 9).slice(0, 4);
		const at = Math.max(data.from, Math.min(data.now, near[0]?.at ?? pointed));
		drawing.querySelector(".hair").setAttribute("d", `M${x(at)} ${TOP}V${HEIGHT - BOTTOM}`);
		put(tip, h("b", `${day(at)}, ${clockWithSeconds(at)}`), h("span", `${valueAt(data.asked, at)} wanted, ${valueAt(data.there, at)} there`),
			near.map((one) => h("span.quiet", `${one.who}: ${one.text}`)));
		tip.hidden = false;
		tip.style.left = `${Math.min(Math.max(0, x(at) + 12), Math.max(0, width - tip.offsetWidth - 4))}px`;
	});
	drawing.addEventListener("pointerleave", () => {
		tip.hidden = true;
		drawing.querySelector(".hair")?.setAttribute("d", "");
	});
	new ResizeObserver(draw).observe(element);

	return {
		element,
		update(found) {
			data = found;
			draw();
		},
	};
}
