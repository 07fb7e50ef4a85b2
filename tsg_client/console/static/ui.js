// Parts that all pages have: icons, pills, bars, dialogs, toasts, menus.

import { h, put, s, say, unique } from "./dom.js";
import { Refusal } from "./api.js";

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
	down: "M12 5v13M6.5 12.5L12 18l5.5-5.5",
	edit: "M4.5 19.5l1-4L16 5l3 3L8.5 18.5zM13.5 7.5l3 3",
	trash: "M5 7h14M9.5 7V4.5h5V7M7 7l.8 12.5h8.4L17 7M10.3 10.5v5.5M13.7 10.5v5.5",
	right: "M9.5 5.5L16 12l-6.5 6.5",
	pause: "M9 6v12M15 6v12",
	play: "M8 5.5v13l10.5-6.5z",
	undo: "M8.5 5.5L4.5 9.5l4 4M4.5 9.5H14a5 5 0 0 1 0 10h-3",
	swap: "M7 8.5h11l-3-3M17 15.5H6l3 3",
	copy: "M9 9h10.5v10.5H9zM15 9V4.5H4.5V15H9",
};

/** A picture that says nothing to a screen reader: what stands beside it does. */
export const icon = (name) =>
	s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, s("path", { d: ICONS[name] }));

export const button = (text, attributes, name) =>
	h("button", { type: "button", ...attributes, class: `button ${attributes?.class ?? ""}` }, name && icon(name), h("span", text));

export const iconButton = (label, name, attributes) =>
	h("button", { type: "button", title: label, "aria-label": label, ...attributes, class: `icon-button ${attributes?.class ?? ""}` }, icon(name));

/** A text of machines with a button that copies it, where the browser lets a page do that. */
export const copyable = (text, label, shown = text) => h("span.copyable", h("span.mono", { title: text }, shown), navigator.clipboard && iconButton(`Copy ${label}`, "copy", { class: "copy", onclick: async () => {
	try {
		await navigator.clipboard.writeText(text);
		toast("Copied.");
	} catch {
		toast("The browser did not let this page copy it.", "bad");
	}
} }));

/** What is shown this once: a dialog with a secret, or an address that is one. */
export const reveal = (title, text, label, value) => {
	const field = h("input", { readOnly: true, value, "aria-label": label, class: "mono", onfocus: () => field.select() });
	return dialog({ title, body: [h("p", text), h("div.revealed", field, copyable(value, label.toLowerCase()))] });
};

/** A word with a coloured dot. The word alone says it all. */
export const pill = (text, tone) => h("span", { class: `pill ${tone}` }, h("i"), h("span", text));

export function setPill(element, text, tone) {
	const wanted = `pill ${tone}`;
	if (element.className !== wanted) element.className = wanted;
	say(element.lastChild, text);
}

/** How many run of how many, as a bar. */
export function bar() {
	const parts = ["run", "coming", "failed", "leaving"].map((name) => h("i", { class: name }));
	return h("span", { class: "bar", role: "img" }, parts);
}

export function setBar(element, { running, desired, provisioning, failed, deleting }) {
	const whole = Math.max(desired, running + provisioning + failed, 1);
	const shares = [Math.min(running, whole), provisioning, failed, Math.min(deleting, Math.max(0, whole - running - provisioning - failed))];
	[...element.children].forEach((part, index) => {
		const width = `${(100 * shares[index]) / whole}%`;
		if (part.style.width !== width) part.style.width = width;
	});
	element.setAttribute("aria-label", `${running} of ${desired} running`);
}

/** A message that goes by itself; errors stay until they are closed. */
export function toast(text, tone = "good") {
	const shown = h("div", { class: `toast ${tone}` }, icon(tone === "bad" ? "alert" : "check"), h("span", text));
	const close = () => shown.remove();
	shown.append(iconButton("Close", "close", { onclick: close }));
	document.getElementById("toasts").append(shown);
	if (tone !== "bad") setTimeout(close, 5000);
}

/** What went wrong, in words, above a form or in a page. */
export function problem(error) {
	const own = error instanceof Refusal && error.requestId ? h("span.quiet.mono", ` request ${error.requestId}`) : null;
	const words = error.status === 412 ? "Somebody else changed it meanwhile. Close this and open it again: then you see how it is now." : error.message;
	return h("div", { class: "problem", role: "alert" }, icon("alert"), h("span", words, own));
}

/**
 * A dialog with a form. `body` are its elements; `submit` is called with what it is sent by, and the dialog closes when that ends well.
 * Errors it throws are shown: `explain` may have shown them already, and then gives true.
 */
export function dialog({ title, body, action, tone = "primary", submit, explain, wide = false, opened, closed }) {
	const heading = h("h2", { id: unique("title") }, title);
	const problems = h("div.problems");
	const go = action ? h("button", { class: `button ${tone}`, type: "submit" }, action) : null;
	const form = h("form", { method: "dialog", novalidate: true });
	const shown = h("dialog", { class: wide ? "wide" : "", "aria-labelledby": heading.id });
	const close = () => shown.close();
	put(
		form,
		h("header", heading, iconButton("Close", "close", { onclick: close })),
		h("div.dialog-body", problems, body),
		h("footer", h("button", { class: "button", type: "button", onclick: close }, action ? "Cancel" : "Close"), go),
	);
	form.addEventListener("submit", async (event) => {
		event.preventDefault();
		if (!go || go.disabled || go.getAttribute("aria-busy")) return;
		go.setAttribute("aria-busy", "true");
		put(problems);
		try {
			await submit();
			close();
		} catch (error) {
			if (!explain?.(error)) put(problems, problem(error));
			shown.querySelector("[aria-invalid=true], [role=alert]")?.scrollIntoView({ block: "nearest" });
			shown.querySelector("[aria-invalid=true]")?.focus();
		} finally {
			go.removeAttribute("aria-busy");
		}
	});
	const before = document.activeElement;
	shown.addEventListener("close", () => {
		shown.remove();
		closed?.();
		if (before?.isConnected) before.focus();
	});
	shown.append(form);
	document.body.append(shown);
	shown.showModal();
	const first = shown.querySelector(".dialog-body :is(input, select, textarea):not([disabled])");
	(first ?? go ?? heading).focus?.();
	const made = { element: shown, go, close, problems };
	opened?.(made);
	return made;
}

/** Ask before something that cannot be taken back. */
export const confirm = (title, text, action, submit) =>
	dialog({ title, body: [h("p", text)], action, tone: "danger", submit });

/** Buttons behind a button. `entries` are [label, icon, function, tone]. */
export function menu(label, entries) {
	const list = h("div", { class: "menu", role: "menu", popover: "auto", id: unique("menu") });
	const opener = iconButton(label, "more", { "aria-haspopup": "menu", popovertarget: list.id });
	for (const [text, name, act, tone] of entries) {
		const choose = () => {
			list.hidePopover();
			act();
		};
		list.append(h("button", { type: "button", role: "menuitem", class: tone ?? "", onclick: choose }, icon(name), h("span", text)));
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
	const element = h("div", { class: "segments", role: "group", "aria-label": label }, entries.map(([one, text]) => h("button", { type: "button", "aria-pressed": String(one === value), onclick: (event) => {
		for (const other of element.children) other.setAttribute("aria-pressed", String(other === event.currentTarget));
		choose(one);
	} }, text)));
	return element;
}

/** A table with these heads around the rows in `body`. */
export const table = (heads, body, kind = "") =>
	h("div.scroll", h("table", { class: `table ${kind}` }, h("thead", h("tr", heads.map((text) => h("th", { scope: "col", "aria-label": text ? null : "Actions" }, text)))), body));

/** A page that is one list: its title, how many there are, a button for a new one, and a place for the list. */
export function listPage(root, title, action, make, ...tools) {
	const total = h("span.count");
	const place = h("div", h("p.quiet.first", "Loading …"));
	const create = () => make && button(action, { class: "primary", onclick: () => make() }, "plus");
	put(root, h("div.title", h("h1", title), total, h("div.actions", make && create())), tools.length > 0 && h("div.tools", tools), place);
	return { total, place, create };
}

/** A card with a heading. */
export function card(title, { actions, ...attributes } = {}, ...children) {
	const heading = h("h2", { id: unique("card") }, title);
	return h("section", { ...attributes, class: `card ${attributes.class ?? ""}`, "aria-labelledby": heading.id },
		h("header", heading, h("div.actions", actions)), children);
}

/** What a page says where it has nothing to show. */
export const empty = (title, text, ...more) => h("div.empty", h("h3", title), h("p", text), more);
