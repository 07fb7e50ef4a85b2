// Elements from values. Text is always text: nothing here, or anywhere in the console, reads HTML.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["checked", "disabled", "hidden", "indeterminate", "max", "min", "readOnly", "required", "selected", "tabIndex", "value"]);

function fill(element, classes, parts) {
	const attributes = parts[0]?.constructor === Object ? parts.shift() : {};
	if (classes.length) element.setAttribute("class", classes.join(" "));
	for (const [name, value] of Object.entries(attributes)) {
		if (value === undefined || value === null) continue;
		if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
		else if (PROPERTIES.has(name) && name in element) element[name] = value;
		else if (value !== false) element.setAttribute(name, value === true ? "" : value);
	}
	put(element, parts);
	return element;
}

/** An element of HTML: h("p.quiet", {id: "x"}, "text", child, [children]); the attributes may be left out, and children be null or false. */
export function h(tag, ...parts) {
	const [name, ...classes] = tag.split(".");
	return fill(document.createElement(name), classes, parts);
}

/** The same of SVG. */
export function s(tag, ...parts) {
	const [name, ...classes] = tag.split(".");
	return fill(document.createElementNS(SVG, name), classes, parts);
}

/** Set the text of an element, if it is another one: a screen reader and the layout are left alone otherwise. */
export function say(element, text) {
	const wanted = String(text ?? "");
	if (element.textContent !== wanted) element.textContent = wanted;
}

/** Make `parent` have one child for each item, in this order; children of the same key are kept and updated. */
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

/** Replace all children. */
export function put(parent, ...children) {
	parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

/** Fill an element anew if `version` is another one, and not while a menu in it is open. A focus in it stays with its first button. */
export function renew(element, version, fill_) {
	if (element.dataset.version === version || element.querySelector(":popover-open")) return;
	element.dataset.version = version;
	const had = element.contains(document.activeElement);
	put(element, fill_());
	if (had) element.querySelector("button")?.focus();
}

let last = 0;
/** An id that no other element has. */
export const unique = (prefix) => `${prefix}-${(last += 1)}`;
