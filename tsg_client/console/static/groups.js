// All groups: a row each, of which only those in sight are elements.

import { asked, keeper } from "./address.js";
import { all, forever, pages } from "./api.js";
import { h, put, say } from "./dom.js";
import { ago, count, moment, since, span } from "./format.js";
import { bar, button, empty, failed, listPage, problem, setBar, setPill, pill } from "./ui.js";
import { onItsWay, phrase, PILES, reason, ROLLOUT_ENDED, rolloutTone } from "./words.js";

// Rows above and below those in sight.
const MARGIN = 8;
// Milliseconds after which the list is read again, if that takes less than a tenth of the time.
const SHORTEST_PAUSE = 4000;

const COLUMNS = [
	{ name: "name", label: "Group", value: (row) => row.name.toLowerCase() },
	{ name: "running", label: "Running", value: (row) => (row.status.desired ? row.status.running / row.status.desired : 2), also: (row) => -row.status.desired },
	{ name: "state", label: "State", value: (row) => ["bad", "wait", "busy", "good", "idle"].indexOf(row.tone), also: (row) => -Date.parse(row.status.since) },
	{ name: "age", label: "Age", value: (row) => -row.created },
];

// What was read last: who comes back to the list finds it at once.
let rows = new Map();
const templates = new Map();

export async function show(root, { signal, title }) {
	title("Groups");
	const wanted = asked();
	const keep = keeper();
	const search = h("input", { type: "search", value: wanted.get("find") ?? "", placeholder: "Filter by name, template or state", "aria-label": "Filter groups", autocomplete: "off" });
	const piles = h("div.segments", { role: "group", "aria-label": "Show" });
	const list = table(signal, (name) => {
		model.down = model.sort === name && !model.down;
		model.sort = name;
		draw();
	});
	const { total, place, create } = listPage(root, "Groups", "New group", () => makeGroup().catch(failed), h("div.search", search), piles);

	const oneOf = (name, values) => (values.includes(wanted.get(name)) ? wanted.get(name) : values[0]);
	const model = { pile: oneOf("show", PILES.map(([name]) => name)), words: search.value.trim().toLowerCase(),
		sort: oneOf("sort", COLUMNS.map(({ name }) => name)), down: wanted.has("down") };

	async function makeGroup() {
		// Templates of now: one may be newer than the list.
		const [{ groupForm }, newest] = await Promise.all([import("./act.js"), all("templates", { signal })]);
		groupForm(newest, (made) => {
			location.hash = `#/groups/${made.id}`;
		});
	}

	for (const [name, label] of PILES) {
		const choose = () => {
			model.pile = name;
			draw();
		};
		piles.append(h("button", { "data-pile": name, onclick: choose }, label, h("b")));
	}
	search.addEventListener("input", () => {
		model.words = search.value.trim().toLowerCase();
		draw();
	});
	document.addEventListener("keydown", (event) => {
		if (event.key !== "/" || event.target.closest("input, textarea, select, dialog")) return;
		event.preventDefault();
		search.focus();
	}, { signal });

	/** `all_` is how many there are, where more are still to come. */
	function draw(all_) {
		const known = [...rows.values()];
		const found = model.words ? known.filter((row) => row.words.includes(model.words)) : known;
		const shown = model.pile === "all" ? found : found.filter((row) => row.tone === model.pile);
		for (const segment of piles.children) {
			const { pile: name } = segment.dataset;
			const number = name === "all" ? found.length : found.filter((row) => row.tone === name).length;
			say(segment.lastChild, count(number));
			segment.ariaPressed = model.pile === name;
			segment.hidden = name !== "all" && name !== model.pile && !known.some((row) => row.tone === name);
		}
		const { value, also } = COLUMNS.find((column) => column.name === model.sort);
		const order = (one, other) => {
			const [first, second] = [value(one), value(other)];
			const sign = first < second ? -1 : first > second ? 1 : also ? also(one) - also(other) : 0;
			return (model.down ? -sign : sign) || one.name.localeCompare(other.name);
		};
		shown.sort(order);
		say(total, all_ > rows.size ? `${count(rows.size)} of ${count(all_)}` : count(rows.size));
		const bad = known.filter((row) => row.tone === "bad").length;
		title(bad ? `Groups: ${count(bad)} need a change` : "Groups");
		keep({ find: model.words, show: model.pile !== "all" && model.pile, sort: model.sort !== COLUMNS[0].name && model.sort, down: model.down && "1" });
		if (!rows.size) {
			put(place, empty("No groups yet", "A group keeps as many instances of a template running as you ask for.", create(), h("a", { href: "#/templates" }, "Look at templates first")));
		} else if (!shown.length) {
			put(place, empty("Nothing fits", "No group has this name and state.", button("Show all", { onclick: () => {
				search.value = model.words = "";
				model.pile = "all";
				draw();
			} })));
		} else {
			if (place.firstChild !== list.element) put(place, list.element);
			list.draw(shown, model);
		}
	}

	/** At first pages are shown as they come; later once they are all there, so that nothing jumps. */
	async function read() {
		const began = performance.now();
		const isFirst = !rows.size;
		const fresh = new Map();
		let missing = false;
		for await (const page of pages("status", { signal })) {
			for (const status of page.body) {
				const before = rows.get(status.group_id);
				missing ||= !before || before.status.generation !== status.generation;
				fresh.set(status.group_id, row(status, before));
			}
			if (isFirst && !page.last) {
				rows = new Map(fresh);
				draw(page.total);
			}
		}
		if (missing) {
			for await (const page of pages("groups", { signal })) {
				for (const group of page.body) {
					const one = fresh.get(group.id);
					if (one) Object.assign(one, { created: Date.parse(group.created_at), template_id: group.template_id });
				}
			}
			if ([...fresh.values()].some((one) => one.template_id && !templates.has(one.template_id))) {
				for (const one of await all("templates", { signal })) templates.set(one.id, one);
			}
			for (const one of fresh.values()) {
				one.template = templates.get(one.template_id)?.template_name ?? "";
				one.words = words(one);
			}
		}
		rows = fresh;
		draw();
		return Math.max(SHORTEST_PAUSE, 9 * (performance.now() - began));
	}

	if (rows.size) draw();
	forever(read, signal, (error) => put(place, problem(error)));
	addEventListener("resize", () => draw(), { signal });
}

function row(status, before) {
	const [label, tone] = reason(status.reason);
	const made = { id: status.group_id, name: status.group_name, status, label, tone,
		created: before?.created ?? Date.parse(status.since), template_id: before?.template_id, template: before?.template ?? "" };
	made.words = words(made);
	return made;
}

const words = (one) => `${one.name} ${one.template} ${one.label}`.toLowerCase();

/** The work under way of a row: its rollout. */
function work(status) {
	const rollout = status.rollout;
	return rollout?.state && !ROLLOUT_ENDED.includes(rollout.state) ? [phrase(`Rollout${rollout.state}`).replace("Rollout", "Rollout: "), rolloutTone(rollout.state)] : null;
}

/** `choose` gets the name of the column to sort by. */
function table(signal, choose) {
	const heads = COLUMNS.map(({ name, label }) => h("div", { role: "columnheader", "data-column": name }, h("button", { onclick: () => choose(name) }, label, h("i"))));
	const body = h("div.rows", { role: "rowgroup" });
	const element = h("div.list", { role: "table", "aria-label": "Groups" },
		h("div.list-head", { role: "rowgroup" }, h("div.row", { role: "row" }, heads)), body);
	const pool = new Map();
	let shown = [];
	let queued = 0;

	function place() {
		queued = 0;
		const height = parseFloat(getComputedStyle(body).getPropertyValue("--row"));
		body.style.height = `${shown.length * height}px`;
		const top = -body.getBoundingClientRect().top;
		const from = Math.max(0, Math.floor(top / height) - MARGIN);
		const to = Math.min(shown.length, Math.ceil((top + innerHeight) / height) + MARGIN);
		const wanted = new Map(shown.slice(from, to).map((one, index) => [one.id, [one, from + index]]));
		for (const [id, part] of pool) {
			if (!wanted.has(id) && !part.element.contains(document.activeElement)) {
				part.element.remove();
				pool.delete(id);
			}
		}
		let before = null;
		for (const [id, [one, index]] of wanted) {
			let part = pool.get(id);
			if (!part) {
				part = line();
				pool.set(id, part);
				// In the order of the list, so that the keyboard goes from row to row.
				if (before) before.after(part.element);
				else body.prepend(part.element);
			} else if (before && before.nextElementSibling !== part.element && !part.element.contains(document.activeElement)) {
				before.after(part.element);
			}
			before = part.element;
			part.update(one);
			part.element.style.transform = `translateY(${index * height}px)`;
			part.element.ariaRowIndex = index + 2;
		}
	}

	addEventListener("scroll", () => {
		queued ||= requestAnimationFrame(place);
	}, { signal, passive: true });
	signal.addEventListener("abort", () => cancelAnimationFrame(queued));

	return {
		element,
		draw(rows, { sort, down }) {
			shown = rows;
			element.ariaRowCount = rows.length + 1;
			for (const head of heads) head.ariaSort = head.dataset.column === sort ? (down ? "descending" : "ascending") : null;
			place();
		},
	};
}

function line() {
	const name = h("a.name");
	const template = h("span.quiet");
	const progress = bar();
	const numbers = h("span.numbers");
	const state = pill("", "idle");
	const message = h("span.quiet.clip");
	const age = h("span.quiet");
	const element = h("div.row", { role: "row" },
		h("div.c-name", { role: "cell" }, name, template),
		h("div.c-running", { role: "cell" }, progress, numbers),
		h("div.c-state", { role: "cell" }, state, message),
		h("div.c-age", { role: "cell" }, age));
	element.addEventListener("click", (event) => {
		if (!event.target.closest("a") && !String(getSelection())) name.click();
	});
	return {
		element,
		update(one) {
			const { status } = one;
			say(name, one.name);
			name.href = `#/groups/${one.id}`;
			say(template, one.template);
			setBar(progress, status);
			say(numbers, `${status.running} / ${status.desired}`);
			const [text, tone] = work(status) ?? [one.label, one.tone];
			setPill(state, text, tone);
			const told = status.last_error ?? ((one.tone !== "good" && comings(status)) || decided(status));
			say(message, told);
			message.title = [status.message, status.last_error].join(" ");
			say(age, span((Date.now() - one.created) / 1000));
			age.title = moment(one.created);
		},
	};
}

/** What the policy at work decided: the one that changed its mind last. */
function decided({ decisions }) {
	const [last] = [...decisions].sort((one, other) => Date.parse(other.at) - Date.parse(one.at));
	if (!last) return "";
	const { policy_name: name, capacity_before: before, capacity_after: after, result } = last;
	return `${name}: ${before === after ? phrase(result).toLowerCase() : `${before} → ${after}`}, ${ago(last.at)}`;
}

/** What a group that changes is doing. */
const comings = (status) => onItsWay(status).join(", ") || (since(status.since) > 60 ? `since ${ago(status.since).replace(" ago", "")}` : "");
