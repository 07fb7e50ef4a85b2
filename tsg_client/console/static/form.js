// Forms made from the schemas of request bodies: their fields, limits and words are the service's own.

import { h, say, unique } from "./dom.js";
import { Refusal } from "./api.js";
import { iconButton } from "./ui.js";
import { phrase } from "./words.js";

const kinds = (schema) => [schema.type ?? (schema.enum ? "string" : "object")].flat();
const kind = (schema) => kinds(schema).find((one) => one !== "null") ?? "string";
const words = (schema) => (schema.enum ?? []).filter((word) => word !== null);
/** An optional part of a union is what it is when it is there. */
const plain = (schema) => {
	const parts = (schema.anyOf ?? schema.oneOf)?.filter((one) => one.type !== "null");
	return parts?.length === 1 ? { ...parts[0], ...schema, anyOf: undefined, oneOf: undefined } : schema;
};
const LONG = 1000;
// A bound that nobody means.
const HUGE = 1e9;

function fits(pattern, text) {
	try {
		return new RegExp(pattern, "u").test(text);
	} catch {
		return true; // a pattern that only the service can read
	}
}

/** What the limits of a schema say in words. */
function limits({ minimum, maximum, maxLength, format }) {
	const told = [];
	const most = maximum < HUGE ? maximum : undefined;
	if (minimum > -HUGE && most !== undefined) told.push(`${minimum} to ${most}`);
	else if (most !== undefined) told.push(`at most ${most}`);
	if (format === "uuid") told.push("a UUID");
	else if (maxLength && maxLength < LONG) told.push(`up to ${maxLength} characters`);
	return told.join(", ");
}

/** What is wrong with a text by its schema, "" when nothing is. */
function wrong(text, schema, isRequired) {
	if (!text) return isRequired ? "This is needed." : "";
	if (schema.minLength && text.length < schema.minLength) return `This must have at least ${schema.minLength} characters.`;
	if (schema.maxLength && text.length > schema.maxLength) return `This has ${text.length} characters; ${schema.maxLength} are the most.`;
	if (schema.format === "uuid" && schema.pattern && !fits(schema.pattern, text)) return "This must be a UUID.";
	if (schema.pattern && !fits(schema.pattern, text)) return "This has characters, or a form, that the service does not take.";
	return "";
}

// Each makes {element, focus, read, problem}: `read` gives undefined for what was left empty.

function textControl(id, schema, value, { isRequired, suggestions, placeholder }) {
	const isLong = schema.maxLength > LONG || schema.pattern === "^[^\\u0000]*$";
	const list = suggestions?.length ? h("datalist", { id: unique("list") }, suggestions.map(([text, label]) => h("option", { value: text }, label))) : null;
	const input = h(isLong ? "textarea" : "input", { id, value: value ?? "", placeholder, list: list?.id, autocomplete: "off", spellcheck: "false", rows: isLong ? 3 : null });
	const read = () => (isLong ? input.value : input.value.trim());
	return { element: [input, list], input, read: () => read() || undefined, problem: () => wrong(read(), schema, isRequired) };
}

function numberControl(id, schema, value, { isRequired, placeholder }) {
	const { minimum: min, maximum: max } = schema;
	const step = kind(schema) === "integer" ? 1 : "any";
	const input = h("input", { id, type: "number", inputmode: "decimal", min, max, step, value: value ?? "", placeholder });
	const problem = () => {
		if (input.validity.badInput) return "This must be a number.";
		if (!input.value) return isRequired ? "This is needed." : "";
		const number = Number(input.value);
		if (kind(schema) === "integer" && !Number.isInteger(number)) return "This must be a whole number.";
		if (min !== undefined && number < min) return `This must be at least ${min}.`;
		if (max !== undefined && number > max) return `This must be at most ${max}.`;
		return "";
	};
	return { element: input, input, read: () => (input.value === "" ? undefined : Number(input.value)), problem };
}

/** A number, or a share such as 25%. */
function shareControl(id, schema, value, { isRequired }) {
	const input = h("input", { id, value: value ?? "", placeholder: "a number, or a share such as 25%", autocomplete: "off" });
	const text = () => input.value.trim();
	const problem = () => {
		if (!text()) return isRequired ? "This is needed." : "";
		if (/^\d+$/.test(text())) return Number(text()) > (schema.maximum ?? Infinity) ? `This must be at most ${schema.maximum}.` : "";
		return !schema.pattern || fits(schema.pattern, text()) ? "" : "This must be a whole number, or a share such as 25%.";
	};
	return { element: input, input, read: () => (text() ? (/^-?\d+$/.test(text()) ? Number(text()) : text()) : undefined), problem };
}

function choiceControl(id, options, value, { isRequired, whenEmpty }) {
	const input = h("select", { id }, (!isRequired || value === undefined) && h("option", { value: "" }, whenEmpty ?? "–"),
		options.map(([word, label]) => h("option", { value: JSON.stringify(word) }, label)));
	input.value = value === undefined || value === null ? "" : JSON.stringify(value);
	return { element: input, input, read: () => (input.value ? JSON.parse(input.value) : undefined), problem: () => (isRequired && !input.value ? "This is needed." : "") };
}

function linesControl(id, schema, value) {
	const item = schema.items ?? {};
	const input = h("textarea", { id, rows: 2, spellcheck: "false", placeholder: "one on each line",
		value: (value ?? []).map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join("\n") });
	const lines = () => input.value.split("\n").map((line) => line.trim()).filter(Boolean);
	const one = (line) => (/^[{[]/.test(line) ? JSON.parse(line) : ["integer", "number"].includes(kind(item)) ? Number(line) : line);
	const problem = () => {
		for (const line of lines()) {
			try {
				one(line);
			} catch {
				return `${line} is not JSON.`;
			}
			const found = typeof one(line) === "string" && kinds(item).includes("string") ? wrong(line, item, true) : "";
			if (found) return `${line}: ${found}`;
		}
		return "";
	};
	return { element: input, input, read: () => (lines().length ? lines().map(one) : undefined), problem };
}

/** Of words from a list, some, in the order in which they were given. */
function severalControl(id, schema, value) {
	const options = words(plain(schema.items));
	const chosen = new Set(value ?? []);
	const boxes = [...new Set([...chosen, ...options])].map((word) => [word, h("input", { type: "checkbox", checked: chosen.has(word) })]);
	const element = h("div", { id }, boxes.map(([word, box]) => h("label.check", box, phrase(word))));
	const read = () => {
		const found = boxes.filter(([, box]) => box.checked).map(([word]) => word);
		return found.length || value?.length ? found : undefined;
	};
	return { element, input: boxes[0][1], isGroup: true, read, problem: () => "" };
}

function pairsControl(id, schema, value) {
	const rows = h("div.pairs");
	const add = (name = "", text = "") => {
		const row = h("div.pair", h("input", { value: name, "aria-label": "Name", placeholder: "name", spellcheck: "false" }),
			h("input", { value: text, "aria-label": "Value", placeholder: "value", spellcheck: "false" }), iconButton("Remove", "close", { onclick: () => row.remove() }));
		rows.append(row);
		return row;
	};
	for (const [name, text] of Object.entries(value ?? {})) add(name, String(text));
	const more = h("button", { type: "button", class: "button small", id, onclick: () => add().firstChild.focus() }, "Add a pair");
	const read = () => {
		const found = [...rows.children].map((row) => [...row.querySelectorAll("input")].map((input) => input.value)).filter(([name]) => name.trim());
		return found.length ? Object.fromEntries(found.map(([name, text]) => [name.trim(), text])) : undefined;
	};
	return { element: h("div.pairs", rows, h("div", more)), input: more, isGroup: true, read, problem: () => "" };
}

function jsonControl(id, schema, value) {
	const input = h("textarea", { id, spellcheck: "false", placeholder: "JSON", value: value === undefined || value === null ? "" : JSON.stringify(value, null, 1) });
	const read = () => (input.value.trim() ? JSON.parse(input.value) : undefined);
	const problem = () => {
		try {
			read();
			return "";
		} catch {
			return "This is not JSON.";
		}
	};
	return { element: input, input, read, problem };
}

/** Objects in a row, each with a few fields of one value. */
export function rowsControl(id, schema, value, { isRequired } = {}) {
	const { properties, required = [] } = schema.items;
	const rows = h("div.pairs");
	const add = (given) => {
		const parts = Object.entries(properties).map(([name, one]) => [name, control(unique("cell"), plain(one), given?.[name], { isRequired: required.includes(name) })]);
		const row = h("div.cells-of", parts.map(([name, part]) => h("label", phrase(name), part.element)), iconButton("Remove", "close", { onclick: () => row.remove() }));
		row.parts = parts;
		rows.append(row);
	};
	for (const one of value ?? (isRequired ? [null] : [])) add(one);
	const more = h("button.button.small", { type: "button", id, onclick: () => add(null) }, "Add a row");
	const read = () => [...rows.children].map((row) => Object.fromEntries(row.parts.map(([name, part]) => [name, part.read()]).filter(([, found]) => found !== undefined)));
	const problem = () => [...rows.children].flatMap((row) => row.parts.map(([name, part]) => part.problem() && `${phrase(name)}: ${part.problem()}`)).find(Boolean) ?? "";
	return { element: h("div.pairs", rows, h("div", more)), input: more, isGroup: true, read: () => (rows.children.length ? read() : undefined), problem };
}

/** An object of its own, which may be left out altogether. */
function partControl(id, schema, value, { isRequired }) {
	const inner = new Form(schema, { values: value ?? {} });
	const box = h("input", { type: "checkbox", id, checked: isRequired || (value !== undefined && value !== null) });
	const show = () => {
		inner.element.hidden = !box.checked;
	};
	box.addEventListener("change", show);
	show();
	const wasThere = box.checked;
	return {
		element: h("div.pairs", isRequired ? h("p.hint", schema.description) : h("label.check", box, schema.description ?? "Set this"), inner.element),
		input: box,
		isGroup: true,
		read: () => (box.checked ? inner.read() : wasThere ? null : undefined),
		problem: () => (box.checked && !inner.isRight() ? "See below." : ""),
		explain: (path, message) => inner.explainField(path, message),
	};
}

function control(id, schema, value, more) {
	if (words(schema).length) return choiceControl(id, words(schema).map((word) => [word, phrase(word)]), value ?? schema.default ?? undefined, more);
	if (kinds(schema).includes("integer") && kinds(schema).includes("string")) return shareControl(id, schema, value, more);
	switch (schema.anyOf || schema.oneOf ? "any" : kind(schema)) {
		case "boolean": {
			const unset = schema.default === null || schema.default === undefined ? {} : { whenEmpty: `As by default: ${schema.default ? "yes" : "no"}` };
			return choiceControl(id, [[true, "Yes"], [false, "No"]], value ?? undefined, { ...more, ...unset });
		}
		case "integer":
		case "number":
			return numberControl(id, schema, value, more);
		case "array":
			if (words(plain(schema.items ?? {})).length) return severalControl(id, schema, value);
			return schema.items?.properties && kinds(schema.items)[0] === "object" && kinds(schema.items).length === 1 ? rowsControl(id, schema, value, more) : linesControl(id, schema, value);
		case "object":
			if (schema.properties) return partControl(id, schema, value, more);
			return schema.additionalProperties && typeof schema.additionalProperties === "object" ? pairsControl(id, schema, value) : jsonControl(id, schema, value);
		case "string":
			return textControl(id, schema, value, more);
		default:
			return jsonControl(id, schema, value);
	}
}

function placeholder(schema, isRequired) {
	if (schema.format === "date-time") return "such as 2026-12-24T18:00:00Z";
	return isRequired && typeof schema.examples?.[0] === "string" ? `such as ${schema.examples[0]}` : "";
}

export class Form {
	#fields = new Map();

	/**
	 * `first` are the names of fields to show, in this order; others are behind a word, except those in `skip`. `values` are what is there now;
	 * `given` are controls of the caller's for some fields; `labels`, `suggestions`, `hints` go by name.
	 */
	constructor(schema, { first, skip = [], values = {}, given = {}, labels = {}, suggestions = {}, hints = {} } = {}) {
		this.isEdit = Object.keys(values).length > 1;
		const names = Object.keys(schema.properties).filter((name) => !skip.includes(name));
		const shown = first ? first.filter((name) => names.includes(name)) : names;
		const rest = names.filter((name) => !shown.includes(name));
		const make = (name) => this.#field(name, plain(schema.properties[name]), {
			isRequired: (schema.required ?? []).includes(name), value: values[name], own: given[name], label: labels[name], suggestions: suggestions[name], hint: hints[name],
		});
		this.element = h("div.fields", shown.map(make),
			rest.length ? h("details.more.field", h("summary", "More settings"), h("div.fields", rest.map(make))) : null);
	}

	#field(name, schema, { isRequired, value, own, label, suggestions, hint }) {
		const id = unique("field");
		const fallback = schema.default !== null && schema.default !== undefined && typeof schema.default !== "object" && schema.default !== "" ? `default ${schema.default}` : "";
		const made = own?.(id) ?? control(id, schema, value, { isRequired, suggestions, placeholder: placeholder(schema, isRequired) });
		const error = h("p", { class: "error", id: `${id}-error` });
		const told = [hint ?? (schema.properties ? "" : schema.description), !own && limits(schema), fallback].filter(Boolean).join(" · ");
		const about = told ? h("p", { class: "hint", id: `${id}-hint` }, told) : null;
		made.input.setAttribute("aria-describedby", `${about ? about.id : ""} ${error.id}`.trim());
		if (isRequired) made.input.setAttribute("aria-required", "true");
		this.#fields.set(name, { ...made, error });
		const text = [label ?? phrase(name), !isRequired && !own && !this.isEdit && h("span.quiet", " (optional)")];
		const element = h("div", { class: kind(schema) === "integer" && !kinds(schema).includes("string") ? "field half" : "field", role: made.isGroup ? "group" : null, "aria-labelledby": made.isGroup ? `${id}-label` : null },
			made.isGroup ? h("span", { class: "label", id: `${id}-label` }, text) : h("label", { for: id }, text), made.element, about, error);
		element.addEventListener("input", () => this.#tell(name, ""));
		return element;
	}

	#tell(name, message) {
		const { error, input, element } = this.#fields.get(name);
		say(error, message);
		if (message) input.setAttribute("aria-invalid", "true");
		else input.removeAttribute("aria-invalid");
		// What is wrong must not be hidden.
		if (message) [element].flat()[0].closest("details")?.setAttribute("open", "");
	}

	control(name) {
		return this.#fields.get(name);
	}

	/** Is all of it within the limits? What is not is said beside its field. */
	isRight() {
		let right = true;
		for (const [name, field] of this.#fields) {
			const found = field.problem();
			this.#tell(name, found);
			if (found) right = false;
		}
		return right;
	}

	/** The body, without what was left empty. */
	read() {
		const found = [...this.#fields].map(([name, field]) => [name, field.read()]).filter(([, value]) => value !== undefined);
		return Object.fromEntries(found);
	}

	explainField(path, message) {
		const [name, ...rest] = path.split(".");
		const field = this.#fields.get(name);
		if (!field) return false;
		if (!(rest.length && field.explain?.(rest.join("."), message))) this.#tell(name, message);
		return true;
	}

	/** Put what the service found wrong beside the fields. False when something of it has no field here. */
	explain(error) {
		if (!(error instanceof Refusal) || !error.fields.size) return false;
		return [...error.fields].map(([path, message]) => this.explainField(path, message)).every(Boolean);
	}

	/** Check before sending: an error that `explain` knows already. */
	require() {
		if (!this.isRight()) throw new Incomplete();
	}
}

/** Something in a form is wrong, and it is said there. */
export class Incomplete extends Error {}
