// Forms made from the schemas of request bodies: their fields, limits and words are the service's own.

import { h, put, say, unique } from "./dom.js";
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

/** What the limits of a schema say in words. */
function limits({ minimum, maximum, maxLength, format }) {
	const told = [];
	if (maximum < HUGE) told.push(minimum > -HUGE ? `${minimum} to ${maximum}` : `at most ${maximum}`);
	if (format === "uuid") told.push("a UUID");
	else if (format === "date-time") told.push(`in the time of ${Intl.DateTimeFormat().resolvedOptions().timeZone}`);
	else if (maxLength && maxLength < LONG) told.push(`up to ${maxLength} characters`);
	return told.join(", ");
}

// Each makes {element, input, read, problem}: `read` gives undefined for what was left empty.

const whole = (input, read, problem = () => input.validationMessage) => ({ element: input, input, read, problem });

/** What is wrong with JSON. */
const reads = (read) => () => {
	try {
		read();
		return "";
	} catch (error) {
		return error.message;
	}
};

function textControl(id, schema, value, { isRequired, suggestions, placeholder }) {
	const isLong = schema.maxLength > 4 * LONG || schema.pattern === "^[^\\u0000]*$";
	const list = suggestions?.length ? h("datalist", { id: unique("list") }, suggestions.map(([text, label]) => h("option", { value: text }, label))) : null;
	const input = h(isLong ? "textarea" : "input", { id, value: value ?? "", placeholder, list: list?.id, rows: isLong ? 3 : null, required: isRequired });
	return { ...whole(input, () => (isLong ? input.value : input.value.trim()) || undefined), element: [input, list] };
}

function numberControl(id, schema, value, { isRequired, placeholder }) {
	const { minimum: min, maximum: max } = schema;
	const input = h("input", { id, type: "number", inputmode: "decimal", min, max, step: kind(schema) === "integer" ? 1 : "any", value: value ?? "", placeholder, required: isRequired });
	return whole(input, () => (input.value === "" ? undefined : Number(input.value)));
}

/** A number, or a share such as 25%. */
function shareControl(id, schema, value, more) {
	const { read, ...made } = textControl(id, schema, value, { ...more, placeholder: "a number, or a share such as 25%" });
	return { ...made, read: () => (/^-?\d+$/.test(read()) ? Number(read()) : read()) };
}

function choiceControl(id, options, value, { isRequired, whenEmpty }) {
	const input = h("select", { id, required: isRequired }, (!isRequired || value === undefined) && h("option", { value: "" }, whenEmpty ?? "–"),
		options.map(([word, label]) => h("option", { value: JSON.stringify(word) }, label)));
	input.value = value === undefined || value === null ? "" : JSON.stringify(value);
	return whole(input, () => (input.value ? JSON.parse(input.value) : undefined));
}

/** A moment, in the time zone of the browser. */
function momentControl(id, value, { isRequired }) {
	const local = (text) => new Date(Date.parse(text) - new Date(text).getTimezoneOffset() * 60000).toISOString().slice(0, 16);
	const begin = value ? local(value) : "";
	const input = h("input", { id, type: "datetime-local", value: begin, required: isRequired });
	const read = () => (input.value === begin ? value ?? undefined : input.value ? new Date(input.value).toISOString() : undefined);
	return whole(input, read);
}

function linesControl(id, schema, value) {
	const item = schema.items ?? {};
	const input = h("textarea", { id, rows: 2, placeholder: "one on each line",
		value: (value ?? []).map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join("\n") });
	const lines = () => input.value.split("\n").map((line) => line.trim()).filter(Boolean);
	const one = (line) => (/^[{[]/.test(line) ? JSON.parse(line) : ["integer", "number"].includes(kind(item)) ? Number(line) : line);
	const read = () => (lines().length ? lines().map(one) : undefined);
	return whole(input, read, reads(read));
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
	return { element, input: boxes[0][1], isGroup: true, read };
}

/** Names and values. */
function pairsControl(id, schema, value) {
	const text = { type: "string" };
	const { read, ...made } = rowsControl(id, { items: { properties: { name: text, value: text } } }, value && Object.entries(value).map(([name, one]) => ({ name, value: one })), { label: "Add a pair" });
	return { ...made, read: () => {
		const pairs = read()?.filter(({ name }) => name).map(({ name, value: one }) => [name, one ?? ""]);
		return pairs?.length ? Object.fromEntries(pairs) : undefined;
	} };
}

function jsonControl(id, schema, value) {
	const input = h("textarea", { id, placeholder: "JSON", value: value === undefined || value === null ? "" : JSON.stringify(value, null, 1) });
	const read = () => (input.value.trim() ? JSON.parse(input.value) : undefined);
	return whole(input, read, reads(read));
}

/** Objects, each a row of a few fields of one value. */
export function rowsControl(id, schema, value, { isRequired, label = "Add a row" } = {}) {
	const { properties, required = [] } = schema.items;
	const rows = h("div.pairs");
	const add = (given) => {
		const parts = Object.entries(properties).map(([name, one]) => [name, control(unique("cell"), plain(one), given?.[name], { isRequired: required.includes(name) })]);
		const row = h("div.pair", parts.map(([name, part]) => h("label", phrase(name), part.element)), iconButton("Remove", "close", { onclick: () => {
			row.remove();
			input.focus();
		} }));
		row.parts = parts;
		rows.append(row);
		return row;
	};
	const input = h("button.button.small", { id, onclick: () => add().querySelector("input, select").focus() }, label);
	for (const one of value ?? (isRequired ? [null] : [])) add(one);
	const read = () => [...rows.children].map((row) => Object.fromEntries(row.parts.map(([name, part]) => [name, part.read()]).filter(([, found]) => found !== undefined)));
	const problem = () => [...rows.children].flatMap((row) => row.parts.map(([name, part]) => part.problem?.() && `${phrase(name)}: ${part.problem()}`)).find(Boolean) ?? "";
	return { element: h("div.pairs", rows, h("div", input)), input, isGroup: true, read: () => (rows.children.length ? read() : undefined), problem };
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

/** The control that a schema asks for. */
function control(id, schema, value, more) {
	if (words(schema).length) return choiceControl(id, words(schema).map((word) => [word, phrase(word)]), value ?? schema.default ?? undefined, more);
	if (kinds(schema).includes("integer") && kinds(schema).includes("string")) return shareControl(id, schema, value, more);
	switch (schema.anyOf || schema.oneOf ? "any" : kind(schema)) {
		case "boolean":
			return choiceControl(id, [[true, "Yes"], [false, "No"]], value ?? undefined, { ...more, whenEmpty: { true: "Default: yes", false: "Default: no" }[schema.default] });
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
			return schema.format === "date-time" ? momentControl(id, value, more) : textControl(id, schema, value, more);
		default:
			return jsonControl(id, schema, value);
	}
}

export class Form {
	#fields = new Map();
	element = h("div.fields");

	/**
	 * `only` are the names of its fields, if not all; `first` are those to show, in this order: others are behind a word. `values` are what is
	 * there now; `given` are controls of the caller's; `labels`, `suggestions`, `hints` go by name.
	 */
	constructor(schema, options = {}) {
		this.make(schema, options);
	}

	/** Make all fields anew: by another schema, or with other values. */
	make(schema, options) {
		const { only, first, values = {}, given = {}, labels = {}, suggestions = {}, hints = {} } = options;
		Object.assign(this, { schema, options, isEdit: Object.keys(values).length > 1 });
		this.#fields.clear();
		const names = only ?? Object.keys(schema.properties);
		const shown = first?.filter((name) => names.includes(name)) ?? names;
		const rest = names.filter((name) => !shown.includes(name));
		const make = (name) => this.#field(name, plain(schema.properties[name]), {
			isRequired: (schema.required ?? []).includes(name), value: values[name], own: given[name], label: labels[name], suggestions: suggestions[name], hint: hints[name],
		});
		put(this.element, shown.map(make), rest.length > 0 && h("details.more.field", h("summary", "More settings"), h("div.fields", rest.map(make))));
	}

	#field(name, schema, { isRequired, value, own, label, suggestions, hint }) {
		const id = unique("field");
		const fallback = value === undefined && ["number", "string"].includes(typeof schema.default) && schema.default !== "" && `default ${schema.default}`;
		const made = own?.(id) ?? control(id, schema, value, { isRequired, suggestions, placeholder: isRequired && typeof schema.examples?.[0] === "string" ? `such as ${schema.examples[0]}` : "" });
		const error = h("p.error", { id: `${id}-error` });
		const told = [hint ?? (schema.properties ? "" : schema.description), !own && limits(schema), fallback].filter(Boolean).join(" · ");
		const about = told ? h("p.hint", { id: `${id}-hint` }, told) : null;
		made.input.setAttribute("aria-describedby", `${about ? about.id : ""} ${error.id}`.trim());
		this.#fields.set(name, { ...made, error });
		const text = [label ?? phrase(name), !isRequired && !own && !this.isEdit && h("span.quiet", " (optional)")];
		const element = h("div", { class: kind(schema) === "integer" && !kinds(schema).includes("string") ? "field half" : "field", role: made.isGroup ? "group" : null, "aria-labelledby": made.isGroup ? `${id}-label` : null },
			made.isGroup ? h("span.label", { id: `${id}-label` }, text) : h("label", { for: id }, text), made.element, about, error);
		element.addEventListener("input", () => this.#tell(name, ""));
		return element;
	}

	#tell(name, message) {
		const { error, input, element } = this.#fields.get(name);
		say(error, message);
		input.ariaInvalid = message ? "true" : null;
		// What is wrong must not be hidden.
		if (message) [element].flat()[0].closest("details")?.setAttribute("open", "");
	}

	/** Is all of it within the limits? What is not is said beside its field. */
	isRight() {
		let right = true;
		for (const [name, field] of this.#fields) {
			const found = field.problem?.() ?? "";
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

	/** Put what the service found wrong beside the fields. False when some of it has no field here. */
	explain(error) {
		if (!(error instanceof Refusal) || !error.fields.size) return false;
		return [...error.fields].map(([path, message]) => this.explainField(path, message)).every(Boolean);
	}
}
