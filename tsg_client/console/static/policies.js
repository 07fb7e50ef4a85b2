// The policies of a group: what makes it scale itself, what each decided last, and what a new one would.

import { editDialog, makeDialog } from "./act.js";
import { bodyOf, forever, get, Refusal, request, write } from "./api.js";
import { each, h, put, renew, say } from "./dom.js";
import { Form } from "./form.js";
import { moment, timeElement, until } from "./format.js";
import { button, card, confirm, empty, failed, menu, pill, problem, reveal, segments, tableDialog, toast } from "./ui.js";
import { phrase } from "./words.js";

// Fields that all kinds have, and those of each.
const COMMON = ["policy_name", "mode", "cooldown"];
const KINDS = {
	schedule: ["At times", "Sets a capacity, or a bound, by the clock", ["schedule", "set", "duration_seconds", "misfire", "misfire_grace_seconds"]],
	target: ["By a target", "Keeps a measure where it should be", ["metric", "target", "per", "tolerance", "stabilization", "max_step", "fallback"]],
	step: ["By steps", "Grows and shrinks by ranges of a measure", ["metric", "steps", "for_seconds"]],
	webhook: ["By a webhook", "Changes the capacity when an address is called", ["change", "on_bound"]],
};
const NEEDED = { schedule: ["schedule", "set"], target: ["metric", "target"], step: ["metric", "steps"], webhook: ["change"] };
const RESULTS = { changed: "good", clamped: "wait", tolerance: "good", missing_data: "wait", suspended: "wait", converging: "busy" };
const REST = 10000;

const result = (decision) => pill(phrase(decision.result), RESULTS[decision.result] ?? "idle");

/** A policy in a sentence. */
function summary(policy) {
	const { schedule, set, metric, target, change, duration_seconds: seconds } = policy;
	const what = set ? Object.entries(set).filter(([, value]) => value !== null).map(([name, value]) => `${phrase(name).toLowerCase()} ${value}`).join(", ") : "";
	if (policy.kind === "schedule") return `${what} ${schedule.at ? `at ${moment(schedule.at)}` : `at ${schedule.cron} (${schedule.time_zone ?? "UTC"})`}${seconds ? `, for ${seconds} s` : ""}`;
	const measure = metric ? metric.measure ?? metric.name ?? metric.query : "";
	if (policy.kind === "target") return `${measure} at ${target}${policy.per === "group" ? " for the group" : ""}`;
	if (policy.kind === "step") return `${policy.steps?.length ?? 0} steps by ${measure}`;
	return policy.kind === "webhook" ? `${change} when it is called` : phrase(policy.kind ?? "");
}

/** The card: its element, and `renew` to read at once. */
export async function show({ path, signal }) {
	const list = h("ul.policies");
	const nothing = empty("No policies", "A policy scales the group by the clock, by a measure, or when a webhook is called.");
	const element = card("Policies", { class: "whole", actions: [button("New policy", { class: "small", onclick: () => edit() }, "plus")] }, nothing, list);
	const at = (one, rest = "") => `${path}/policies/${one.id}${rest}`;
	const coming = new Map();

	/** The next times of a schedule: the service is asked once, and when the first has passed. */
	async function nextOf(one) {
		const known = coming.get(one.id);
		if (known?.of === one.updated_at && !(Date.parse(known.next[0]) < Date.now())) return known.next;
		const body = Object.fromEntries(Object.keys(bodyOf("POST", "groups/{}/policies").properties).filter((name) => name in one).map((name) => [name, one[name]]));
		const next = await request("POST", `${path}/policies/preview`, { body, signal }).then((answer) => answer.body.next, (error) => {
			if (!(error instanceof Refusal)) throw error;
			return [];
		});
		coming.set(one.id, { of: one.updated_at, next });
		return next;
	}

	async function read() {
		const [found, decided] = await Promise.all([get(`${path}/policies`, { signal }), get(`${path}/decisions?limit=100`, { signal })]);
		await Promise.all(found.body.map(async (one) => {
			one.next = one.kind === "schedule" ? await nextOf(one) : [];
		}));
		const last = new Map([...decided.body].reverse().map((one) => [one.policy_id, one]));
		nothing.hidden = found.body.length > 0;
		each(list, found.body, (one) => one.id, () => h("li"), (item, one) => {
			const decision = last.get(one.id);
			renew(item, JSON.stringify([one, decision]), () => [h("div.policy-head", h("b", one.policy_name), h("span.quiet", summary(one)), one.mode !== "active" && pill(phrase(one.mode), "idle"), actions(one)),
				decision && h("p.small", result(decision), ` ${decision.message.replace(`${one.policy_name}: `, "")} `, h("span.quiet", timeElement(decision.last_at))),
				one.next.length > 0 && h("p.quiet.small", "Next: ", one.next.slice(0, 3).map((time, index) => [index > 0 && ", ", h("time", { datetime: time, title: until(time) }, moment(time))]))]);
		});
		return REST;
	}

	function actions(one) {
		return menu(`Actions for ${one.policy_name}`, [
			["Decisions", () => decisions(one)],
			["Edit", () => get(at(one)).then(({ body, etag }) => edit(body, etag)).catch(failed)],
			one.kind === "webhook" && ["New address", () => rotate(one)],
			["Delete", () => confirm(`Delete ${one.policy_name}`, "The group keeps the capacity that it has.", "Delete policy", async () => {
				await write("DELETE", at(one));
				toast(`${one.policy_name} is deleted.`);
				again();
			}), "bad"],
		].filter(Boolean));
	}

	function rotate(one) {
		confirm(`New address for ${one.policy_name}`, "The address of before stops working at once.", "Make a new one", async () => tell((await write("POST", at(one, "/rotate"))).body));
	}

	/** The address of a webhook is shown once. */
	function tell(policy) {
		if (policy?.webhook_url) reveal(`The address of ${policy.policy_name}`, "It is shown this once: keep it now. Anybody who has it can scale the group.", "Address", policy.webhook_url);
	}

	const decisions = (one) => tableDialog({ title: `Decisions of ${one.policy_name}`, heads: ["When", "Result", "Capacity", "Why"], nothing: "It has decided nothing yet.", read: () => get(`${at(one, "/decisions")}?limit=100`), row: (made) => [
		h("td", timeElement(made.last_at), made.times > 1 && h("span.quiet", ` ×${made.times}`)),
		h("td", result(made)),
		h("td", made.capacity_after === made.capacity_before ? made.capacity_before : `${made.capacity_before} → ${made.capacity_after}`),
		h("td", made.message),
	] });

	/** A form for a policy of a kind; the kind can be chosen as long as the policy is new. */
	function edit(policy, etag) {
		const whole = bodyOf("POST", "groups/{}/policies");
		const shape = h("p.quiet");
		const preview = h("div.plan", { "aria-live": "polite" });
		let kind = policy?.kind ?? "schedule";
		const form = new Form(whole);
		const choose = (next, values = form.read()) => {
			kind = next;
			const [, about, fields] = KINDS[kind];
			const only = [...COMMON, ...fields];
			const required = ["policy_name", ...NEEDED[kind]];
			form.make({ ...whole, required }, { only, first: ["policy_name", ...fields, "mode"].filter((name) => required.includes(name) || name === "mode" || name === "duration_seconds"), values, labels: { policy_name: "Name" } });
			say(shape, about);
			put(preview);
		};
		choose(kind, policy ?? {});
		const body = () => ({ kind, ...form.read() });
		const look = async () => {
			if (!form.isRight()) return;
			try {
				const { body: found } = await request("POST", `${path}/policies/preview`, { body: body() });
				put(preview, h("div.planned", found.outcomes.length > 0 && h("h3", "What it would do now"), found.outcomes.map((one) => h("p", result(one), ` ${one.message}`)),
					found.next.length > 0 && [h("h3", "Its next times"), h("ol.waves", found.next.map((time) => h("li", moment(time))))]));
				preview.scrollIntoView({ block: "nearest" });
			} catch (error) {
				put(preview, !form.explain(error) && problem(error));
			}
		};
		const content = [!policy && segments(Object.entries(KINDS).map(([name, [label]]) => [name, label]), kind, choose, "Kind"), shape, form.element,
			h("div", button("Preview", { class: "small", onclick: look }, "search")), preview];
		const stored = (answer) => {
			toast("The policy is stored.");
			again();
			tell(answer);
		};
		const parts = { wide: true, form, content, body, done: stored };
		if (policy) editDialog({ path: at(policy), log: `${path}/activities`, thing: policy, etag, what: "The policy", aside: "a new address, or the same once more", title: `Edit ${policy.policy_name}`, action: "Save policy", ...parts });
		else makeDialog({ path: `${path}/policies`, title: "New policy", action: "Create policy", ...parts });
	}

	await read();
	const again = forever(read, signal, (error) => put(element, problem(error)), REST);
	return { element, renew: again };
}
