// All groups: a row each, of which only those in sight are elements.

import { asked, keeper } from "./address.js";
import { all, forever, pages } from "./api.js";
import { h, put, say } from "./dom.js";
import { ago, count, moment, since, span } from "./format.js";
import { bar, button, empty, listPage, problem, setBar, setPill, pill, toast } from "./ui.js";
import { phrase, PILES, reason, ROLLOUT_ENDED, rolloutTone } from "./words.js";

// Rows above and below those in sight.
const MARGIN = 8;
// The list is read again after at least so many milliseconds, and never more than a tenth of the time.
const SHORTEST_PAUSE = 4000;

const COLUMNS = [
	{ name: "name", label: "Group", value: (row) => row.name.toLowerCase() },
	{ name: "running", label: "Running", value: (row) => (row.status.desired ? row.status.running / row.status.desired : 2), also: (row) => -row.status.desired },
	{ name: "state", label: "State", value: (row) => ["bad", "wait", "busy", "good", "idle"].indexOf(row.tone), also: (row) => -Date.parse(row.status.since) },
	{ name: "age", label: "Age", value: (row) => -row.created },
];

export async function show(root, { offer, signal, title }) {
	title("Groups");
	const wanted = asked();
	const keep = keeper();
	const search = h("input", { type: "search", value: wanted.get("find") ?? "", placeholder: "Filter by name, template or state", "aria-label": "Filter groups", autocomplete: "off" });
	const piles = h("div", { class: "segments", role: "group", "aria-label": "Show" });
	const list = table(signal);
	const { total, place, create } = listPage(root, "Groups", "New group", offer.has("POST", "groups") && makeGroup, h("div.search", search), piles);

	const oneOf = (name, values) => (values.includes(wanted.get(name)) ? wanted.get(name) : values[0]);
	const model = { rows: new Map(), templates: new Map(), pile: oneOf("show", PILES.map(([name]) => name)), words: search.value.trim().toLowerCase(),
		sort: oneOf("sort", COLUMNS.map(({ name }) => name)), down: wanted.has("down") };

	async function makeGroup() {
		const { groupForm } = await import("./act.js");
		try {
			// Those of now: the list may not have been read yet, and a template be newer than it.
			groupForm(offer, await all("templates", { signal }), (made) => {
				location.hash = `#/groups/${made.id}`;
			});
		} catch (error) {
			toast(error.message, "bad");
		}
	}

	for (const [name, label] of PILES) {
		const choose = () => {
			model.pile = name;
			draw();
		};
		piles.append(h("button", { type: "button", "data-pile": name, onclick: choose }, label, h("b")));
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
	list.onsort = (name) => {
		model.down = model.sort === name && !model.down;
		model.sort = name;
		draw();
	};

	/** `all_` is how many there are, where more are still to come. */
	function draw(all_) {
		const rows = [...model.rows.values()];
		const found = model.words ? rows.filter((row) => row.words.includes(model.words)) : rows;
		const shown = model.pile === "all" ? found : found.filter((row) => row.tone === model.pile);
		for (const segment of piles.children) {
			const { pile: name } = segment.dataset;
			const number = name === "all" ? found.length : found.filter((row) => row.tone === name).length;
			say(segment.lastChild, count(number));
			segment.setAttribute("aria-pressed", String(model.pile === name));
			segment.hidden = name !== "all" && name !== model.pile && !rows.some((row) => row.tone === name);
		}
		const { value, also } = COLUMNS.find((column) => column.name === model.sort);
		const order = (one, other) => {
			const [first, second] = [value(one), value(other)];
			const sign = first < second ? -1 : first > second ? 1 : also ? also(one) - also(other) : 0;
			return (model.down ? -sign : sign) || one.name.localeCompare(other.name);
		};
		shown.sort(order);
		say(total, all_ > rows.length ? `${count(rows.length)} of ${count(all_)}` : count(rows.length));
		const bad = rows.filter((row) => row.tone === "bad").length;
		title(bad ? `Groups: ${count(bad)} need a change` : "Groups");
		keep({ find: model.words, show: model.pile !== "all" && model.pile, sort: model.sort !== COLUMNS[0].name && model.sort, down: model.down && "1" });
		if (!rows.length) {
			put(place, empty("No groups yet", "A group keeps as many instances of a template running as you ask for.", create(), h("a", { href: "#/templates" }, "It is made from a template: look at those first")));
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

	/** The first pages are shown as they come; later ones once they are all there, so that nothing jumps. */
	async function read() {
		const began = performance.now();
		const isFirst = !model.rows.size;
		const fresh = new Map();
		const known = model.rows;
		let missing = false;
		for await (const page of pages("status", { signal })) {
			for (const status of page.body) {
				const before = known.get(status.group_id);
				missing ||= !before || before.status.generation !== status.generation;
				fresh.set(status.group_id, row(status, before));
			}
			if (isFirst && !page.last) {
				model.rows = new Map(fresh);
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
			if ([...fresh.values()].some((one) => one.template_id && !model.templates.has(one.template_id))) {
				for (const one of await all("templates", { signal })) model.templates.set(one.id, one);
			}
			for (const one of fresh.values()) {
				one.template = model.templates.get(one.template_id)?.template_name ?? "";
				one.words = words(one);
			}
		}
		model.rows = fresh;
		draw();
		return Math.max(SHORTEST_PAUSE, 9 * (performance.now() - began));
	}

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

function table(signal) {
	const heads = COLUMNS.map(({ name, label }) => {
		const head = h("button", { type: "button" }, label, h("i"));
		head.addEventListener("click", () => made.onsort(name));
		return h("div", { role: "columnheader", class: `c-${name}`, "data-column": name }, head);
	});
	const body = h("div", { class: "rows", role: "rowgroup" });
	const element = h("div", { class: "list", role: "table", "aria-label": "Groups" },
		h("div", { class: "list-head", role: "rowgroup" }, h("div", { class: "row", role: "row" }, heads)), body);
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
			part.element.setAttribute("aria-rowindex", index + 2);
		}
	}

	addEventListener("scroll", () => {
		queued ||= requestAnimationFrame(place);
	}, { signal, passive: true });
	signal.addEventListener("abort", () => cancelAnimationFrame(queued));

	const made = {
		element,
		onsort: null,
		draw(rows, { sort, down }) {
			shown = rows;
			element.setAttribute("aria-rowcount", rows.length + 1);
			for (const head of heads) {
				if (head.dataset.column === sort) head.setAttribute("aria-sort", down ? "descending" : "ascending");
				else head.removeAttribute("aria-sort");
			}
			place();
		},
	};
	return made;
}

function line() {
	const name = h("a.name");
	const template = h("span.quiet");
	const progress = bar();
	const numbers = h("span.numbers");
	const state = pill("", "idle");
	const message = h("span.quiet.clip");
	const age = h("span.quiet");
	const element = h("div", { class: "row", role: "row" },
		h("div", { class: "c-name", role: "cell" }, name, template),
		h("div", { class: "c-running", role: "cell" }, progress, numbers),
		h("div", { class: "c-state", role: "cell" }, state, message),
		h("div", { class: "c-age", role: "cell" }, age));
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
			const told = status.last_error ?? (one.tone === "good" ? "" : comings(status));
			say(message, told);
			message.title = `${status.message}${status.last_error ? ` ${status.last_error}` : ""}`;
			say(age, span((Date.now() - one.created) / 1000));
			age.title = moment(one.created);
		},
	};
}

/** What a group that changes is doing, in counts. */
function comings({ provisioning, failed, deleting, since: from }) {
	const told = [provisioning && `${provisioning} coming`, failed && `${failed} failed`, deleting && `${deleting} going`].filter(Boolean);
	return told.length ? told.join(", ") : since(from) > 60 ? `since ${ago(from).replace(" ago", "")}` : "";
}
