// One group: how it is, what it waits for, its members, its history, and what can be done about it.

import { asked, keeper } from "./address.js";
import { all, bodyOf, forever, get, nextPage, pause, Refusal, write } from "./api.js";
import { adoptDialog, changeDialog, deleteDialog, endSuspension, scaleDialog, settingsDialog, suspendDialog, templateDialog } from "./act.js";
import { chart, RANGES, series } from "./chart.js";
import { h, put, renew, say } from "./dom.js";
import { Form } from "./form.js";
import { nameOf, plural, short, timeElement, until } from "./format.js";
import { membersView } from "./members.js";
import * as policies from "./policies.js";
import * as rollouts from "./rollouts.js";
import { timeline } from "./timeline.js";
import { bar, button, card, copyable, dialog, facts, failed, icon, iconButton, menu, pill, problem, segments, setBar, setPill, toast } from "./ui.js";
import { onItsWay, reason } from "./words.js";

// Seconds of a long poll: what a request of a page that is gone may hold at most.
const WAIT = 25;
// Milliseconds between two looks at members and activities, while the group changes and while it does not.
const SOON = 1000;
const SELDOM = 15000;
const PAGE = 200;
// Activities that are read for a chart at most.
const MOST = 4000;

/** What a rollout and policies are at: they are read again when it is another. */
const atWork = ({ rollout, decisions }) => JSON.stringify([rollout?.id, rollout?.state, decisions]);

export async function show(root, { signal, argument: id, title }) {
	const path = `groups/${id}`;
	const live = { group: null, status: null, etag: null, templates: new Map() };
	// The group itself: gone ones have a status and activities still.
	const first = await get(`${path}/status`, { signal });
	live.status = first.body;
	const keep = keeper();
	const crumb = h("nav.crumb", { "aria-label": "Where you are" }, h("a", { href: "#/groups" }, "Groups"), icon("right"), h("span.clip", live.status.group_name));
	const state = pill("", "idle");
	const message = h("p.lead");
	const next = h("p.quiet");
	const trouble = h("p.trouble");
	const held = h("div.note.held", { hidden: true });
	const actions = h("div.actions");
	const heading = h("div.title", h("h1", live.status.group_name), state, actions);

	// Capacity
	const numbers = h("p.big");
	const progress = bar();
	const parts = h("p.quiet.small");
	const wanted = h("input", { type: "number", min: 0, "aria-label": "Wanted capacity", inputmode: "numeric" });
	const scale = h("form.stepper", { novalidate: true }, iconButton("One fewer", "minus", { onclick: () => step(-1) }), wanted, iconButton("One more", "plus", { onclick: () => step(1) }), button("Scale", { type: "submit", class: "primary", "aria-disabled": "true" }));
	const about = h("dl.facts");
	const capacity = card("Capacity", { class: "side" }, numbers, progress, parts, scale, about);
	const step = (by) => {
		if (!live.group) return;
		wanted.value = Math.max(0, Number(wanted.value) + by);
		offerScale();
	};
	const offerScale = () => {
		const isOff = wanted.value === "" || !live.group || Number(wanted.value) === live.group.capacity;
		scale.lastChild.ariaDisabled = isOff;
	};
	wanted.addEventListener("input", offerScale);
	scale.addEventListener("submit", (event) => {
		event.preventDefault();
		if (scale.lastChild.ariaDisabled === "false") scaleDialog(live, Number(wanted.value));
	});

	// Members
	const members = membersView({ actions: memberActions, templates: live.templates, asked: asked(), keep });
	const adopt = button("Adopt", { class: "small", onclick: () => live.group && adoptDialog(live) }, "plus");
	const picture = card("Members", { actions: [adopt, members.modes] }, members.element);

	// History
	const activities = { list: [], more: null };
	const drawn = chart();
	let range = RANGES.find(([seconds]) => String(seconds) === asked().get("range"))?.[0] ?? RANGES[0][0];
	const ranges = segments(RANGES, range, async (seconds) => {
		range = seconds;
		keep({ range: seconds !== RANGES[0][0] && String(seconds) });
		await readBack();
		draw();
	}, "Hours");
	const history = card("Wanted and running", { actions: ranges }, drawn.element);
	const told = timeline({ templates: live.templates, loadMore: async () => {
		await older();
		draw();
	} });
	const log = card("Activities", { actions: told.views, class: "whole" }, told.element);

	function drawStatus() {
		const { status } = live;
		const [label, tone] = reason(status.reason);
		title(`${status.group_name}: ${status.running} of ${status.desired}, ${label.toLowerCase()}`);
		setPill(state, label, tone);
		say(message, status.message);
		say(trouble, status.last_error && !status.message.includes(status.last_error) ? status.last_error : "");
		put(next, tone === "good" || tone === "idle" ? "" : ["Since ", timeElement(status.since), ". "], status.next_attempt_at && ["Next look ", timeElement(status.next_attempt_at, until), "."],
			status.failures > 1 && ` ${plural(status.failures, "look")} in a row ran into this.`);
		put(numbers, h("b", String(status.running)), h("span.quiet", ` of ${status.desired} running`));
		setBar(progress, status);
		say(parts, onItsWay(status).join(" · ") || (status.settled ? "Nothing is on its way." : ""));
		drawAbout();
	}

	function drawAbout() {
		const { group } = live;
		if (!group) return;
		const template = live.templates.get(group.template_id);
		const { min_capacity: least, max_capacity: most, suspended, suspend_reason: why, suspended_until: end } = group;
		held.hidden = !suspended?.length || Date.parse(end) < Date.now();
		renew(held, JSON.stringify([suspended, why, end]), () => [icon("pause"), h("p", h("b", `Suspended: ${suspended.join(", ")}`), why ? `: ${why}. ` : ". ", end && ["It ends ", timeElement(end, until), "."]),
			button("End suspension", { class: "small", onclick: () => endSuspension(live) }, "play")]);
		renew(about, JSON.stringify([group, template]), () => facts([
			["Template", h("a", { href: `#/templates?template=${group.template_id}` }, nameOf(live.templates, group.template_id))],
			bounds().length > 0 && ["Bounds", `${least} to ${most}`],
			["Created", timeElement(group.created_at)],
			["Changed", timeElement(group.updated_at)],
			["Id", copyable(group.id, "the group's id")],
		]));
	}

	function draw() {
		told.update(activities.list, Boolean(activities.more));
		const from = Date.now() - range * 1000;
		drawn.update({ ...series(activities.list, live.status, from), bounds: bounds() });
	}

	/** The bounds that somebody set. */
	const bounds = () => [live.group?.min_capacity, live.group?.max_capacity].filter((value) => value > 0 && value < wanted.max);

	async function older() {
		const { body, headers } = await get(activities.more, { signal });
		activities.list.push(...body);
		activities.more = nextPage(headers);
	}

	/** Read activities as far back as the chart goes. */
	async function readBack() {
		const from = Date.now() - range * 1000;
		while (activities.more && activities.list.length < MOST && Date.parse(activities.list.at(-1).ended_at) > from) await older();
	}

	async function readActivities() {
		const { body, headers } = await get(`${path}/activities?limit=${PAGE}`, { signal });
		const known = new Set(activities.list.map((one) => one.id));
		const fresh = body.filter((one) => !known.has(one.id));
		if (!known.size || fresh.length === body.length) Object.assign(activities, { list: body, more: nextPage(headers) });
		else activities.list.unshift(...fresh);
		if (!known.size) await readBack();
		draw();
	}

	/** Before a choice among templates: there may be newer ones. */
	const choosing = (open) => () => readTemplates().then(open).catch(failed);

	async function readTemplates() {
		for (const one of await all("templates", { signal })) live.templates.set(one.id, one);
	}

	async function readGroup() {
		try {
			const { body, etag } = await get(path, { signal });
			const wasAt = live.group?.capacity;
			Object.assign(live, { group: body, etag });
			if (!live.templates.has(body.template_id)) await readTemplates();
			// What somebody is writing stays.
			if (wanted.value === "" || Number(wanted.value) === wasAt) wanted.value = body.capacity;
			wanted.max = bodyOf("PUT", "groups/{}").properties.capacity.maximum ?? "";
			offerScale();
		} catch (error) {
			if (!(error instanceof Refusal) || error.status !== 404) throw error;
			Object.assign(live, { group: null, etag: null });
		}
		actions.hidden = scale.hidden = !live.group;
		drawAbout();
	}

	async function readRest() {
		const [found] = await Promise.all([all(`${path}/members`, { signal }), readActivities()]);
		members.update(found);
	}

	function memberActions(member) {
		const { machine_id: machine } = member;
		const name = member.name ?? short(machine);
		const at = `/members/${machine}`;
		const send = async (method, rest, body, words) => {
			await write(method, `${path}${at}${rest}`, { body });
			toast(words);
			live.renew();
		};
		const act = (...sent) => send(...sent).catch(failed);
		/** With a note, and what else the request takes. */
		const withNote = (title_, text, rest, given, words, tone) => {
			const schema = bodyOf("PUT", `groups/{}/members/{}${rest}`);
			const form = new Form(schema, { only: Object.keys(schema.properties).filter((one) => !(one in given)) });
			dialog({ title: `${title_} ${name}`, action: title_, tone, form, body: [h("p", text), form.element], submit: (body) => send("PUT", rest, { ...body, ...given }, words) });
		};
		const detach = () => {
			const falls = h("input", { type: "checkbox", checked: true });
			dialog({
				title: `Detach ${name}`, action: "Detach", tone: "danger",
				body: [h("p", "It is no member any more, and loses the group's tags. The machine itself runs on, and is yours to look after."),
					h("label.check", falls, "The capacity falls by one. Otherwise another instance is launched in its place")],
				submit: () => send("POST", "/detach", { decrement: falls.checked }, `${name} is no member any more; the machine stays.`),
			});
		};
		const leave = (decrement, title_, text) => changeDialog({ ...live, etag: null }, {
			title: `${title_} ${name}`, action: title_, tone: "danger", body: [h("p", text)],
			change: () => ["DELETE", `${at}?decrement=${decrement}`, undefined], done: () => toast(`${name} goes.`),
		});
		return [
			member.protected
				? ["Unprotect", () => act("PUT", "/protection", { protected: false }, `${name} is not protected any more.`)]
				: ["Protect", () => withNote("Protect", "Rollouts leave it alone, and so does a smaller capacity as long as others can go.", "/protection", { protected: true }, `${name} is protected.`)],
			member.health.status === "unhealthy"
				? ["Mark as healthy", () => act("PUT", "/health", { status: "healthy" }, `${name} counts as healthy.`)]
				: ["Mark as unhealthy", () => withNote("Mark as unhealthy", "It is deleted, and another one is launched in its place.", "/health", { status: "unhealthy" }, `${name} is to be replaced.`, "danger"), "bad"],
			["Replace", () => leave(false, "Replace", "It is deleted, and another one is launched in its place."), "bad"],
			["Remove", () => leave(true, "Remove", "It is deleted, and the capacity falls by one."), "bad"],
			["Detach", detach, "bad"],
		];
	}

	// All at once, so that nothing jumps.
	const ready = Promise.all([readGroup(), readRest()]);
	const page = { live, path, signal, choosing, ready };
	const extras = await Promise.all([rollouts.show(page), policies.show(page)]);
	await ready;
	members.update();
	put(actions, button("Change template", { onclick: choosing(() => templateDialog(live)) }, "swap"), extras.flatMap((one) => one.actions ?? []), menu("More actions", [
		["Settings", () => settingsDialog(live)],
		["Suspend", () => suspendDialog(live)],
		["Delete group", () => deleteDialog(live), "bad"],
	]));
	drawStatus();
	put(root, crumb, heading, h("div.says", message, trouble, next), held, h("div.grid", capacity, picture, history, extras.map((one) => one.element), log));
	draw();

	let seen = first.etag;
	let wait;
	async function readStatus() {
		wait = new AbortController();
		let answer;
		try {
			answer = await get(`${path}/status?wait=${seen ? WAIT : 0}`, { signal: AbortSignal.any([signal, wait.signal]), seen });
		} catch (error) {
			if (!wait.signal.aborted) throw error;
			seen = null;
			return 0;
		}
		// An answer before its time has nothing new: too many wait already.
		const rest = answer.headers.has("Retry-After") ? 2000 : 0;
		if (answer.status === 304) return rest;
		const before = live.status;
		live.status = answer.body;
		seen = answer.etag;
		drawStatus();
		follow();
		if (atWork(before) !== atWork(live.status)) for (const one of extras) one.renew();
		if (!live.group || before.generation !== live.status.generation) await readGroup();
		return Math.max(rest, 250);
	}
	live.renew = () => {
		for (const renew_ of [follow, ...extras.map((one) => one.renew)]) renew_();
		wait?.abort();
	};

	const refused = (error) => put(root, crumb, problem(error));
	forever(readStatus, signal, refused);
	// What follows a change of the status; not too often while much changes.
	const follow = forever(async () => {
		await pause(SOON, signal);
		await readRest();
		return SELDOM;
	}, signal, refused, SELDOM);
}
