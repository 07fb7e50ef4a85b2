// Parts that all pages have: icons, pills, bars, dialogs, toasts, menus.

import { Refusal } from "./api.js";
import { each, h, put, renew, s, say, unique } from "./dom.js";
import { count } from "./format.js";

// Rows at first, and with each "Show more".
const ROWS = 200;

const ICONS = {
	plus: "M12 5v14M5 12h14",
	minus: "M5 12h14",
	close: "M6 6l12 12M18 6L6 18",
	check: "M5 12.5l4.5 4.5L19 7.5",
	more: "M5 12h.2M11.9 12h.2M18.8 12h.2",
	search: "M11 4a7 7 0 1 0 0 14a7 7 0 0 0 0-14M16.2 16.2L20 20",
	sun: "M12 8a4 4 0 1 0 0 8a4 4 0 0 0 0-8M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4",
	moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5",
	auto: "M12 3.5a8.5 8.5 0 1 0 0 17a8.5 8.5 0 0 0 0-17M12 3.5v17",
	shield: "M12 3.5l7 2.6v5.4c0 4.3-2.9 7.4-7 9c-4.1-1.6-7-4.7-7-9V6.1z",
	alert: "M12 4L21 19.5H3zM12 10v4.5M12 17h.01",
	right: "M9.5 5.5L16 12l-6.5 6.5",
	pause: "M9 6v12M15 6v12",
	play: "M8 5.5v13l10.5-6.5z",
	undo: "M8.5 5.5L4.5 9.5l4 4M4.5 9.5H14a5 5 0 0 1 0 10h-3",
	swap: "M7 8.5h11l-3-3M17 15.5H6l3 3",
	copy: "M9 9h10.5v10.5H9zM15 9V4.5H4.5V15H9",
};

export const icon = (name) =>
	s("svg.icon", { viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, s("path", { d: ICONS[name] }));

export const button = (text, attributes, name) => h("button.button", { ...attributes }, name && icon(name), h("span", text));

export const iconButton = (label, name, attributes) => h("button.icon-button", { title: label, "aria-label": label, ...attributes }, icon(name));

/** A text with a button that copies it, where the browser lets a page do that. */
export const copyable = (text, label, shown = text) => h("span.copyable", h("span.mono", { title: text }, shown), navigator.clipboard && iconButton(`Copy ${label}`, "copy", { class: "copy", onclick: async () => {
	try {
		await navigator.clipboard.writeText(text);
		toast("Copied.");
	} catch {
		toast("It could not be copied.", "bad");
	}
} }));

/** A dialog with a secret, or an address that is one. */
export const reveal = (title, text, label, value) => {
	const field = h("input.mono", { readOnly: true, value, "aria-label": label, onfocus: () => field.select() });
	dialog({ title, body: [h("p", text), h("div.revealed", field, copyable(value, label.toLowerCase()))] });
};

/** A word with a coloured dot. The word alone says it all. */
export const pill = (text, tone) => h(`span.pill.${tone}`, h("i"), h("span", text));

export function setPill(element, text, tone) {
	const wanted = `pill ${tone}`;
	if (element.className !== wanted) element.className = wanted;
	say(element.lastChild, text);
}

/** How many run of how many, as a bar. */
export function bar() {
	const parts = ["run", "coming", "failed", "leaving"].map((name) => h("i", { class: name }));
	return h("span.bar", { role: "img" }, parts);
}

export function setBar(element, { running, desired, provisioning, failed, deleting }) {
	const whole = Math.max(desired, running + provisioning + failed, 1);
	const shares = [Math.min(running, whole), provisioning, failed, Math.min(deleting, Math.max(0, whole - running - provisioning - failed))];
	[...element.children].forEach((part, index) => {
		const width = `${(100 * shares[index]) / whole}%`;
		if (part.style.width !== width) part.style.width = width;
	});
	element.ariaLabel = `${running} of ${desired} running`;
}

/** A message that goes by itself; errors stay until they are closed. */
export function toast(text, tone = "good") {
	const shown = h(`div.toast.${tone}`, icon(tone === "bad" ? "alert" : "check"), h("span", text));
	const close = () => shown.remove();
	shown.append(iconButton("Close", "close", { onclick: close }));
	document.getElementById("toasts").append(shown);
	if (tone !== "bad") setTimeout(close, 5000);
}

export const failed = (error) => toast(error.message, "bad");

/** What went wrong, in words, above a form or in a page. */
export function problem(error) {
	const own = error instanceof Refusal && error.requestId ? h("span.quiet.mono", ` request ${error.requestId}`) : null;
	return h("div.problem", { role: "alert" }, icon("alert"), h("span", error.message, own));
}

/**
 * A dialog. `submit` gets what its `form` reads, once that is right, and the dialog closes unless it gives false. What it throws is shown
 * beside the fields of the form, or else above.
 */
export function dialog({ title, form, body = form?.element, action, tone = "primary", submit, wide, opened, closed }) {
	const heading = h("h2", { id: unique("title") }, title);
	const problems = h("div.problems");
	const go = action ? h(`button.button.${tone}`, { type: "submit" }, action) : null;
	const close = () => shown.close();
	const send = async (event) => {
		event.preventDefault();
		if (!go || go.disabled || go.ariaBusy) return;
		go.ariaBusy = "true";
		put(problems);
		try {
			if ((form?.isRight() ?? true) && (await submit(form?.read())) !== false) close();
		} catch (error) {
			if (!form?.explain(error)) put(problems, problem(error));
		} finally {
			go.ariaBusy = null;
		}
		shown.querySelector("[aria-invalid=true], [role=alert]")?.scrollIntoView({ block: "nearest" });
		shown.querySelector("[aria-invalid=true]")?.focus();
	};
	const before = document.activeElement;
	const left = () => {
		shown.remove();
		closed?.();
		(before?.isConnected ? before : document.getElementById("main")).focus();
	};
	const shown = h("dialog", { class: wide && "wide", "aria-labelledby": heading.id, onclose: left }, h("form", { method: "dialog", novalidate: true, autocomplete: "off", spellcheck: "false", onsubmit: send },
		h("header", heading, iconButton("Close", "close", { onclick: close })),
		h("div.dialog-body", problems, body),
		h("footer", h("button.button", { onclick: close }, action ? "Cancel" : "Close"), go)));
	document.body.append(shown);
	shown.showModal();
	(shown.querySelector(".dialog-body :is(input, select, textarea):not([disabled])") ?? go)?.focus();
	opened?.({ element: shown, go });
}

export const confirm = (title, text, action, submit) => dialog({ title, body: h("p", text), action, tone: "danger", submit });

/** Buttons behind a button. `entries` are [label, function, tone]. */
export function menu(label, entries) {
	const list = h("div.menu", { role: "menu", popover: "auto", id: unique("menu") });
	const opener = iconButton(label, "more", { "aria-haspopup": "menu", popovertarget: list.id });
	for (const [text, act, tone] of entries) {
		const choose = () => {
			list.hidePopover();
			act();
		};
		list.append(h("button", { role: "menuitem", class: tone ?? "", onclick: choose }, text));
	}
	list.addEventListener("toggle", (event) => {
		if (event.newState !== "open") return;
		const at = opener.getBoundingClientRect();
		const own = list.getBoundingClientRect();
		list.style.left = `${Math.max(8, Math.min(at.right - own.width, innerWidth - own.width - 8))}px`;
		list.style.top = `${at.bottom + own.height + 8 > innerHeight ? Math.max(8, at.top - own.height - 4) : at.bottom + 4}px`;
		list.firstChild.focus();
	});
	list.addEventListener("keydown", (event) => {
		const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
		if (!step) return;
		event.preventDefault();
		const all = [...list.children];
		all[(all.indexOf(document.activeElement) + step + all.length) % all.length].focus();
	});
	return h("span.menu-of", opener, list);
}

/** Buttons of which one is pressed: `entries` are [value, label], `choose` gets the value. */
export function segments(entries, value, choose, label) {
	const element = h("div.segments", { role: "group", "aria-label": label }, entries.map(([one, text]) => h("button", { "aria-pressed": String(one === value), onclick: (event) => {
		for (const other of element.children) other.ariaPressed = other === event.currentTarget;
		choose(one);
	} }, text)));
	return element;
}

/** A table with these heads around the rows in `body`. */
export const table = (heads, body, kind = "") =>
	h("div.scroll", h(`table.table.${kind}`, h("thead", h("tr", heads.map((text) => h("th", { scope: "col", "aria-label": text ? null : "Actions" }, text)))), body));

/** A page that is one list: its title, how many there are, a button for a new one, and a place for the list. */
export function listPage(root, title, action, make, ...tools) {
	const total = h("span.count");
	const place = h("div", h("p.quiet.first", "Loading …"));
	const create = () => button(action, { class: "primary", onclick: () => make() }, "plus");
	put(root, h("div.title", h("h1", title), total, h("div.actions", create())), h("div.tools", tools), place);
	return { total, place, create };
}

/** A dialog with a table of what `read` gives, a row each; gives what reads it again. */
export function tableDialog({ title, before, heads, read, row, nothing }) {
	const rows = h("tbody");
	const fill = async () => {
		const { body } = await read();
		put(rows, body.length ? body.map((one) => h("tr", row(one))) : h("tr", h("td.quiet", { colspan: heads.length }, nothing)));
	};
	dialog({ title, wide: true, body: [before, table(heads, rows, "small")] });
	fill().catch(failed);
	return fill;
}

/** A page that is one table. `draw` shows those `found` of all, and what `none` says where there is none. */
export function tablePage(root, title, { action, make, heads, tools, none }) {
	const body = h("tbody");
	const shown = h("div.card", table(heads, body, "of-page"));
	const more = button("Show more", { onclick: () => {
		most += ROWS;
		again();
	} });
	let most = ROWS;
	let again;
	const { place, total, create } = listPage(root, title, action, make, tools);
	const draw = (all, version, row, found = all) => {
		again = () => draw(all, version, row, found);
		say(total, count(all.length));
		if (!all.length) return put(place, empty(...none, create()));
		if (!found.length) return put(place, empty("Nothing fits", "There is none with this name."));
		if (shown.parentNode !== place) put(place, shown, more);
		more.hidden = found.length <= most;
		return each(body, found.slice(0, most), (one) => one.id, () => h("tr"), (element, one) => renew(element, version(one), () => row(one)));
	};
	return { place, draw };
}

export function card(title, { actions, ...attributes } = {}, ...children) {
	const heading = h("h2", { id: unique("card") }, title);
	return h("section", { ...attributes, class: `card ${attributes.class ?? ""}`, "aria-labelledby": heading.id },
		h("header", heading, h("div.actions", actions)), children);
}

/** Names and values, for a dl.facts; what is not there is left out. */
export const facts = (pairs) => pairs.filter(Boolean).map(([name, value]) => [h("dt", name), h("dd", value)]);

/** What a page says where it has nothing to show. */
export const empty = (title, text, ...more) => h("div.empty", h("b", title), h("p", text), more);
