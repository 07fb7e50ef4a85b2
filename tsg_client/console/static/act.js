// What a person can have done: forms and dialogs for groups and templates.

import { about, bodyOf, get, request, write } from "./api.js";
import { h, put } from "./dom.js";
import { ago, nameOf, plural, short } from "./format.js";
import { Form } from "./form.js";
import { dialog, table, toast } from "./ui.js";
import { isChange, phrase } from "./words.js";

const ONE = "groups/{}";
const FIRST_OF_GROUPS = ["group_name", "template_id", "capacity"];
const FIRST_OF_TEMPLATES = ["template_name", "package", "image_id", "networks", "tags", "firewall_enabled"];
const SUSPENSION = ["suspended", "suspend_reason", "suspended_until"];

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const told = (value) => (value === undefined || value === null || value === "" ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

/** A dialog that makes something: what its form reads is sent to `path`. */
export const makeDialog = ({ path, body = (read) => read, content, done, ...more }) =>
	dialog({ ...more, body: content, submit: async (read) => done((await write("POST", path, { body: body(read) })).body) });

/** A choice among templates, the newest first. */
export const templateChoice = (templates, value) => (id) => {
	const input = h("select", { id, required: true }, h("option", { value: "" }, templates.length ? "Choose a template" : "There is no template yet"),
		[...templates].reverse().map((one) => h("option", { value: one.id }, `${one.template_name} (${short(one.id)})`)));
	input.value = value ?? "";
	return { element: input, input, read: () => input.value || undefined, problem: () => input.validationMessage };
};

export function groupForm(templates, made) {
	const schema = bodyOf("POST", "groups");
	// Without a capacity it would be 0, which nobody means here.
	const form = new Form({ ...schema, required: [...schema.required, "capacity"] }, {
		first: FIRST_OF_GROUPS,
		given: { template_id: templateChoice(templates, templates.at(-1)?.id) },
		labels: { group_name: "Name", template_id: "Template" },
		hints: { group_name: "Letters, digits, '_', '.' and '-'. It stays as it is", template_id: templates.length ? "What instances are made from" : "Make a template first, on the page Templates" },
		values: { capacity: 1 },
	});
	makeDialog({ title: "New group", action: "Create group", form, path: "groups", done: made });
}

export function templateForm(templates, made, from) {
	const seen = (name) => [...new Set(templates.map((one) => one[name]))].map((value) => [value, templates.findLast((one) => one[name] === value).template_name]);
	const check = h("input", { type: "checkbox", checked: true });
	const form = new Form(bodyOf("POST", "templates"), {
		first: FIRST_OF_TEMPLATES,
		labels: { template_name: "Name", image_id: "Image", user_script: "User script", userdata: "User data", cloud_config: "cloud-init" },
		suggestions: { package: seen("package"), image_id: seen("image_id") },
		values: from ? { ...from, template_name: "" } : {},
	});
	dialog({
		title: from ? `New template like ${from.template_name}` : "New template",
		action: "Create template",
		wide: true,
		form,
		body: [h("p.quiet", "A template never changes: to change what instances are made from, give the group another one."), form.element,
			h("label.check", check, "Ask CloudAPI first whether it could make an instance from it")],
		submit: async (body) => {
			const { body: template } = await write("POST", check.checked ? "templates?verify=true" : "templates", { body });
			toast(`${template.template_name} is created.`);
			made(template);
		},
	});
}

/** A body that changes a group: its name, and what 2018's contract wants with every change. */
const changeOf = (group, changes) => ({ group_name: group.group_name, template_id: group.template_id, capacity: group.capacity, ...changes });

/** What somebody else changed while a dialog was open. */
const clashNote = (what, lines, next) => h("div.note", { role: "alert" }, h("b", `${what} was changed meanwhile.`), lines.map((text) => h("p", text)), h("p", `${next} Press again to make your change all the same.`));

/** Who changed a group since it was read, and what, in words. */
async function meanwhile(group) {
	const { body } = await get(`groups/${group.id}/activities?limit=50`);
	const since = Date.parse(group.updated_at);
	return body.filter((one) => Date.parse(one.ended_at) > since && isChange(one.kind) && !/POLICY_[CUD]/.test(one.kind)).slice(0, 3).map((one) => `${one.actor}, ${ago(one.ended_at)}: ${one.description}`);
}

/**
 * A dialog that changes `thing`, as it was read at `path`, by its form. When somebody else changed it meanwhile, it says who and what, takes
 * that over where nothing was changed here, and is sent by a second press. `aside` is what a change may be that no field shows,
 * and `log` where activities have the request.
 */
export function editDialog({ path, thing, etag, what, aside, log, form, content = form.element, body = (read) => read, done, ...more }) {
	const clash = h("div");
	let before = form.read();
	dialog({
		...more,
		form,
		body: [clash, content],
		submit: async (read) => {
			try {
				return done((await write("PUT", path, { body: body(read), etag })).body);
			} catch (error) {
				if (error.status !== 412) throw error;
			}
			const { body: now, etag: newest } = await get(path);
			const lines = Object.keys(form.schema.properties).filter((name) => !same(thing[name], now[name])).map((name) => `${phrase(name)}: ${told(thing[name])} → ${told(now[name])}`);
			const who = now.disabled_why && !thing.disabled_why ? "The service" : about.account;
			// Both were written at the same moment.
			const by = log && (await get(log)).body.find((one) => one.ended_at === now.updated_at)?.request_id;
			put(clash, clashNote(what, [`${who}, ${ago(now.updated_at)}: ${lines.join("; ") || aside}${by ? `, request ${by}` : ""}`], "What you have not changed here is as it is now."));
			const own = Object.entries(read).filter(([name, value]) => !same(value, before[name]));
			form.make(form.schema, { ...form.options, values: now });
			before = form.read();
			form.make(form.schema, { ...form.options, values: { ...now, ...Object.fromEntries(own) } });
			thing = now;
			etag = newest;
			return false;
		},
	});
}

/**
 * A dialog that changes a group. What the change would do is shown before it can be sent, for the group as it was read; when somebody else
 * changed it meanwhile that is said, and may be overridden by a second press. `change()` gives [method, path below the group, body], or null.
 */
export function changeDialog(live, { change, body, form, done, ...more }) {
	const { group } = live;
	let { etag } = live;
	let planned = null;
	let asked = 0;
	let made;
	const plan = h("div.plan", { "aria-live": "polite" });
	const clash = h("div");

	async function preview() {
		const turn = (asked += 1);
		const wanted = change();
		made.go.disabled = true;
		if (!wanted) {
			put(plan);
			return;
		}
		const [method, path, sent] = wanted;
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
			put(plan, !form?.explain(error) && h("p.error", error.message));
		}
	}

	async function submit() {
		const [method, path, sent] = change();
		try {
			await write(method, `groups/${group.id}${path}`, { body: sent, etag: planned?.etag ?? etag ?? undefined });
		} catch (error) {
			if (error.status !== 412) throw error;
			const now = await get(`groups/${group.id}`);
			put(clash, clashNote("The group", await meanwhile(group), `It has a capacity of ${now.body.capacity} now.`));
			({ etag } = now);
			planned = null;
			live.renew();
			group.updated_at = now.body.updated_at;
			await preview();
			return false;
		}
		done?.();
		live.renew();
		return true;
	}

	let timer = 0;
	dialog({
		...more,
		form,
		body: [body ?? form.element, clash, plan],
		submit,
		opened: (opened) => {
			made = opened;
			opened.element.addEventListener("input", () => {
				asked += 1;
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
function planView(plan, templates) {
	const piles = new Map();
	for (const one of plan.changes) {
		const pile = piles.get(one.action) ?? { number: 0, members: [], templates: new Set() };
		pile.number += one.count ?? 1;
		if (one.machine_id) pile.members.push(one);
		if (one.template_id) pile.templates.add(one.template_id);
		piles.set(one.action, pile);
	}
	const name = (id) => nameOf(templates, id);
	const lines = [...piles].map(([action, { number, members, templates: from }]) => {
		const words = `${plural(number, "instance")} ${number === 1 ? "is" : "are"} ${ACTIONS[action] ?? phrase(action).toLowerCase()}${from.size ? ` from ${[...from].map(name).join(", ")}` : ""}`;
		const list = members.slice(0, 200).map((one) => h("li", h("span.mono", short(one.machine_id)), " ", h("span.quiet", one.why)));
		return h(`li.does.${action}`, members.length ? h("details", h("summary", words), h("ul.small", list)) : words);
	});
	return h("div.planned", h("h3", "What this does"),
		lines.length ? h("ul", lines) : h("p.quiet", "Nothing is launched, deleted or changed now."),
		plan.waves.length > 1 && h("ol.waves", plan.waves.map((wave) => h("li", waveWords(wave)))),
		plan.warnings.map((text) => h("p.note", text)));
}

function waveWords({ launch, update, drain, terminate, pause_seconds: pause }) {
	const done = [[launch, "launched"], [update.length, "changed in place"], [drain.length, "drained"], [terminate.length, "deleted"]];
	const rest = pause === null ? ", then a pause until you resume it" : pause ? `, then ${pause} s of pause` : "";
	return `${done.filter(([number]) => number).map((words) => words.join(" ")).join(", ") || "Nothing"}${rest}`;
}

/** A dialog for some of a group's fields: those that are changed in it are sent. */
function fieldsDialog(live, only, { options, before, said, ...more }) {
	const schema = bodyOf("PUT", ONE);
	const form = new Form({ ...schema, required: [...schema.required, "capacity"] }, { only, values: live.group, ...options });
	const first = before ?? form.read();
	changeDialog(live, {
		...more,
		form,
		change: () => {
			if (!form.isRight()) return null;
			const read = form.read();
			const emptied = Object.keys(first).filter((name) => !(name in read) && schema.properties[name].type?.includes("null")).map((name) => [name, null]);
			const changes = [...Object.entries(read).filter(([name, value]) => !same(value, first[name])), ...emptied];
			return changes.length ? ["PUT", "", changeOf(live.group, Object.fromEntries(changes))] : null;
		},
		done: () => toast(said),
	});
}

export function scaleDialog(live, capacity) {
	const from = live.group.capacity;
	fieldsDialog(live, ["capacity"], { title: `Scale ${live.group.group_name}`, action: "Scale", options: { values: { capacity } }, before: { capacity: from }, said: "The new capacity is stored." });
}

export const settingsDialog = (live) => fieldsDialog(live, Object.keys(bodyOf("PUT", ONE).properties).filter((name) => ![...FIRST_OF_GROUPS, ...SUSPENSION].includes(name)),
	{ title: `Settings of ${live.group.group_name}`, action: "Save settings", wide: true, said: "The settings are stored." });

export const suspendDialog = (live) => fieldsDialog(live, SUSPENSION, {
	title: `Suspend ${live.group.group_name}`, action: "Suspend", said: "The suspension is stored.",
	options: { labels: { suspended: "What", suspend_reason: "Reason", suspended_until: "Until" } },
});

export const endSuspension = (live) => changeDialog(live, {
	title: `Go on with ${live.group.group_name}`, action: "End suspension", body: h("p", "The service does again all that the group needs."),
	change: () => ["PUT", "", changeOf(live.group, { suspended: [], suspend_reason: null, suspended_until: null })],
	done: () => toast("The suspension is over."),
});

export function templateDialog(live) {
	const schema = { properties: { template_id: { type: "string" } }, required: ["template_id"] };
	const others = [...live.templates.values()].filter((one) => one.id !== live.group.template_id);
	const form = new Form(schema, { given: { template_id: templateChoice(others) }, labels: { template_id: "New template" } });
	const differs = h("div");
	changeDialog(live, {
		title: `Change the template of ${live.group.group_name}`,
		action: "Change template",
		body: [form.element, differs],
		form,
		change: () => {
			const chosen = live.templates.get(form.read().template_id);
			put(differs, chosen ? difference(live.templates.get(live.group.template_id), chosen) : null);
			return chosen ? ["PUT", "", changeOf(live.group, { template_id: chosen.id })] : null;
		},
		done: () => toast("The group has another template."),
	});
}

/** What differs between two templates, as a table. */
export function difference(from, to) {
	if (!from || !to) return null;
	const names = [...new Set([...Object.keys(from), ...Object.keys(to)])].filter((name) => !["id", "template_name", "created_at"].includes(name) && told(from[name]) !== told(to[name]));
	if (!names.length) return h("p.quiet", "The two templates differ in their names alone.");
	return table(["Field", from.template_name, to.template_name],
		h("tbody", names.map((name) => h("tr", h("td", phrase(name)), h("td.mono", told(from[name])), h("td.mono", told(to[name]))))), "small");
}

/** Make a machine that runs already a member. */
export function adoptDialog(live) {
	const { group } = live;
	const form = new Form(bodyOf("POST", "groups/{}/members"), { labels: { machine_id: "Machine" }, hints: { machine_id: "The UUID of a running machine of your account that is in no group" } });
	makeDialog({
		title: `Adopt a machine into ${group.group_name}`,
		action: "Adopt",
		form,
		path: `groups/${group.id}/members`,
		content: [h("p.quiet", "It gets the group's tags, and is looked after, and replaced, as the others are. The capacity grows by one, unless the group is short of an instance."), form.element],
		done: (member) => {
			toast(`${member.name ?? short(member.machine_id)} is a member now.`);
			live.renew();
		},
	});
}

export function deleteDialog(live) {
	const { group } = live;
	const name = h("input", { id: "its-name" });
	changeDialog(live, {
		title: `Delete ${group.group_name}`,
		action: "Delete group",
		tone: "danger",
		body: [h("p", "The group goes, and all its instances with it. This cannot be taken back."),
			h("div.field", h("label", { for: "its-name" }, `Write its name, ${group.group_name}, to go on`), name)],
		change: () => (name.value.trim() === group.group_name ? ["DELETE", "", undefined] : null),
		done: () => {
			toast(`${group.group_name} is deleted; its instances go in the background.`);
			location.hash = "#/groups";
		},
	});
}
