// Times, counts and ids in words.

import { h } from "./dom.js";

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const times = (options) => new Intl.DateTimeFormat(undefined, options).format;
const moments = times({ dateStyle: "medium", timeStyle: "medium" });
const days = times({ weekday: "long", day: "numeric", month: "long" });
const minutes = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

export const count = new Intl.NumberFormat("en").format;
export const plural = (number, word, words = `${word}s`) => `${count(number)} ${number === 1 ? word : words}`;
export const moment = (text) => (text ? moments(new Date(text)) : "");
export const day = (text) => days(new Date(text));
export const clock = times(minutes);
export const clockWithSeconds = times({ ...minutes, second: "2-digit" });
export const short = (id) => String(id ?? "").slice(0, 8);

/** A span in its largest unit, and the next one where that says more: 45 s, 3 min, 2 h 10 min, 5 d. */
export function span(spanned) {
	const whole = Math.max(0, Math.round(spanned));
	for (const [index, [name, size]] of UNITS.entries()) {
		if (whole < size && size > 1) continue;
		const large = Math.floor(whole / size);
		const [next, nextSize] = UNITS[index + 1] ?? [];
		const small = next ? Math.floor((whole % size) / nextSize) : 0;
		return large < 3 && small && size > 60 ? `${large} ${name} ${small} ${next}` : `${large} ${name}`;
	}
	return "0 s";
}

export const since = (text) => (Date.now() - Date.parse(text)) / 1000;
export function ago(text) {
	if (!text) return "";
	const passed = since(text);
	return passed < 2 ? "just now" : `${span(passed)} ago`;
}
export function until(text) {
	if (!text) return "";
	const left = -since(text);
	return left < 1 ? "now" : `in ${span(left)}`;
}

/** A <time> that keeps saying how long ago it was, or how long it will be. */
export function timeElement(text, words = ago) {
	return h("time", { datetime: text, title: moment(text), "data-words": words === ago ? "ago" : "until" }, words(text));
}

/** Renew the words of all <time> elements on the page. */
export function tick() {
	for (const element of document.querySelectorAll("time[data-words]")) {
		const words = (element.dataset.words === "ago" ? ago : until)(element.dateTime);
		if (element.textContent !== words) element.textContent = words;
	}
}

/** The name of a template, if it is known. */
export const nameOf = (templates, id) => templates.get(id)?.template_name ?? short(id);
