// One group: how it is, what it waits for, its members, its history, and what can be done about it.

import { asked, keeper } from "./address.js";
import { all, forever, get, nextPage, Refusal, write } from "./api.js";
import { adoptDialog, changeDialog, deleteDialog, scaleDialog, settingsDialog, templateDialog } from "./act.js";
import { chart, RANGES, series } from "./chart.js";
import { h, put, say } from "./dom.js";
import { plural, short, timeElement, until } from "./format.js";
import { membersView } from "./members.js";
import { timeline } from "./timeline.js";
import { bar, button, card, confirm, copyable, dialog, icon, iconButton, menu, pill, problem, segments, setBar, setPill, toast } from "./ui.js";
import { phrase, reason } from "./words.js";

// Seconds of a long poll: what a request of a page that is gone may hold at most.
const WAIT = 25;
// Milliseconds between two looks at members and activities while a group changes.
const SOON = 1500;
const PAGE = 200;
// Activities that are read for a chart at most.
const MOST = 4000;

const ROUTE = "groups/{group_id}";

export async function show(root, { offer, signal, argument: id, title }) {
	const path = `groups/${id}`;
	const live = { group: null, status: null, etag: null, templates: new Map(), members: null, renew: () => {} };
	const has = (method, rest, parameter) => offer.has(method, `${ROUTE}${rest}`, parameter);

	// What belongs to newer services, each in a card of its own.
	const modules = Promise.all([has("POST", "/rollouts") && import("./rollouts.js"), has("POST", "/policies") && import("./policies.js")]);
	// The group itself: gone ones have a status and activities still.
	const first = await get(`${path}/status`, { signal });
	live.status = first.body;
	const keep = keeper();
	const crumb = h("nav", { class: "crumb", "aria-label": "Where you are" }, h("a", { href: "#/groups" }, "Groups"), icon("right"), h("span", live.status.group_name));
	const state = pill("", "idle");
	const message = h("p.lead");
	const next = h("p.quiet");
	const trouble = h("p.trouble");
	const actions = h("div.actions");
	const heading = h("div.title", h("h1", live.status.group_name), state, actions);

	// Capacity
	const numbers = h("p.big");
	const progress = bar();
	const parts = h("p.quiet.small");
	const wanted = h("input", { type: "number", min: 0, "aria-label": "Wanted capacity", inputmode: "numeric" });
	const scale = h("form", { class: "stepper", novalidate: true }, iconButton("One fewer", "minus", { onclick: () => step(-1) }), wanted, iconButton("One more", "plus", { onclick: () => step(1) }), button("Scale", { type: "submit", class: "primary", "aria-disabled": "true" }));
	const about = h("dl.facts");
	const capacity = card("Capacity", { class: "side" }, numbers, progress, parts, scale, about);
	const step = (by) => {
		if (!live.group) return;
		wanted.value = Math.max(0, Number(wanted.value) + by);
		offerScale();
	};
	const offerScale = () => {
		const isOff = wanted.value === "" || !live.group || Number(wanted.value) === live.group.capacity;
		scale.lastChild.setAttribute("aria-disabled", String(isOff));
	};
	wanted.addEventListener("input", offerScale);
	scale.addEventListener("submit", (event) => {
		event.preventDefault();
		if (scale.lastChild.getAttribute("aria-disabled") === "false") scaleDialog(offer, live, Number(wanted.value));
	});

	// Members
	const listed = has("GET", "/members");
	const members = membersView({ actions: memberActions, templates: live.templates, asked: asked(), keep });
	const adopt = has("POST", "/members") && button("Adopt", { class: "small", title: "Make a running machine of yours a member", onclick: () => live.group && adoptDialog(offer, live) }, "plus");
	const picture = card("Members", { actions: [adopt, members.modes], hidden: !listed }, members.element);

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

	let extras = null;
	function drawActions() {
		if (!extras) return;
		if (!live.group) {
			put(actions);
			scale.hidden = true;
			return;
		}
		if (actions.firstChild) return;
		const more = [
			Object.keys(offer.body("PUT", ROUTE)?.properties ?? {}).length > 3 && ["Settings", "edit", () => settingsDialog(offer, live)],
			["Delete group", "trash", () => deleteDialog(offer, live), "bad"],
		].filter(Boolean);
		put(actions, button("Change template", { onclick: choosing(() => templateDialog(offer, live)) }, "swap"), ...extras.flatMap((one) => one.actions ?? []), menu("More actions", more));
	}

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
		say(parts, [status.provisioning && `${status.provisioning} coming up`, status.failed && `${status.failed} failed`, status.deleting && `${status.deleting} going`].filter(Boolean).join(" · ") || (status.settled ? "Nothing is on its way." : ""));
		drawAbout();
	}

	function drawAbout() {
		const { group } = live;
		if (!group) return;
		const template = live.templates.get(group.template_id);
		const bounds = group.max_capacity !== undefined && group.max_capacity !== null;
		put(about, [
			["Template", h("a", { href: `#/templates?template=${group.template_id}` }, template?.template_name ?? short(group.template_id))],
			bounds && ["Bounds", `${group.min_capacity} to ${group.max_capacity}`],
			group.suspended?.length && ["Suspended", `${group.suspended.map(phrase).join(", ")}${group.suspend_reason ? `: ${group.suspend_reason}` : ""}`],
			["Created", timeElement(group.created_at)],
			["Changed", timeElement(group.updated_at)],
			["Id", copyable(group.id, "the group's id")],
		].filter(Boolean).map(([name, value]) => [h("dt", name), h("dd", value)]));
	}

	function draw() {
		told.update(activities.list, Boolean(activities.more));
		const from = Date.now() - range * 1000;
		drawn.update(series(activities.list, live.status, from));
	}

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
	const choosing = (open) => async () => {
		try {
			for (const one of await all("templates", { signal })) live.templates.set(one.id, one);
			open();
		} catch (error) {
			toast(error.message, "bad");
		}
	};

	async function readGroup() {
		try {
			const { body, etag } = await get(path, { signal });
			const wasAt = live.group?.capacity;
			Object.assign(live, { group: body, etag });
			if (!live.templates.has(body.template_id)) for (const one of await all("templates", { signal })) live.templates.set(one.id, one);
			// What somebody is writing stays.
			if (wanted.value === "" || Number(wanted.value) === wasAt) wanted.value = body.capacity;
			const limit = offer.body("PUT", ROUTE)?.properties.capacity.maximum;
			wanted.max = limit ?? "";
			offerScale();
		} catch (error) {
			if (!(error instanceof Refusal) || error.status !== 404) throw error;
			Object.assign(live, { group: null, etag: null });
		}
		drawActions();
		drawAbout();
	}

	async function readMembers() {
		if (!listed) return;
		live.members = await all(`${path}/members`, { signal });
		members.update(live.members);
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
		const act = (...sent) => send(...sent).catch((error) => toast(error.message, "bad"));
		const unhealthy = () => confirm(`Mark ${name} as unhealthy`, "It is deleted, and another one is launched in its place.", "Mark as unhealthy",
			() => send("PUT", "/health", { status: "unhealthy" }, `${name} is to be replaced.`));
		const detach = () => {
			const falls = h("input", { type: "checkbox", checked: true });
			dialog({
				title: `Detach ${name}`, action: "Detach", tone: "danger",
				body: [h("p", "It is no member any more, and loses the group's tags. The machine itself runs on, and is yours to look after."),
					h("label.check", falls, "The capacity falls by one. Otherwise another instance is launched in its place")],
				submit: () => send("POST", "/detach", { decrement: falls.checked }, `${name} is no member any more; the machine stays.`),
			});
		};
		const leave = (decrement, title_, text) => changeDialog(offer, { ...live, etag: null }, {
			title: `${title_} ${name}`, action: title_, tone: "danger", body: [h("p", text)],
			change: () => ["DELETE", `${at}?decrement=${decrement}`, undefined], done: () => toast(`${name} goes.`),
		});
		const one = "/members/{}";
		return [
			has("PUT", `${one}/protection`) && (member.protected
				? ["Unprotect", "shield", () => act("PUT", "/protection", { protected: false }, `${name} is not protected any more.`)]
				: ["Protect", "shield", () => act("PUT", "/protection", { protected: true }, `${name} is protected.`)]),
			has("PUT", `${one}/health`) && (member.health?.status === "unhealthy"
				? ["Mark as healthy", "check", () => act("PUT", "/health", { status: "healthy" }, `${name} counts as healthy.`)]
				: ["Mark as unhealthy", "alert", unhealthy, "bad"]),
			has("DELETE", one) && ["Replace", "swap", () => leave(false, "Replace", "It is deleted, and another one is launched in its place."), "bad"],
			has("DELETE", one) && ["Remove", "trash", () => leave(true, "Remove", "It is deleted, and the capacity falls by one."), "bad"],
			has("POST", `${one}/detach`) && ["Detach", "undo", detach, "bad"],
		].filter(Boolean);
	}

	// All at once, so that nothing jumps.
	const ready = Promise.all([readGroup(), readActivities(), readMembers()]);
	const page = { offer, live, path, signal, choosing, ready };
	extras = await Promise.all((await modules).filter(Boolean).map((module) => module.show(page)));
	await ready;
	drawActions();
	drawStatus();
	put(root, crumb, heading, h("div.says", message, trouble, next), h("div.grid", capacity, picture, history, ...extras.map((one) => one.element), log));
	draw();

	let changed = false;
	let slow = 0;
	/** What follows a change of the status; more often while much changes, and at least every so often. */
	async function readRest() {
		if (!changed && (slow += 1) % 10) return SOON;
		changed = false;
		await Promise.all([readActivities(), readMembers()]);
		return SOON;
	}

	let seen = first.etag;
	let wait = new AbortController();
	async function readStatus() {
		wait = new AbortController();
		signal.addEventListener("abort", () => wait.abort(), { once: true });
		let answer;
		try {
			answer = await get(`${path}/status?wait=${seen ? WAIT : 0}`, { signal: wait.signal, seen });
		} catch (error) {
			if (error.name === "AbortError" && !signal.aborted) {
				seen = null;
				return 0;
			}
			throw error;
		}
		// An answer before its time has nothing new: too many wait already.
		const rest = answer.headers.has("Retry-After") ? 2000 : 0;
		if (answer.status === 304) return rest;
		const before = live.status;
		live.status = answer.body;
		seen = answer.etag;
		drawStatus();
		changed = true;
		if (!live.group || before.generation !== answer.body.generation) await readGroup();
		return Math.max(rest, 250);
	}
	live.renew = () => {
		changed = true;
		for (const one of extras) one.renew?.();
		wait.abort();
	};

	const refused = (error) => put(root, crumb, problem(error));
	for (const one of extras) one.begin();
	forever(readStatus, signal, refused);
	forever(readRest, signal, refused);
}
