// All templates: list, view, create, delete.

import { asked, keeper } from "./address.js";
import { all, forever, Refusal, request } from "./api.js";
import { templateForm } from "./act.js";
import { each, h, put, renew, say } from "./dom.js";
import { count, short, timeElement } from "./format.js";
import { button, confirm, copyable, dialog, empty, listPage, menu, problem, table, toast } from "./ui.js";
import { phrase } from "./words.js";

const PAUSE = 15000;
const PAGE = 200;

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));
const isGiven = (value) => !(value === null || value === "" || value === false || (Array.isArray(value) && !value.length));

export async function show(root, { offer, signal, title }) {
	title("Templates");
	const keep = keeper();
	const search = h("input", { type: "search", value: asked().get("find") ?? "", placeholder: "Filter by name", "aria-label": "Filter templates", autocomplete: "off" });
	const body = h("tbody");
	const listed = h("div.card", table(["Template", "Package", "Image", "Groups", "Created", ""], body, "of-page"));
	let templates = [];
	let users = new Map();
	let most = PAGE;
	let again = () => {};
	let isFirst = true;
	const make = offer.has("POST", "templates") && ((from) => templateForm(offer, templates, () => again(), from));
	const { total, place, create } = listPage(root, "Templates", "New template", make, h("div.search", search));
	search.addEventListener("input", draw);
	const more = button("Show more", { onclick: () => {
		most += PAGE;
		draw();
	} });

	function view(one) {
		keep({ template: one.id });
		dialog({ closed: () => keep({ template: "" }), title: one.template_name, wide: true, body: [h("dl.facts", Object.entries(one).filter(([name, value]) => name !== "template_name" && isGiven(value)).map(([name, value]) => [
			h("dt", phrase(name)), h("dd.mono.pre", name === "id" ? copyable(value, "the template's id") : shown(value))]))] });
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
		const found = [...templates].reverse().filter((one) => one.template_name.toLowerCase().includes(words));
		say(total, count(templates.length));
		keep({ find: words });
		if (!templates.length) return put(place, empty("No templates yet", "A template says what instances are made from: image, package, networks, tags.", create()));
		if (!found.length) return put(place, empty("Nothing fits", "No template has this name."));
		if (listed.parentNode !== place) put(place, listed, more);
		more.hidden = found.length <= most;
		each(body, found.slice(0, most), (one) => one.id, (one) => h("tr",
			h("td", h("button", { type: "button", class: "link", onclick: () => view(one) }, one.template_name), h("div.quiet.mono", one.id)),
			h("td.mono", one.package.length > 30 ? short(one.package) : one.package), h("td.mono", short(one.image_id)), h("td"), h("td.small", timeElement(one.created_at)),
			h("td", menu(`Actions for ${one.template_name}`, [["View", "search", () => view(one)], make && ["New one like it", "plus", () => make(one)],
				offer.has("DELETE", "templates/{template_id}") && ["Delete", "trash", () => remove(one), "bad"]].filter(Boolean)))),
		(row, one) => renew(row.children[3], users.get(one.id) ?? 0, () => (users.has(one.id) ? h("a", { href: `#/groups?find=${encodeURIComponent(one.template_name)}` }, count(users.get(one.id))) : "0")));
	}

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
	again = () => read().catch((error) => error instanceof Refusal && put(place, problem(error)));
	forever(read, signal, (error) => put(place, problem(error)));
}
