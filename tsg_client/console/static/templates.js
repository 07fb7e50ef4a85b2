// All templates: list, view, create, delete.

import { asked, keeper } from "./address.js";
import { all, forever, request } from "./api.js";
import { templateForm } from "./act.js";
import { h, put } from "./dom.js";
import { count, short, timeElement } from "./format.js";
import { confirm, copyable, dialog, facts, menu, problem, tablePage, toast } from "./ui.js";
import { phrase } from "./words.js";

const PAUSE = 15000;

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));
const isGiven = (value) => !(value === null || value === "" || value === false || (Array.isArray(value) && !value.length));

export async function show(root, { signal, title }) {
	title("Templates");
	const keep = keeper();
	const search = h("input", { type: "search", value: asked().get("find") ?? "", placeholder: "Filter by name", "aria-label": "Filter templates", autocomplete: "off" });
	let templates = [];
	let users = new Map();
	let isFirst = true;
	const make = (from) => templateForm(templates, () => again(), from);
	const page = tablePage(root, "Templates", { action: "New template", make, heads: ["Template", "Package", "Image", "Groups", "Created", ""], tools: h("div.search", search),
		none: ["No templates yet", "A template says what instances are made from: image, package, networks, tags."] });
	search.addEventListener("input", draw);

	function view(one) {
		keep({ template: one.id });
		dialog({ closed: () => keep({ template: "" }), title: one.template_name, wide: true, body: h("dl.facts", facts(Object.entries(one).filter(([name, value]) => name !== "template_name" && isGiven(value)).map(([name, value]) => [phrase(name),
			h("div.mono.pre", name === "id" ? copyable(value, "the template's id") : shown(value))]))) });
	}

	function remove(one) {
		confirm(`Delete ${one.template_name}`, "A template that no group uses can go. This cannot be taken back.", "Delete template", async () => {
			await request("DELETE", `templates/${one.id}`);
			toast(`${one.template_name} is deleted.`);
			again();
		});
	}

	function draw() {
		const words = search.value.trim().toLowerCase();
		keep({ find: words });
		const newest = [...templates].reverse();
		page.draw(newest, (one) => users.get(one.id) ?? 0, row, newest.filter((one) => one.template_name.toLowerCase().includes(words)));
	}

	const row = (one) => [
		h("td", h("button.link", { onclick: () => view(one) }, one.template_name), h("div.quiet.mono", one.id)),
		h("td.mono", one.package.length > 30 ? short(one.package) : one.package),
		h("td.mono", short(one.image_id)),
		h("td", users.has(one.id) ? h("a", { href: `#/groups?find=${encodeURIComponent(one.template_name)}` }, count(users.get(one.id))) : "0"),
		h("td.small", timeElement(one.created_at)),
		h("td", menu(`Actions for ${one.template_name}`, [["View", () => view(one)], ["New one like it", () => make(one)], ["Delete", () => remove(one), "bad"]])),
	];

	async function read() {
		const [found, groups] = await Promise.all([all("templates", { signal }), all("groups", { signal })]);
		templates = found;
		users = new Map();
		for (const group of groups) users.set(group.template_id, (users.get(group.template_id) ?? 0) + 1);
		draw();
		const wanted = isFirst && templates.find((one) => one.id === asked().get("template"));
		isFirst = false;
		if (wanted) view(wanted);
		return PAUSE;
	}
	const again = forever(read, signal, (error) => put(page.place, problem(error)));
}
