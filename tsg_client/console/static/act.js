// What a person can have done: forms and dialogs for groups and templates.

import { get, Refusal, request, write } from "./api.js";
import { h, put } from "./dom.js";
import { ago, plural, short } from "./format.js";
import { Form, Incomplete } from "./form.js";
import { dialog, table, toast } from "./ui.js";
import { phrase } from "./words.js";

const FIRST_OF_GROUPS = ["group_name", "template_id", "capacity"];
const FIRST_OF_TEMPLATES = ["template_name", "package", "image_id", "networks", "tags", "firewall_enabled"];

/** A dialog around a form: what is wrong is said beside the fields. */
function formDialog(form, { send, before = [], after = [], ...more }) {
	return dialog({
		...more,
		body: [before, form.element, after],
		submit: async () => {
			form.require();
			await send(form.read());
		},
		explain: (error) => error instanceof Incomplete || form.explain(error),
	});
}

/** A choice among templates, the newest first. */
export const templateChoice = (templates, value) => (id) => {
	const input = h("select", { id }, h("option", { value: "" }, templates.length ? "Choose a template" : "There is no template yet"),
		[...templates].reverse().map((one) => h("option", { value: one.id }, `${one.template_name} (${short(one.id)})`)));
	input.value = value ?? "";
	return { element: input, input, read: () => input.value || undefined, problem: () => (input.value ? "" : "Choose a template.") };
};

export function groupForm(offer, templates, made) {
	const schema = offer.body("POST", "groups");
	// Without a capacity it would be 0, which nobody means here.
	const form = new Form({ ...schema, required: [...schema.required, "capacity"] }, {
		first: FIRST_OF_GROUPS,
		given: { template_id: templateChoice(templates, templates.at(-1)?.id) },
		labels: { group_name: "Name", template_id: "Template" },
		hints: { group_name: "Letters, digits, '_', '.' and '-'. It stays as it is", template_id: templates.length ? "What instances are made from" : "Make a template first, on the page Templates" },
		values: { capacity: 1 },
	});
	formDialog(form, {
		title: "New group",
		action: "Create group",
		send: async (body) => {
			const { body: group } = await write("POST", "groups", { body });
			toast(`${group.group_name} is created.`);
			made(group);
		},
	});
}

export function templateForm(offer, templates, made, from) {
	const seen = (name) => [...new Set(templates.map((one) => one[name]))].map((value) => [value, templates.findLast((one) => one[name] === value).template_name]);
	const verifies = offer.has("POST", "templates", "verify");
	const check = h("input", { type: "checkbox", checked: verifies });
	const form = new Form(offer.body("POST", "templates"), {
		first: FIRST_OF_TEMPLATES,
		labels: { template_name: "Name", image_id: "Image", user_script: "User script", userdata: "User data", cloud_config: "cloud-init" },
		suggestions: { package: seen("package"), image_id: seen("image_id") },
		values: from ? { ...from, template_name: "" } : {},
	});
	formDialog(form, {
		title: from ? `New template like ${from.template_name}` : "New template",
		action: "Create template",
		wide: true,
		before: [h("p.quiet", "A template never changes: to change what instances are made from, give the group another one.")],
		after: verifies ? [h("label.check", check, "Ask CloudAPI first whether it could make an instance from it")] : [],
		send: async (body) => {
			const { body: template } = await write("POST", check.checked ? "templates?verify=true" : "templates", { body });
			toast(`${template.template_name} is created.`);
			made(template);
		},
	});
}

/** A body that changes a group: its name, and what 2018's contract wants with every change. */
export const changeOf = (group, changes) => ({ group_name: group.group_name, template_id: group.template_id, capacity: group.capacity, ...changes });

/** Who changed a group since it was read, in words. */
async function meanwhile(group, etag) {
	const { body } = await get(`groups/${group.id}/activities?limit=50`);
	const since = Date.parse(group.updated_at);
	const changes = body.filter((one) => Date.parse(one.ended_at) > since && /^TSG_(GROUP_(UPDATE|CREATE)|CAPACITY_CHANGE)|POLICY|ROLLOUT/.test(one.kind));
	return { etag, words: changes.slice(0, 3).map((one) => `${one.actor}, ${ago(one.ended_at)}: ${one.description}`) };
}

/**
 * A dialog that changes a group. What the change would do is shown before it can be sent; it is sent for the group as it was read, and when
 * somebody else changed it meanwhile that is said, and may be overridden by a second press.
 * `change()` gives [method, path below the group, body], or null while there is nothing to send.
 */
export function changeDialog(offer, live, { change, body, form, done, ...more }) {
	const group = live.group;
	let etag = live.etag;
	let planned = null;
	let asked = 0;
	let made;
	const plan = h("div", { class: "plan", "aria-live": "polite" });
	const clash = h("div");
	const route = (path) => `groups/{group_id}${path.replace(/\/[0-9a-f-]{36}/g, "/{}")}`.replace(/\?.*$/, "");

	async function preview() {
		const turn = (asked += 1);
		const wanted = change();
		made.go.disabled = true;
		if (!wanted) {
			put(plan);
			return;
		}
		const [method, path, sent] = wanted;
		if (!offer.has(method, route(path), "dry_run")) {
			put(plan, h("p.quiet", more.estimate?.() ?? ""));
			made.go.disabled = false;
			return;
		}
		put(plan, h("p.quiet", "Planning …"));
		try {
			const { body: found } = await request(method, `groups/${group.id}${path}${path.includes("?") ? "&" : "?"}dry_run=true`, { body: sent });
			if (turn !== asked) return;
			planned = found;
			form?.isRight();
			put(plan, planView(found, live.templates));
			made.go.disabled = false;
		} catch (error) {
			if (turn !== asked) return;
			if (form?.explain(error)) put(plan);
			else put(plan, h("p.error", error.message));
		}
	}

	async function send() {
		form?.require();
		const [method, path, sent] = change();
		try {
			await write(method, `groups/${group.id}${path}`, { body: sent, etag: planned?.etag ?? etag ?? undefined });
		} catch (error) {
			if (!(error instanceof Refusal) || error.status !== 412) throw error;
			const now = await get(`groups/${group.id}`);
			const { words } = await meanwhile(group, now.etag);
			etag = now.etag;
			planned = null;
			put(clash, h("div", { class: "note", role: "alert" }, h("b", "The group was changed meanwhile."), words.map((text) => h("p", text)),
				h("p", `It has a capacity of ${now.body.capacity} now. Press again to make your change all the same.`)));
			live.renew();
			Object.assign(group, { updated_at: now.body.updated_at });
			await preview();
			throw new Incomplete();
		}
		done?.();
		live.renew();
	}

	let timer = 0;
	dialog({
		...more,
		body: [body, clash, plan],
		submit: send,
		explain: (error) => error instanceof Incomplete || Boolean(form?.explain(error)),
		opened: (opened) => {
			made = opened;
			opened.element.addEventListener("input", () => {
				made.go.disabled = true;
				clearTimeout(timer);
				timer = setTimeout(preview, 250);
			});
			preview();
		},
	});
}

const ACTIONS = { launch: "launched", terminate: "deleted", drain: "drained, then deleted", replace: "replaced", update: "changed in place", take_back: "taken back from its drain" };

/** What a plan would do, in words. */
export function planView(plan, templates) {
	const piles = new Map();
	for (const one of plan.changes ?? []) {
		const pile = piles.get(one.action) ?? { number: 0, members: [], templates: new Set() };
		pile.number += one.count ?? 1;
		if (one.machine_id) pile.members.push(one);
		if (one.template_id) pile.templates.add(one.template_id);
		piles.set(one.action, pile);
	}
	const name = (id) => templates?.get(id)?.template_name ?? short(id);
	const lines = [...piles].map(([action, { number, members, templates: from }]) => {
		const words = `${plural(number, "instance")} ${number === 1 ? "is" : "are"} ${ACTIONS[action] ?? phrase(action).toLowerCase()}${from.size ? ` from ${[...from].map(name).join(", ")}` : ""}`;
		const list = members.slice(0, 200).map((one) => h("li", h("span.mono", short(one.machine_id)), " ", h("span.quiet", one.why ?? "")));
		return h("li", { class: `does ${action}` }, members.length ? h("details", h("summary", words), h("ul.small", list)) : words);
	});
	const waves = plan.waves ?? [];
	return h("div.planned", h("h3", "What this does"),
		lines.length ? h("ul", lines) : h("p.quiet", "Nothing is launched, deleted or changed now."),
		waves.length > 1 && h("ol.waves", waves.map((wave) => h("li", waveWords(wave)))),
		(plan.warnings ?? []).map((text) => h("p.note", text)));
}

function waveWords(wave) {
	const done = [["launch", "launched"], ["update", "changed in place"], ["drain", "drained"], ["terminate", "deleted"]]
		.map(([name, words]) => [Array.isArray(wave[name]) ? wave[name].length : wave[name], words])
		.filter(([number]) => number).map(([number, words]) => `${number} ${words}`);
	const rest = wave.pause_seconds === null ? ", then a pause until you resume it" : wave.pause_seconds ? `, then ${wave.pause_seconds} s of pause` : "";
	return `${done.join(", ") || "Nothing"}${rest}`;
}

const grown = (from, to) =>
	to > from ? `${plural(to - from, "more instance")} will be launched.` : to < from ? `${plural(from - to, "instance")} will be deleted.` : "Nothing changes.";

export function scaleDialog(offer, live, capacity) {
	const { group } = live;
	const schema = offer.body("PUT", "groups/{group_id}");
	const form = new Form({ ...schema, required: [...schema.required, "capacity"] }, { first: ["capacity"], skip: Object.keys(schema.properties).filter((name) => name !== "capacity"), values: { capacity } });
	changeDialog(offer, live, {
		title: `Scale ${group.group_name}`,
		action: "Scale",
		body: form.element,
		form,
		change: () => (form.isRight() && form.read().capacity !== live.group.capacity ? ["PUT", "", changeOf(live.group, form.read())] : null),
		estimate: () => grown(live.group.capacity, form.read().capacity),
		done: () => toast("The new capacity is stored."),
	});
}

export function templateDialog(offer, live) {
	const schema = { properties: { template_id: { type: "string" } }, required: ["template_id"] };
	const others = [...live.templates.values()].filter((one) => one.id !== live.group.template_id);
	const form = new Form(schema, { given: { template_id: templateChoice(others) }, labels: { template_id: "New template" } });
	const differs = h("div");
	changeDialog(offer, live, {
		title: `Change the template of ${live.group.group_name}`,
		action: "Change template",
		body: [form.element, differs],
		form,
		change: () => {
			const chosen = live.templates.get(form.read().template_id);
			put(differs, chosen ? difference(live.templates.get(live.group.template_id), chosen) : null);
			return chosen ? ["PUT", "", changeOf(live.group, { template_id: chosen.id })] : null;
		},
		estimate: () => "New instances are made from this template. Those that run stay as they are.",
		done: () => toast("The group has another template."),
	});
}

const told = (value) => (value === undefined || value === null || value === "" ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

/** What differs between two templates, as a table. */
export function difference(from, to) {
	if (!from || !to) return null;
	const names = [...new Set([...Object.keys(from), ...Object.keys(to)])].filter((name) => !["id", "template_name", "created_at"].includes(name) && told(from[name]) !== told(to[name]));
	if (!names.length) return h("p.quiet", "The two templates differ in their names alone.");
	return table(["Field", from.template_name, to.template_name],
		h("tbody", names.map((name) => h("tr", h("td", phrase(name)), h("td.mono", told(from[name])), h("td.mono", told(to[name]))))), "small");
}

export function settingsDialog(offer, live) {
	const schema = offer.body("PUT", "groups/{group_id}");
	const skip = FIRST_OF_GROUPS;
	const form = new Form(schema, { skip, values: live.group });
	changeDialog(offer, live, {
		title: `Settings of ${live.group.group_name}`,
		action: "Save settings",
		wide: true,
		body: form.element,
		form,
		change: () => {
			if (!form.isRight()) return null;
			const changes = Object.entries(form.read()).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(live.group[name]));
			return changes.length ? ["PUT", "", changeOf(live.group, Object.fromEntries(changes))] : null;
		},
		estimate: () => "",
		done: () => toast("The settings are stored."),
	});
}

/** Make a machine that runs already a member. */
export function adoptDialog(offer, live) {
	const { group } = live;
	const form = new Form(offer.body("POST", "groups/{}/members"), { labels: { machine_id: "Machine" }, hints: { machine_id: "The UUID of a running machine of your account that is in no group" } });
	formDialog(form, {
		title: `Adopt a machine into ${group.group_name}`,
		action: "Adopt",
		before: [h("p.quiet", "It gets the group's tags, and is looked after, and replaced, as the others are. The capacity grows by one, unless the group is short of an instance.")],
		send: async (body) => {
			const { body: member } = await write("POST", `groups/${group.id}/members`, { body });
			toast(`${member.name ?? short(member.machine_id)} is a member now.`);
			live.renew();
		},
	});
}

export function deleteDialog(offer, live) {
	const { group } = live;
	const name = h("input", { id: "its-name", autocomplete: "off", spellcheck: "false" });
	changeDialog(offer, live, {
		title: `Delete ${group.group_name}`,
		action: "Delete group",
		tone: "danger",
		body: [h("p", "The group goes, and all its instances with it. This cannot be taken back."),
			h("div.field", h("label", { for: "its-name" }, `Write its name, ${group.group_name}, to go on`), name)],
		change: () => (name.value.trim() === group.group_name ? ["DELETE", "", undefined] : null),
		estimate: () => `${plural(live.status.running + live.status.provisioning, "instance")} will be deleted.`,
		done: () => {
			toast(`${group.group_name} is deleted; its instances go in the background.`);
			location.hash = "#/groups";
		},
	});
}
