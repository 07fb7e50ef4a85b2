// The rollouts of a group: the newest with its waves and what can be asked of it, and those before.

import { changeDialog, difference, templateChoice } from "./act.js";
import { all, forever, write } from "./api.js";
import { each, h, put, say, unique } from "./dom.js";
import { Form, rowsControl } from "./form.js";
import { short, span, timeElement, until } from "./format.js";
import { button, card, confirm, pill, setPill, toast } from "./ui.js";
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
const REST = 20000;

/** The card: its element, the buttons for the page's head, `begin` to keep it live, `renew` to read at once. */
export async function show({ offer, live, path, signal, choosing, ready }) {
	const name = (id) => live.templates.get(id)?.template_name ?? short(id);
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
	let stop = new AbortController();

	function ask(verb, label) {
		const act = async () => {
			await write("PUT", `${path}/rollouts/${newest.id}/${verb}`);
			toast(`${label}: it is asked for.`);
			live.renew();
		};
		if (verb === "cancel") return confirm("Cancel the rollout", "It ends, and members stay as they are: some of the new template, some of the old one.", "Cancel rollout", act);
		if (verb === "rollback") return confirm("Roll back", `The members go back to ${name(newest.previous_template_id)}, by the same rules.`, "Roll back", act);
		return act().catch((error) => toast(error.message, "bad"));
	}

	function draw(list) {
		[newest] = list;
		element.hidden = !newest;
		if (!newest) return;
		const { state: word, counts: seen = {}, steps = [] } = newest;
		setPill(state, phrase(word), rolloutTone(word));
		put(headline, newest.template_id === newest.previous_template_id ? ["All members anew from ", h("b", name(newest.template_id))]
			: [name(newest.previous_template_id), " → ", h("b", name(newest.template_id))]);
		say(told, newest.message);
		told.className = rolloutTone(word) === "bad" ? "trouble" : "quiet";
		// While it is under way it comes first.
		element.classList.toggle("first-of-all", !ENDED.includes(word));
		const share = newest.percent_complete ?? 0;
		each(track, steps, (step) => step.percent, () => h("li", h("i"), h("span")), (item, step) => {
			const index = steps.indexOf(step);
			const from = steps[index - 1]?.percent ?? 0;
			item.style.flexGrow = step.percent - from;
			item.firstChild.style.width = `${100 * Math.max(0, Math.min(1, (share - from) / (step.percent - from)))}%`;
			item.className = index === newest.step && !ENDED.includes(word) ? "now" : "";
			say(item.lastChild, `${step.percent} %${step.pause ? ", then a pause" : step.pause_seconds ? `, then ${span(step.pause_seconds)}` : ""}`);
		});
		track.setAttribute("aria-label", `${share} per cent done`);
		const parts = [["new", "new"], ["new_available", "of them available"], ["outdated", "outdated"], ["draining", "draining"], ["failed", "failed"]];
		say(counts, [`${share} % done`, ...parts.filter(([key]) => seen[key] || key === "new").map(([key, words]) => `${seen[key] ?? 0} ${words}`)].join(" · "));
		put(when, newest.started_at && ["Started ", timeElement(newest.started_at)], newest.ended_at && [", ended ", timeElement(newest.ended_at)], newest.next_at && [", goes on ", timeElement(newest.next_at, until)]);
		const possible = ASKS.filter(([verb, , , fits]) => fits(word) && offer.has("PUT", `groups/{}/rollouts/{}/${verb}`) && live.group);
		if (asks.dataset.verbs !== possible.map(([verb]) => verb).join()) {
			asks.dataset.verbs = possible.map(([verb]) => verb).join();
			put(asks, possible.map(([verb, label, sign]) => button(label, { class: "small", onclick: () => ask(verb, label) }, sign)));
		}
		each(older, list.slice(1, SHOWN), (one) => one.id, (one) => h("li", pill(phrase(one.state), rolloutTone(one.state)), h("span", ` ${name(one.previous_template_id)} → ${name(one.template_id)}`), h("span.quiet.small", timeElement(one.ended_at ?? one.created_at))),
			(item, one) => setPill(item.firstChild, phrase(one.state), rolloutTone(one.state)));
	}

	/** While one is under way it is looked at with the group's status, which changes with it. */
	async function read() {
		draw(await all(`${path}/rollouts`, { signal }));
		if (!newest || ENDED.includes(newest.state)) {
			stop = new AbortController();
			signal.addEventListener("abort", () => stop.abort(), { once: true });
			await Promise.race([new Promise((resolve) => stop.signal.addEventListener("abort", resolve)), new Promise((resolve) => setTimeout(resolve, REST))]);
			return 0;
		}
		return 1500;
	}
	const begin = () => forever(read, signal, () => {
		element.hidden = true;
	});

	function start() {
		const schema = offer.body("POST", "groups/{}/rollouts");
		const own = live.group.template_id;
		const choice = (id) => {
			const made = templateChoice([...live.templates.values()].filter((one) => one.id !== own))(id);
			made.input.options[0].textContent = `${name(own)}, the group's own: all members anew`;
			return { ...made, problem: () => "" };
		};
		const form = new Form(schema, { first: FIRST, given: { template_id: choice, steps: stepsControl(schema.properties.steps) }, labels: { template_id: "Template", max_surge: "Surge", max_unavailable: "Unavailable" } });
		const differs = h("div");
		changeDialog(offer, live, {
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
			estimate: () => "Members are replaced in the steps that you give, never more at a time than you allow.",
			done: () => toast("The rollout begins."),
		});
	}

	const [list] = await Promise.all([all(`${path}/rollouts`, { signal }), ready]);
	draw(list);
	return { element, begin, actions: [button("Roll out", { class: "primary", onclick: choosing(start) }, "play")], renew: () => stop.abort() };
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
