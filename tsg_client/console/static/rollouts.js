// The rollouts of a group: the newest with its waves and what can be asked of it, and those before.

import { changeDialog, difference, templateChoice } from "./act.js";
import { all, bodyOf, forever, write } from "./api.js";
import { each, h, put, renew, say, unique } from "./dom.js";
import { Form, rowsControl } from "./form.js";
import { nameOf, span, timeElement, until } from "./format.js";
import { button, card, confirm, failed, pill, setPill, toast } from "./ui.js";
import { phrase, ROLLOUT_ENDED as ENDED, rolloutTone } from "./words.js";

const PAUSED = ["Pausing", "Paused"];
// What may be asked in which state: [verb, label, icon].
const ASKS = [
	["pause", "Pause", "pause", (state) => ["Pending", "InProgress", "Baking"].includes(state)],
	["resume", "Resume", "play", (state) => PAUSED.includes(state)],
	["cancel", "Cancel", "close", (state) => !ENDED.includes(state)],
	["rollback", "Roll back", "undo", (state) => !["RollingBack", "RolledBack"].includes(state)],
];
const FIRST = ["template_id", "max_surge", "max_unavailable", "steps", "on_failure"];
const SHOWN = 6;
const SOON = 1500;
const REST = 20000;

/** The card: its element, the buttons for the page's head, and `renew` to read at once. */
export async function show({ live, path, signal, choosing, ready }) {
	const name = (id) => nameOf(live.templates, id);
	const state = pill("", "idle");
	const headline = h("p.lead");
	const told = h("p");
	const when = h("p.quiet.small");
	const track = h("ol.track");
	const counts = h("p.quiet.small");
	const asks = h("div.actions");
	const older = h("ul.past");
	const element = card("Rollout", { hidden: true, actions: [state, asks], class: "whole" }, headline, told, track, counts, when, older);
	let newest = null;

	function ask(verb, label) {
		const act = async () => {
			await write("PUT", `${path}/rollouts/${newest.id}/${verb}`);
			toast(`${label}: it is asked for.`);
			live.renew();
		};
		if (verb === "cancel") return confirm("Cancel the rollout", "It ends, and members stay as they are: some of the new template, some of the old one.", "Cancel rollout", act);
		if (verb === "rollback") return confirm("Roll back", `The members go back to ${name(newest.previous_template_id)}, by the same rules.`, "Roll back", act);
		return act().catch(failed);
	}

	function draw(list) {
		[newest] = list;
		element.hidden = !newest;
		if (!newest) return;
		const { state: word, counts: seen, steps = [], percent_complete: share } = newest;
		setPill(state, phrase(word), rolloutTone(word));
		put(headline, newest.template_id === newest.previous_template_id ? ["All members anew from ", h("b", name(newest.template_id))]
			: [name(newest.previous_template_id), " → ", h("b", name(newest.template_id))]);
		say(told, newest.message);
		told.className = rolloutTone(word) === "bad" ? "trouble" : "quiet";
		// While it is under way it comes first.
		element.classList.toggle("first-of-all", !ENDED.includes(word));
		each(track, steps, (step) => step.percent, () => h("li", h("i"), h("span")), (item, step) => {
			const index = steps.indexOf(step);
			const from = steps[index - 1]?.percent ?? 0;
			item.style.flexGrow = step.percent - from;
			item.firstChild.style.width = `${100 * Math.max(0, Math.min(1, (share - from) / (step.percent - from)))}%`;
			item.className = index === newest.step && !ENDED.includes(word) ? "now" : "";
			say(item.lastChild, `${step.percent} %${step.pause ? ", then a pause" : step.pause_seconds ? `, then ${span(step.pause_seconds)}` : ""}`);
		});
		track.ariaLabel = `${share} per cent done`;
		const parts = [["new", "new"], ["new_available", "of them available"], ["outdated", "outdated"], ["draining", "draining"], ["failed", "failed"]];
		say(counts, [`${share} % done`, ...parts.filter(([key]) => seen[key] || key === "new").map(([key, words]) => `${seen[key] ?? 0} ${words}`)].join(" · "));
		put(when, newest.started_at && ["Started ", timeElement(newest.started_at)], newest.ended_at && [", ended ", timeElement(newest.ended_at)], newest.next_at && [", goes on ", timeElement(newest.next_at, until)]);
		const possible = ASKS.filter(([verb, , , fits]) => fits(word) && live.group);
		renew(asks, possible.join(), () => possible.map(([verb, label, sign]) => button(label, { class: "small", onclick: () => ask(verb, label) }, sign)));
		each(older, list.slice(1, SHOWN), (one) => one.id, (one) => h("li", pill(phrase(one.state), rolloutTone(one.state)), h("span", ` ${name(one.previous_template_id)} → ${name(one.template_id)}`), h("span.quiet.small", timeElement(one.ended_at ?? one.created_at))),
			(item, one) => setPill(item.firstChild, phrase(one.state), rolloutTone(one.state)));
	}

	async function read() {
		draw(await all(`${path}/rollouts`, { signal }));
		return !newest || ENDED.includes(newest.state) ? REST : SOON;
	}

	function start() {
		const schema = bodyOf("POST", "groups/{}/rollouts");
		const own = live.group.template_id;
		const choice = (id) => {
			const made = templateChoice([...live.templates.values()].filter((one) => one.id !== own))(id);
			made.input.options[0].textContent = `${name(own)}, the group's own: all members anew`;
			made.input.required = false;
			return made;
		};
		const form = new Form(schema, { first: FIRST, given: { template_id: choice, steps: stepsControl(schema.properties.steps) }, labels: { template_id: "Template", max_surge: "Surge", max_unavailable: "Unavailable" } });
		const differs = h("div");
		changeDialog(live, {
			title: `Roll out to ${live.group.group_name}`,
			action: "Start rollout",
			wide: true,
			body: [form.element, differs],
			form,
			change: () => {
				if (!form.isRight()) return null;
				const body = form.read();
				put(differs, body.template_id ? difference(live.templates.get(own), live.templates.get(body.template_id)) : null);
				return ["POST", "/rollouts", body];
			},
			done: () => toast("The rollout begins."),
		});
	}

	const [list] = await Promise.all([all(`${path}/rollouts`, { signal }), ready]);
	draw(list);
	const again = forever(read, signal, () => {
		element.hidden = true;
	}, SOON);
	return { element, renew: again, actions: [button("Roll out", { class: "primary", onclick: choosing(start) }, "play")] };
}

const STEPS = [
	["All at once", [{ percent: 100 }]],
	["One in ten first, then wait for me", [{ percent: 10, pause: true }, { percent: 100 }]],
	["10 %, 50 %, all, with ten minutes between", [{ percent: 10, pause_seconds: 600 }, { percent: 50, pause_seconds: 600 }, { percent: 100 }]],
];

/** A choice of steps, or one's own. */
const stepsControl = (schema) => (id) => {
	const own = rowsControl(unique("steps"), schema, STEPS[2][1]);
	own.element.hidden = true;
	const input = h("select", { id, onchange: () => {
		own.element.hidden = input.value !== "own";
	} }, STEPS.map(([label], index) => h("option", { value: index }, label)), h("option", { value: "own" }, "My own …"));
	return { element: [input, own.element], input, read: () => (input.value === "own" ? own.read() : STEPS[input.value][1]), problem: () => (input.value === "own" ? own.problem() : "") };
};
