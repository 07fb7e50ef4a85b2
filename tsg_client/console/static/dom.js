// Elements from values. Text is always text: nothing here, or anywhere in the console, reads HTML.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["checked", "disabled", "hidden", "max", "min", "readOnly", "required", "tabIndex", "value"]);

function build(create, tag, parts) {
	const [name, ...classes] = tag.split(".");
	const element = create(name);
	// It sends no form unless it says so.
	if (name === "button") element.type = "button";
	const { class: more, ...attributes } = parts[0]?.constructor === Object ? parts.shift() : {};
	const named = [...classes, more].filter(Boolean).join(" ");
	if (named) element.setAttribute("class", named);
	for (const [key, value] of Object.entries(attributes)) {
		if (value === undefined || value === null) continue;
		if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
		else if (PROPERTIES.has(key) && key in element) element[key] = value;
		else if (value !== false) element.setAttribute(key, value === true ? "" : value);
	}
	put(element, parts);
	return element;
}

/** An element of HTML: h("p.quiet", {id: "x"}, "text", child, [children]); attributes may be left out, children be null or false. */
export const h = (tag, ...parts) => build((name) => document.createElement(name), tag, parts);

/** The same of SVG. */
export const s = (tag, ...parts) => build((name) => document.createElementNS(SVG, name), tag, parts);

/** Set the text of an element if it is another one: a screen reader hears nothing otherwise. */
export function say(element, text) {
	const wanted = straight(String(text ?? ""));
	if (element.textContent !== wanted) element.textContent = wanted;
}

/** Have one child for each item, in this order; children of the same key are kept and updated. */
export function each(parent, items, key, make, update) {
	const kept = new Map([...parent.children].map((child) => [child.dataset.key, child]));
	let place = parent.firstElementChild;
	for (const item of items) {
		const name = String(key(item));
		let child = kept.get(name);
		if (child) kept.delete(name);
		else {
			child = make(item);
			child.dataset.key = name;
		}
		update?.(child, item);
		if (child === place) place = place.nextElementSibling;
		else parent.insertBefore(child, place);
	}
	for (const child of kept.values()) child.remove();
}

/** A text without the marks that turn around what follows them. */
const straight = (text) => text.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

/** Replace all children. */
export function put(parent, ...children) {
	const there = children.flat(Infinity).filter((child) => ![null, undefined, false].includes(child));
	parent.replaceChildren(...there.map((child) => (typeof child === "string" ? straight(child) : child)));
}

/** Fill an element anew if `version` is another, and not while a menu in it is open. A focus on one of its buttons stays. */
export function renew(element, version, fill_) {
	if (element.dataset.version === version || element.querySelector(":popover-open")) return;
	element.dataset.version = version;
	const at = [...element.querySelectorAll("button")].indexOf(document.activeElement);
	put(element, fill_());
	if (at >= 0) (element.querySelectorAll("button")[at] ?? element.querySelector("button"))?.focus();
}

let last = 0;
/** An id that no other element has. */
export const unique = (prefix) => `${prefix}-${(last += 1)}`;
